"""Each benchmark runs, here at a tiny size; what it measures then is worth nothing."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import ablation, ingest, record_curves, startup, step, time_to_accuracy, training
from pipeline.settings import TrainSettings
from tests.tiny import TINY

pytestmark = pytest.mark.slow
Patch = pytest.MonkeyPatch
Printed = pytest.CaptureFixture[str]


def test_ablation(data: str, store: Path, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setattr(ablation, "FILE", store / "ablation.csv")
    monkeypatch.setattr(ablation, "ROWS", {ablation.RECIPE: {}})
    monkeypatch.setattr(ablation, "TTA", {"one view": "none"})
    small = replace(ablation.BASE, width=0.05, epochs=1, max_train_faces=60, image_size=48)
    monkeypatch.setattr(ablation, "BASE", small)
    for _ in range(2):  # the second time it has nothing to do
        ablation.main(ablation.Ablation(data, seeds=2))
    assert len(pd.read_csv(store / "ablation.csv")) == 4
    assert "one view" in capsys.readouterr().out


def test_ingest(csv: str, capsys: Printed) -> None:
    ingest.main(ingest.Reading(Path(csv), n=1))
    assert "ours" in capsys.readouterr().out


def test_record_curves(data: str, store: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(record_curves, "FILE", store / "curves.csv")
    monkeypatch.setattr(record_curves, "EPOCHS", 2)
    monkeypatch.setattr(record_curves, "BASE", replace(record_curves.BASE, network=TINY, epochs=2))
    monkeypatch.setattr(record_curves, "LRS", (0.001,))
    monkeypatch.setattr(record_curves, "BATCH_SIZES", (32, 64))
    monkeypatch.setattr(record_curves, "OPTIMIZERS", ("adam",))
    monkeypatch.setattr(record_curves, "subset", lambda full: full)
    for _ in range(2):  # the second time it has nothing to do
        record_curves.main(record_curves.Recording(data))
    curves = pd.read_csv(store / "curves.csv")
    assert curves["epoch"].tolist() == [1, 2, 1, 2]
    assert np.isfinite(curves["val_loss"]).all()


def test_startup(data: str, monkeypatch: Patch, capsys: Printed) -> None:
    """Its steps are taken in this process, which has the imports."""
    monkeypatch.setattr(startup, "TrainSettings", partial(TrainSettings, network=TINY))
    startup.main(startup.Startup(data, steps=True))
    steps = json.loads(capsys.readouterr().out.splitlines()[-1])
    startup.show([{"mlflow run itself": startup.mlflow_run(data)} | steps])
    assert "self-test of the device" in capsys.readouterr().out


def test_step(data: str, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setattr(step, "_configurations", lambda: [("on", True, "float32")])
    one = {"speed": 1.0, "shares": {"optimizer": 1.0}}
    monkeypatch.setattr(step, "_in_a_process", lambda row, onednn: one)
    profile = step.Profile(data, network="compact", faces=64)
    step.main(profile)
    assert "the same at 48 pixels" in capsys.readouterr().out
    step.main(replace(profile, row="one"))
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["speed"] > 0
    assert sum(measured["shares"].values()) == pytest.approx(1)


def test_time_to_accuracy(data: str, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setattr(
        time_to_accuracy, "REPORT", replace(time_to_accuracy.REPORT, width=0.05, epochs=2)
    )
    race = time_to_accuracy.Race(data, target=0.0, network=TINY, epochs=1, report_faces=40)
    time_to_accuracy.main(race)
    assert "extrapolated from an epoch of 40 faces" in " ".join(capsys.readouterr().out.split())


def test_training(data: str, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setattr(training, "TrainSettings", partial(TrainSettings, network=TINY))
    training.main(training.Measurement(data, faces=64, n=1))
    assert "float32 against bfloat16" in capsys.readouterr().out
