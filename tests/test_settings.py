"""Tests of the settings: invalid values raise InputError, before heavy imports."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from pipeline import cli
from pipeline.errors import InputError
from pipeline.settings import (
    EvaluateSettings,
    Field,
    Hyperparameters,
    IngestSettings,
    Range,
    Setting,
    Settings,
    TrainSettings,
    markdown,
)
from search.settings import ALL
from tests.conftest import Command


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("batch_size", -8), ("lr", 0.0), ("lr", -0.1),
        ("lr", float("nan")), ("lr", float("inf")), ("momentum", 1.0), ("dropout", 1.0),
        ("label_smoothing", -0.1), ("l2", float("nan")), ("weight_decay", -1.0), ("kernel", 4),
        ("width", 0.0), ("patience", -1), ("threads", -1), ("seed", -1), ("tta", "ten_crop"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name: str, value: float | str) -> None:
    with pytest.raises(InputError, match=f"^{name}={re.escape(str(value))}: expected "):
        TrainSettings(**{name: value})  # type: ignore[arg-type]


def test_the_defaults_are_the_reports_baseline() -> None:
    baseline = TrainSettings()
    assert (baseline.epochs, baseline.batch_size, baseline.lr, baseline.optimizer) == (
        30, 64, 0.0001, "adam",
    )  # fmt: skip
    assert (IngestSettings().split, EvaluateSettings().split) == ("report", "test")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"lr": "abc"}, "lr: could not convert string to float: 'abc'"),
        ({"lr": "nan"}, "lr=nan: expected a finite number above 0"),
        ({"epochs": "0"}, "epochs=0: expected 1 or more"),
        ({"epochs": "3.5"}, "epochs: invalid literal"),
        ({"optimizer": "adamm"}, "optimizer=adamm: expected one of adam, sgd"),
        ({"epochs": "--flip"}, "epochs: its value is missing; --help lists the parameters"),
        ({"typo": "3"}, "unknown parameter --typo 3"),
    ],
)
def test_a_mistyped_command_gets_one_line_and_status_2(
    command: Command, setting: dict[str, str], said: str
) -> None:
    done = command("pipeline.train", **setting, cold=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_help_shows_every_setting_with_its_default(command: Command) -> None:
    done = command("pipeline.train", "--help", cold=True)
    assert done.returncode == 0
    words = " ".join(done.stdout.replace("│", " ").split())
    for name, default in vars(TrainSettings()).items():
        [entry] = [part for part in words.split(" --") if part.startswith(f"{name} ")]
        assert f"(default: {default})" in entry


def test_help_is_grouped_by_subject(command: Command) -> None:
    said = command("pipeline.train", "--help", cold=True).stdout
    assert said.startswith("usage: python -m pipeline.train [--name value ...]\n")
    headings = re.findall(r"^(\S.*):$", said, re.MULTILINE)
    groups = dict.fromkeys(field.group for field in TrainSettings.fields().values())
    assert headings == ["options", *(group.__doc__ for group in groups if group != TrainSettings)]
    assert headings[1:5] == ["network", "optimizer", "schedule", "loss"]
    assert said.index("\nloss:\n") < said.index("--label_smoothing") < said.index("\naugmentation")


@pytest.mark.parametrize(
    ("mistyped", "meant"), [("optimiser", "optimizer"), ("batch-sise", "batch_size")]
)
def test_a_mistyped_parameter_is_guessed(mistyped: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"unknown parameter --.* did you mean --{meant}[?]"):
        cli.parse(TrainSettings, [f"--{mistyped}", "8"])


def outside(field: Field) -> Iterator[Any]:
    """Values of a field's type that lie just outside each of its bounds."""
    line = field.setting
    step: float = 1 if field.plain_type is int else 1e-6
    if field.choices or line.known:
        yield "nonsense"
    if line.low is not None:
        yield field.plain_type(line.low - step)
    if line.high is not None:
        yield field.plain_type(line.high + step)
    yield from (field.plain_type(end) for end in (line.above, line.below) if end is not None)
    if field.plain_type is float:
        yield from (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [(c, field, value) for c in ALL for field in c.fields().values() for value in outside(field)],
    ids=lambda given: getattr(given, "name", getattr(given, "__name__", str(given))),
)
def test_each_bound_of_each_setting_is_refused_by_its_name_and_what_is_expected(
    settings: type[Settings], field: Field, value: Any
) -> None:
    said = f"{field.name}={value}: expected {field.bounds}"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        settings(**{field.name: value})
    assert field.bounds


@dataclass(frozen=True)
class _WithOneMore(Hyperparameters):
    """A training with one setting more."""

    blur: Annotated[
        float, Setting("Blur of the faces, in pixels.", low=0, high=3, search=Range(0, 2))
    ] = 0.5


def test_a_new_setting_is_one_line() -> None:
    """Option, default, check, help, group and row of the documentation follow from it."""
    assert cli.parse(_WithOneMore, ["--blur", "1.5", "--lr", "0.1"]).blur == 1.5
    assert cli.parse(_WithOneMore, []).blur == 0.5
    with pytest.raises(InputError, match=re.escape("blur=4.0: expected in [0, 3]")):
        cli.parse(_WithOneMore, ["--blur", "4"])
    row = "| `blur` | `0.5` | in [0, 3] | 0 to 2 | Blur of the faces, in pixels. |"
    assert row in markdown(_WithOneMore).splitlines()


ANSWERED_FIRST = [
    ("pipeline.train", "--init_from missing.keras", "missing.keras: no such file"),
    ("pipeline.train", "--data nowhere/at/all", "nowhere/at/all: no such dataset folder"),
    ("pipeline.train", "--resume 0123", "no run 0123 on record"),
    ("pipeline.main", "--source missing.csv", "missing.csv"),
    ("pipeline.evaluate", "--run latest", "no finished train run on record"),
    ("pipeline.evaluate", "--run network.h5", "network.h5: expected a .keras file"),
    ("pipeline.predict", "--runs missing.keras", "missing.keras: no such file"),
]


@pytest.mark.slow
def test_what_is_not_there_is_said_before_keras_is_imported(command: Command, store: Path) -> None:
    """All in one process, which is cold: what was imported at all shows in the end."""
    (store / "all.py").write_text(f"""
import runpy, sys
for module, options, _ in {ANSWERED_FIRST}:
    sys.argv = [module, *options.split()]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print(module, end.code)
print({{"keras", "tensorflow", "mlflow"}} & set(sys.modules))
""")
    done = command("all", cold=True)
    statuses = [f"{module} 2" for module, *_ in ANSWERED_FIRST]
    assert done.stdout.splitlines() == [*statuses, "{'mlflow'}"], done.stderr
    lines = done.stderr.splitlines()
    assert [line.startswith("error: ") for line in lines] == [True] * len(ANSWERED_FIRST)
    for line, (*_, said) in zip(lines, ANSWERED_FIRST, strict=True):
        assert said in line
