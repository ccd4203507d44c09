"""Each benchmark runs, here at a tiny size; what it measures then is worth nothing."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import pytest

from benchmarks import (
    ablation,
    ingest,
    mlflow_cost,
    record,
    startup,
    step,
    throughput,
    time_to_accuracy,
    training,
)
from pipeline.data import VALIDATION
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.settings import TrainSettings
from search.studies import trial
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


def test_the_true_accuracy_is_that_of_the_validated_weights(dataset: Dataset) -> None:
    images, labels = dataset.part(VALIDATION)
    settings = TrainSettings(network=TINY, epochs=3, ema=0.2, recalibrate_bn=True, patience=0)
    result = record.train(print, settings, record.Judged(dataset, images, labels))
    assert result["true_accuracy"] == pytest.approx(result["val_accuracy"], abs=1e-4)
    assert len(result["true_accuracy"]) == 3


def test_record(csv: str, store: Path, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setattr(record, "FACES", {"train": 40, "seen": 20, "true": 30})
    monkeypatch.setattr(record, "SPARE", 1.1)
    monkeypatch.setattr(record, "COPY", 1.01)  # drawn faces are alike
    monkeypatch.setattr(record, "lower_priority", lambda: None)
    fix = "width=0.05 epochs=1 batch_size=32"
    monkeypatch.setattr(record, "STUDY", replace(record.STUDY, width=0.05, epochs=1, fix=fix))
    recording = record.Recording(store / "out", csv, workers=1, settings=2, repeats=1)
    record.main(recording)
    (store / "out" / "0002.json").unlink()
    capsys.readouterr()
    record.main(recording)
    assert "2 of 3 trainings are recorded" in capsys.readouterr().out
    first, _, again = (json.loads(f.read_text()) for f in sorted((store / "out").glob("0*.json")))
    assert again["of"] == first["number"]
    assert again["point"] == first["point"]
    assert again["val_loss"] != first["val_loss"]
    with pytest.raises(InputError, match="begun with other seed"):
        record.main(replace(recording, seed=1))


def test_mlflow_cost(data: str, capsys: Printed) -> None:
    mlflow_cost.main(mlflow_cost.Record(data, epochs=1, network=TINY))
    said = capsys.readouterr().out
    assert "experiment and views" in said
    assert "record of 1 epochs" in said


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


def test_throughput(store: Path, monkeypatch: Patch, capsys: Printed) -> None:
    monkeypatch.setattr(trial, "TRAIN_TRIAL", trial.TRAIN_TRIAL)  # which it replaces
    address = f"sqlite:///{store}/optuna.db"
    throughput.main(throughput.Throughput((2,), seconds=0.1, rounds=1, storage=address))
    said = capsys.readouterr().out
    assert "│ 2       │ 2      │" in said
    [study] = optuna.get_all_study_summaries(address)
    assert study.best_trial is not None
    assert study.best_trial.intermediate_values == {n: n / (n + 1) for n in range(1, 11)}
