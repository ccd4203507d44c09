# The project's commands. `make` alone lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: demo
demo: $(VENV)/installed ## Ingest, train and evaluate drawn faces: installs everything, 3 minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . --env-manager local $(DEMO)
	$(BIN)/python -m pipeline.predict --runs models/compact.keras,latest

# Settings that suit 400 drawn faces: few steps an epoch ask for small batches and a larger rate.
DEMO := -P width=0.25 -P dropout=0.1 -P l2=0.001 -P batch_size=16 -P lr=0.001 -P epochs=50 -P patience=0

.PHONY: test
test: $(VENV)/installed-test ## Run the test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TESTS)

.PHONY: lint
lint: $(VENV)/installed-test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: lock
lock: $(VENV)/installed ## Resolve pyproject.toml into the requirements files
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --no-annotate --custom-compile-command "make lock" \
		pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --no-annotate --custom-compile-command "make lock" \
		--extra test -c requirements.txt pyproject.toml -o requirements-test.txt

$(VENV)/installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-test: requirements-test.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	touch $@
