# The project's commands. `make` alone lists them.
SHELL := bash
VENV ?= .venv
BIN := $(VENV)/bin

# The newest Python that runs: pyenv, for one, has commands for versions that are not active, which fail.
RUNS := import sys, ssl, sqlite3; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(RUNS)' 2>/dev/null && { echo $$python; break; }; done)
NO_PYTHON := error: no Python 3.11, 3.12 or 3.13 with ssl and sqlite3: install one, or name it, make PYTHON=/path/to/python3.13

# uv takes seconds where pip takes minutes. Of either, what is printed is the large downloads and the result.
UV := $(shell uv --version 2>/dev/null)
ifdef UV
CREATE = uv venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
INSTALL = set -o pipefail; uv pip install --python $(BIN)/python $(1) 2>&1 | awk '!/^ ([+~-]|Downloaded) /; {fflush()}'
else
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL = set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check $(1) | \
	awk '/ MB\)/ {print substr($$0, 1, 100)} /^Installing/ {print "Installing", NF - 3, "packages"} {fflush()}'
endif

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: install
install: $(VENV)/installed ## Install into .venv, and nothing else

.PHONY: demo
demo: $(VENV)/installed ## Ingest, train and evaluate drawn faces: installs everything, 2 minutes
	$(BIN)/mlflow run . $(DEMO)
	$(BIN)/python -m pipeline.predict --runs latest
	@echo "$$NEXT"

# Quick on 1,280 drawn faces: a quarter of the width, less dropout and penalty, a larger learning rate.
DEMO := -P width=0.25 -P dropout=0.1 -P l2=0.001 -P batch_size=16 -P lr=0.001 -P epochs=15

define NEXT

What next:
  source $(BIN)/activate
  make ui                                the runs in a browser (docs/mlflow.md)
  mlflow run . -e train -P lr=0.0002     the report's network on the same faces, some minutes
  mlflow run . -e ingest -P source=...   your own faces (docs/data.md)
endef
export NEXT

PORT ?= 5000
.PHONY: ui
ui: $(VENV)/installed ## Show the runs in a browser, from this computer alone
	@echo "the runs are at $$($(BIN)/python -m pipeline.runs.experiment $(PORT)); Ctrl-C ends this"
	@PYTHONWARNINGS=ignore $(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 --uvicorn-opts "--log-level warning"

.PHONY: test
test: $(VENV)/installed-test ## Run the test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

.PHONY: check fast
check: lint fast ## Check style and types, and run the fast tests
fast: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(TESTS)

# Sixteen times the cases of the suite, each time others.
.PHONY: fuzz
fuzz: $(VENV)/installed-test ## Try 11,000 damaged files and odd command lines
	FUZZ=16 $(BIN)/python -m pytest -n 2 --durations 0 tests/test_fuzz.py

.PHONY: lint
lint: $(VENV)/installed-test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: $(VENV)/installed ## Write docs/settings.md from the code
	$(BIN)/python -m search.settings > docs/settings.md

.PHONY: pictures
pictures: $(VENV)/installed-test ## Take the README's pictures of this folder's runs, with Chromium
	$(BIN)/python -m scripts.pictures

.PHONY: gpu
gpu: $(VENV)/installed ## Add what an NVIDIA GPU needs, for TensorFlow and for JAX (Linux)
	@$(call INSTALL,-r requirements-gpu.txt)
	KERAS_BACKEND=jax $(BIN)/python -c 'import jax; print("JAX computes on", *jax.devices())'

# From the oldest Python on, so that one file serves all.
LOCK := pip compile --quiet --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock" pyproject.toml

.PHONY: lock
lock: $(VENV)/installed ## Resolve pyproject.toml into the requirements files
	@$(if $(UV),true,$(call INSTALL,uv))
	@PATH="$$PATH:$(BIN)"; uv $(LOCK) -o requirements.txt
	@PATH="$$PATH:$(BIN)"; for extra in test gpu dashboard export faces audit ray; do \
		uv $(LOCK) --extra $$extra -c requirements.txt -o requirements-$$extra.txt || exit; done

$(BIN)/python:
	@$(or $(PYTHON),false) -c '$(RUNS)' 2>/dev/null || { echo '$(NO_PYTHON)' >&2; exit 2; }
	$(CREATE)

$(VENV)/installed: requirements.txt python_env.yaml scripts/adopt_venv.py | $(BIN)/python
	@echo "Installing into $(VENV) with $(firstword $(UV) pip): 2 GB on disk"
	@$(call INSTALL,-r requirements.txt)
	@$(BIN)/python scripts/adopt_venv.py
	@touch $@

$(VENV)/installed-test: requirements-test.txt $(VENV)/installed
	@$(call INSTALL,-r requirements-test.txt)
	@touch $@
