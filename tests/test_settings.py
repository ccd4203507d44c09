"""Settings that can't be used are refused in one line, before anything heavy is loaded."""

import re

import pytest

from pipeline.errors import InputError
from pipeline.settings import EvaluateSettings, IngestSettings, TrainSettings
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
    done = command("pipeline.train", **setting)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_help_shows_every_setting_with_its_default(command: Command) -> None:
    done = command("pipeline.train", help="")
    assert done.returncode == 0
    words = " ".join(done.stdout.replace("│", " ").split())
    for name, default in vars(TrainSettings()).items():
        [entry] = [part for part in words.split(" --") if part.startswith(f"{name} ")]
        assert f"(default: {default})" in entry
