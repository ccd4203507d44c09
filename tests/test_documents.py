"""The commands that the documents show do what they say, in the order in which they stand there."""

import re
import shlex
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.commands import ROOT, free_port
from tests.conftest import Command, Start
from tests.tiny import TINY

pytestmark = pytest.mark.slow
EXAMPLE = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)```(.*?)\n## ", re.DOTALL)
QUICK = {"network": TINY, "epochs": "1"}
"""Settings that make a documented command short."""


def shell_commands(text: str) -> list[list[str]]:
    """The words of each command in the text's blocks of shell commands."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def demo() -> list[list[str]]:
    """The commands of `make demo` that follow the installation."""
    # What is up to date is not made: -o says so of the installation.
    make = ["make", "--dry-run", "-o", ".venv/installed", "demo"]
    said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = said.replace("\\\n", " ").splitlines()
    return [
        shlex.split(line) for line in lines if re.search(r"mlflow run|python -m pipeline", line)
    ]


def module_and_arguments(words: list[str]) -> list[str]:
    """A command as `python -m` takes it: the module that it runs, then its arguments."""
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    program, *rest = words
    if Path(program).name == "mlflow":
        is_local = rest[0] != "run" or "--env-manager" in rest
        return ["mlflow", *rest, *([] if is_local else ["--env-manager", "local"])]
    assert (Path(program).name, rest[0]) == ("python", "-m"), words
    return rest[1:]


def examples_by_module() -> dict[str, list[tuple[str, str, list[str]]]]:
    """File, code and the command's arguments of docs/extending.md's examples, by the module run."""
    found: dict[str, list[tuple[str, str, list[str]]]] = {}
    for file, code, rest in EXAMPLE.findall((ROOT / "docs" / "extending.md").read_text()):
        [words] = shell_commands(rest)
        module, *arguments = module_and_arguments(words)
        found.setdefault(module, []).append((file, code, arguments))
    return found


EXAMPLES = examples_by_module()


def shortened(words: list[str], settings: dict[str, str]) -> list[str]:
    """A `mlflow run` with these settings in the place of its own, or beside them."""
    values = dict(word.split("=", 1) for word in words if "=" in word) | settings
    others = [word for word in words if "=" not in word and word != "-P"]
    return [
        *others,
        *(part for name, value in values.items() for part in ("-P", f"{name}={value}")),
    ]


@pytest.fixture
def clone(store: Path, no_databases: None) -> None:
    """Make the working folder a fresh clone."""
    for name in ("MLproject", "python_env.yaml", "models", "pipeline", "search"):
        (store / name).symlink_to(ROOT / name)


def runs(step: str) -> list[Run]:
    return list(MlflowClient().search_runs(["0"], f"tags.step = '{step}'"))


@pytest.mark.usefixtures("clone")
def test_the_commands_of_the_readme_work_in_their_order_on_a_fresh_clone(start: Start) -> None:
    done = []
    for words in shell_commands((ROOT / "README.md").read_text()):
        match words:
            case ["make", "demo"]:
                train, predict = demo()
                child = start(*module_and_arguments(shortened(train, QUICK)))
                assert child.end() == 0, child.stderr
                assert "test accuracy" in child.stdout
                child = start(*module_and_arguments(predict))
                assert child.end() == 0, child.stderr
                assert "drawn as" in child.stdout
            case ["source", *_]:
                continue
            case ["mlflow", "run", *_]:
                child = start(*module_and_arguments(shortened(words, QUICK)))
                assert child.end() == 0, child.stderr
            case ["mlflow", "ui"]:
                look_at_the_runs(start)
            case ["python", "-m", "search.optuna_study"]:
                few = {"trials": 1, "confirm": 1, "grid": "none"} | QUICK
                child = start("search.optuna_study", **few)
                assert child.end() == 0, child.stderr
                assert "mlflow run . -e train -P " in child.stdout
            case _:
                raise AssertionError(f"how is this one tried? {shlex.join(words)}")
        done.append(words[:2])
    assert done == [["make", "demo"], ["mlflow", "run"], ["mlflow", "ui"], ["python", "-m"]]

    [main], [study] = runs("main"), runs("study")
    newest, _, first = runs("train")
    assert {run.info.status for run in (main, study, newest, first)} == {"FINISHED"}
    assert first.data.tags["mlflow.parentRunId"] == main.info.run_id
    assert newest.data.tags["mlflow.parentRunId"] == study.info.run_id
    [typed] = [run for run in runs("train") if "mlflow.parentRunId" not in run.data.tags]
    assert typed.data.params["lr"] == "0.0002"
    assert "mlflow.project.entryPoint" in typed.data.tags


def look_at_the_runs(start: Start) -> None:
    port = str(free_port())
    child = start("mlflow", "ui", "--port", port, "--workers", "1")
    child.wait_for("Uvicorn running on")
    address = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/get?experiment_id=0"
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert str(Path.cwd() / "mlruns") in answer.read().decode()
    child.send(signal.SIGINT)
    child.end()


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_of_extending_work(
    module: str, store: Path, data: str, command: Command
) -> None:
    """Those for the same command in one run, with the settings of all; the first example's win."""
    typed: dict[str, str] = {}
    for file, code, arguments in EXAMPLES[module]:
        (store / file).write_text(code)
        typed = dict(zip(arguments[::2], arguments[1::2], strict=True)) | typed
    short: dict[str, object] = {}
    if module == "pipeline.train":
        short = {"data": data, "epochs": 1}
    elif module == "search.optuna_study":
        short = {"data": data, "network": TINY}
    done = command(module, *(word for pair in typed.items() for word in pair), **short)
    assert done.returncode == 0, done.stderr
    [run] = runs({"pipeline.ingest": "ingest", "search.optuna_study": "study"}.get(module, "train"))
    assert run.info.status == "FINISHED"
    used = " ".join(run.data.params.values())
    assert all(f"{Path(file).stem}:" in used for file, *_ in EXAMPLES[module])


def test_every_example_of_extending_is_tried() -> None:
    document = (ROOT / "docs" / "extending.md").read_text()
    written = re.findall(r"^`(\w+\.py)`:$", document, re.MULTILINE)
    tried = [file for examples in EXAMPLES.values() for file, *_ in examples]
    assert sorted(tried) == sorted(written)
    assert len(written) >= 7
