"""Tests of the runs that ingest, train and evaluate record, in a real MLflow store."""

import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import zipfile
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Run
from mlflow.store.tracking.dbmodels.models import SqlDataset
from PIL import Image
from sqlalchemy import event
from sqlalchemy.orm import Session

from pipeline.data import CLASSES, TEST, TRAIN, dataset
from pipeline.data.dataset import Dataset, Faces, save, unseen
from pipeline.data.splitting import assemble
from pipeline.errors import InputError, TrainingError
from pipeline.networks import files, learnt
from pipeline.networks.build import build
from pipeline.percent import percent
from pipeline.runs import addresses, environment, params, queries, tracking
from pipeline.settings import EvaluateSettings, IngestSettings, TrainSettings, recipe
from pipeline.steps.evaluate import evaluate
from pipeline.steps.ingest import ingest
from pipeline.steps.resume import resumed_settings
from pipeline.steps.train import train
from pipeline.training import checkpoint
from pipeline.training.checkpoint import TrainState
from pipeline.training.self_test import self_test
from search.jobs.tasks import train_child
from search.settings import GridSettings, SearchSettings
from tests.tiny import TINY

QUICK = TrainSettings(network=TINY, epochs=2, batch_size=32, lr=0.002)
PER_EPOCH = {
    "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/macro_f1",
    "val/balanced_accuracy", "learning_rate", "time/images_per_second",
}  # fmt: skip


def quick(data: str, **changes: object) -> TrainSettings:
    return TrainSettings(**{**vars(QUICK), "data": data, **changes})


def artifacts(run_id: str, folder: str | None = None) -> set[str]:
    return {file.path.split("/")[-1] for file in MlflowClient().list_artifacts(run_id, folder)}


def get(run_id: str) -> Run:
    return MlflowClient().get_run(run_id)


def runs(step: str = "%") -> list[Run]:
    return list(MlflowClient().search_runs(["0"], f"tags.step LIKE '{step}'"))


def test_ingest_keeps_a_dataset_with_its_pictures_and_tables(csv: str) -> None:
    settings = IngestSettings(source=csv)
    run_id = ingest(settings)
    run = get(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["step"] == "ingest"
    assert run.data.params == {key: str(value) for key, value in vars(settings).items()}
    assert run.data.params["validation"] == "0.1"
    assert artifacts(run_id) - {"changes.diff"} == {
        "dataset", "classes.png", "faces.png", "splits.csv", "environment.json",
    }  # fmt: skip
    files = {"images.npy", "labels.npy", "split.npy", "dataset.json"}
    assert artifacts(run_id, "dataset") == files
    folder = addresses.dataset_folder(run_id)
    kept = dataset.load(folder)
    assert kept.images.dtype == kept.labels.dtype == kept.split.dtype == np.uint8
    used = run.inputs.dataset_inputs[0].dataset
    assert used.digest == kept.digest
    assert Path(json.loads(used.source)["uri"]).samefile(folder)
    for name in ("classes.png", "faces.png"):
        with Image.open(folder.parent / name) as picture:
            assert picture.width > 500


@pytest.mark.slow
def test_train_puts_settings_curves_report_and_model_on_record(data: str) -> None:
    run_id = train(quick(data))
    run = get(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {k: str(v) for k, v in vars(quick(data)).items()}
    for name in PER_EPOCH:
        assert [m.step for m in MlflowClient().get_metric_history(run_id, name)] == [1, 2]
    assert {
        "val/best_accuracy",
        "best_epoch",
        "time/recording_seconds",
        "time/training_seconds",
        "val/calibration_error",
        "val/log_loss",
    } == set(run.data.metrics) - PER_EPOCH
    changes = {"changes.diff"} if environment.changes() else set()
    assert artifacts(run_id) == {
        "curves.png", "network.txt", "classification_report.txt", "classification_report.json",
        "confusion_matrix.png", "confusion_matrix.csv", "environment.json",
        "reliability.png", "classes.png",
    } | changes  # fmt: skip
    tags = run.data.tags
    own = {name for name in tags if not name.startswith("mlflow.")}
    assert own == {"step", "process", "dataset", "dataset_digest", "precision"}
    assert tags["precision"] in ("float32", "bfloat16")
    assert "mlflow.source.git.commit" in tags
    assert run.inputs.dataset_inputs[0].dataset.digest == tags["dataset_digest"]
    served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    faces = np.full((10, 48, 48, 1), 99, np.uint8)
    assert served.predict(faces).sum(axis=1) == pytest.approx(np.ones(10), abs=1e-5)
    assert not queries.checkpoint_of(run_id).exists()


@pytest.mark.slow
def test_main_records_ingest_train_and_evaluate_as_children(trained: str, main_run: Path) -> None:
    [main] = runs("main")
    steps = ("ingest", "train", "evaluate")
    parents = {s: [run.data.tags["mlflow.parentRunId"] for run in runs(s)] for s in steps}
    assert parents == {step: [main.info.run_id] for step in steps}
    accuracy = runs("evaluate")[0].data.metrics["test/accuracy"]
    assert main.data.metrics["test/accuracy"] == accuracy
    said = (main_run / "stdout.txt").read_text()
    assert f"test accuracy {percent(accuracy)}" in said
    folder = said.split("report and pictures: ")[1].splitlines()[0]
    assert (Path(folder) / "classification_report.txt").exists()


@pytest.mark.slow
def test_train_never_sees_a_test_face(data: str) -> None:
    """Other test faces and labels change the digest, but not the training."""
    first = get(train(quick(data)))
    made = dataset.load(Path(data))
    test = made.split == TEST
    images, labels = made.images.copy(), made.labels.copy()
    images[test], labels[test] = 255 - images[test], (labels[test] + 1) % 7
    counts = dataset.count_classes(labels, made.split, dict(enumerate(dataset.SPLITS)))
    digest = dataset.digest(images, labels, made.split)
    about = {**made.about, "digest": digest, "counts": counts}
    save(Dataset(images, labels, made.split, about), Path("other"))
    second = get(train(quick("other")))
    for name in PER_EPOCH - {"time/images_per_second"} | {"val/best_accuracy"}:
        assert first.data.metrics[name] == second.data.metrics[name]


@pytest.mark.slow
def test_evaluate_measures_the_newest_training_on_its_own_test_split(trained: str) -> None:
    [run] = runs("evaluate")
    run_id = run.info.run_id
    assert run.data.tags["step"] == "evaluate"
    assert run.data.tags["trained_by"] == trained
    expected = {f"test/{x}" for x in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")}
    expected |= {"test/weighted_f1", "test/accuracy_unseen"}
    expected |= {"test/log_loss", "test/calibration_error"}
    expected |= {f"test_by_class/{x}_{c}" for x in ("precision", "recall", "f1") for c in CLASSES}
    assert set(run.data.metrics) == expected
    assert artifacts(run_id) - {"changes.diff"} == {
        "classification_report.txt", "classification_report.json", "confusion_matrix.png",
        "confusion_matrix.csv", "mistakes.png", "predictions.csv", "environment.json",
        "reliability.png", "classes.png",
    }  # fmt: skip
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/classification_report.json")
    assert list(report)[:7] == list(CLASSES)
    recall = run.data.metrics["test_by_class/recall_disgust"]
    assert recall == pytest.approx(report["disgust"]["recall"], rel=1e-5)


@pytest.mark.slow
def test_evaluate_counts_how_often_test_faces_were_opened_in_whatever_dataset(
    trained: str, csv: str
) -> None:
    """Another share for validation changes the dataset, and not its test faces."""
    fifth = ingest(IngestSettings(source=csv, validation=0.2))
    [first] = runs("evaluate")
    runs_ = [first, *(get(evaluate(EvaluateSettings(data=data))) for data in (None, fifth))]
    assert [run.data.tags["earlier_evaluations"] for run in runs_] == ["0", "1", "2"]
    assert len({run.data.tags["dataset_digest"] for run in runs_}) == 2


def test_a_server_that_does_not_answer_is_told_from_a_run_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, csv: str
) -> None:
    with pytest.raises(InputError, match="no run abc on record"):
        queries.get("abc", "train")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"http://127.0.0.1:1 does not answer"):
        queries.get("abc", "train")
    with pytest.raises(InputError, match=r"http://127.0.0.1:1 does not answer"):
        ingest(IngestSettings(source=csv))


def test_a_run_that_others_work_on_is_left_to_them(store: Path) -> None:
    with tracking.record("study", SearchSettings()) as run:
        pass
    MlflowClient().update_run(run.id, "RUNNING")
    other = subprocess.Popen(["sleep", "60"])
    name = f"{socket.gethostname()}:{other.pid}:{psutil.Process(other.pid).create_time():.0f}"
    run.tag(process=name)
    try:
        with (
            pytest.raises(TrainingError),
            tracking.record("study", SearchSettings(), run_id=run.id),
        ):
            raise TrainingError("this one's trouble")
        assert get(run.id).info.status == "RUNNING"
        assert get(run.id).data.tags["process"] == name
        tracking.end_dead_runs()
        assert get(run.id).info.status == "RUNNING"
    finally:
        other.kill()
        other.wait()
    tracking.end_dead_runs()
    assert get(run.id).info.status == "FAILED"


def test_two_processes_record_the_same_faces_at_the_same_moment(dataset: Dataset) -> None:
    """The other process writes between this one's query for the dataset and its insertion."""
    faces = replace(dataset, about={**dataset.about, "source": "faces.csv"})
    with tracking.record("ingest", IngestSettings()) as other:
        pass
    MlflowClient().update_run(other.id, "RUNNING")
    written: list[str] = []

    def write_first(session: Session, *_: object) -> None:
        new = [row for row in session.new if isinstance(row, SqlDataset)]
        if new and not written:
            row = new[0]
            written.append(row.digest)
            same = mlflow.entities.Dataset(
                row.name, row.digest, row.dataset_source_type, row.dataset_source
            )
            MlflowClient().log_inputs(other.id, [DatasetInput(same)])

    event.listen(Session, "before_flush", write_first)
    try:
        with tracking.record("ingest", IngestSettings()) as run:
            run.use_dataset(faces, run.id, context="ingest")
    finally:
        event.remove(Session, "before_flush", write_first)
    assert written == [faces.digest]
    for run_id in (run.id, other.id):
        assert [used.dataset.digest for used in get(run_id).inputs.dataset_inputs] == written


@pytest.mark.slow
def test_evaluate_takes_a_registered_model_and_a_bare_file_on_faces_never_seen(
    trained: str, csv: str
) -> None:
    version = mlflow.register_model(f"runs:/{trained}/model", "emotion")
    MlflowClient().set_registered_model_alias("emotion", "champion", version.version)
    registered = get(evaluate(EvaluateSettings(run="models:/emotion@champion")))
    assert registered.data.tags["trained_by"] == trained

    file, _ = addresses.model_file(f"runs:/{trained}/model")
    Path("bare.keras").write_bytes(file.read_bytes())
    other = ingest(IngestSettings(source=csv, seed=7))
    bare = get(evaluate(EvaluateSettings(run="bare.keras", data=other)))
    assert bare.data.tags["dataset"] == other
    assert bare.data.tags["trained_by"] == "unknown"
    assert 0 <= bare.data.metrics["test/accuracy"] <= 1
    with pytest.raises(InputError, match="a bare file has no dataset of its own; give data="):
        evaluate(EvaluateSettings(run="bare.keras"))


def test_a_loss_that_turns_nan_ends_the_run_failed_with_the_reason(data: str) -> None:
    with pytest.raises(TrainingError):
        train(quick(data, optimizer="sgd", lr=1e30))
    (run,) = runs()
    assert run.info.status == "FAILED"
    assert "the training loss is" in run.data.tags["error"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("0123456789abcdef0123456789abcdef", "no run 0123456789abcdef0123456789abcdef on record"),
        ("latest", "no finished train run on record"),
        ("missing.keras", "missing.keras: no such file"),
        ("models:/nobody@champion", "models:/nobody@champion: no such model"),
    ],
)
def test_a_model_that_does_not_exist_is_refused(run: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        evaluate(EvaluateSettings(run=run))
    assert runs() == []


def test_a_run_that_has_not_finished_is_refused(data: str) -> None:
    with mlflow.start_run() as active:
        mlflow.set_tag("step", "train")
    MlflowClient().set_terminated(active.info.run_id, "KILLED")
    with pytest.raises(InputError, match="has not finished .it is KILLED."):
        evaluate(EvaluateSettings(run=active.info.run_id))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("no/such/folder", "no such dataset folder"),
        ("0123456789abcdef0123456789abcdef", "no run"),
        (".", "is no dataset"),
    ],
)
def test_a_dataset_that_does_not_exist_is_refused(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(quick(address))
    assert [run.info.status for run in runs()] in ([], ["FAILED"])


def test_a_source_that_cannot_be_used_leaves_nothing_on_record() -> None:
    Path("broken.csv").write_text("emotion,pixels\n0,1 2 3\n")
    with pytest.raises(InputError, match="broken.csv row 1: 3 pixels"):
        ingest(IngestSettings(source="broken.csv"))
    assert queries.latest("ingest") is None
    assert not list(Path("mlruns").glob("*/*"))


def test_a_run_that_is_older_than_a_setting_had_its_default() -> None:
    settings = TrainSettings(patience=0)
    with mlflow.start_run() as run:
        mlflow.set_tags({"step": "train", "dataset_digest": "abc"})
        mlflow.log_params({k: v for k, v in asdict(settings).items() if k != "keep_epoch"})
    found = queries.finished_run("train", settings, "abc")
    assert found is not None
    assert found.info.run_id == run.info.run_id
    assert queries.finished_run("train", replace(settings, keep_epoch="last"), "abc") is None


def test_a_run_with_the_settings_former_names_is_found_and_resumed() -> None:
    today = replace(recipe(TrainSettings, "compact"), cutout=12, max_train_faces=90)
    former = {
        "averaging": 0.06, "views": "turned", "recalibrate": True, "side": 32, "grow_at": 0.5,
        "erase": 12, "keep": "last", "start": "none", "faces": 90, "resume": "none",
    }  # fmt: skip
    assert {*params.FORMER_NAMES} < {*former}
    today_only = {*params.FORMER_NAMES.values(), "resume"}
    kept = {name: value for name, value in asdict(today).items() if name not in today_only}
    with mlflow.start_run() as active:
        mlflow.set_tags({"step": "train", "dataset_digest": "abc", "dataset": "faces"})
        mlflow.log_params(kept | former)
    run_id = active.info.run_id
    found = queries.finished_run("train", today, "abc")
    assert found is not None
    assert found.info.run_id == run_id
    assert queries.finished_run("train", replace(today, tta="flip"), "abc") is None

    MlflowClient().set_terminated(run_id, "KILLED")
    queries.CHECKPOINTS.mkdir()
    queries.checkpoint_of(run_id).touch()
    stopped = queries.resumable_run(today, "abc")
    assert stopped is not None
    assert stopped.info.run_id == run_id
    wanted = replace(today, resume=run_id, data="faces")
    assert resumed_settings(TrainSettings(resume=run_id)) == wanted
    with pytest.raises(InputError, match="cutout=8: run .* has cutout=12"):
        resumed_settings(TrainSettings(resume=run_id, cutout=8))


def test_figures_under_their_former_names_are_read(store: Path) -> None:
    former = {
        "test_accuracy": 0.6, "test_accuracy_low": 0.5, "test_accuracy_high": 0.7,
        "test_recall_happy": 0.8, "validation_macro_f1": 0.4, "best_val_loss": 1.2, "val_loss": 1.3,
        "best_epoch": 7, "recording_seconds": 2.5, "images_per_second": 300, "learning_rate": 0.1,
    }  # fmt: skip
    with mlflow.start_run() as active:
        mlflow.log_metrics(former)
    assert queries.metrics_of(get(active.info.run_id)) == {
        "test/accuracy": 0.6, "test/accuracy_low": 0.5, "test/accuracy_high": 0.7,
        "test_by_class/recall_happy": 0.8, "validation/macro_f1": 0.4, "val/best_loss": 1.2,
        "val/loss": 1.3, "best_epoch": 7, "time/recording_seconds": 2.5,
        "time/images_per_second": 300, "learning_rate": 0.1,
    }  # fmt: skip
    assert "test accuracy 60.0 % (95 % interval 50.0 % to 70.0 %)" in queries.summary_text(
        active.info.run_id
    )


def test_a_checkpoint_with_the_former_names_of_metrics_is_resumed(store: Path) -> None:
    history = [{"val_accuracy": 0.2, "train_loss": 2.0}, {"val_accuracy": 0.3, "train_loss": 1.9}]
    checkpoint.save(Path("old.npz"), [], TrainState(history, best_epoch=2))
    state = TrainState()
    checkpoint.load(Path("old.npz"), [], state)
    assert state.history[1] == {"val/accuracy": 0.3, "train/loss": 1.9}


def test_metrics_are_on_record_with_six_digits() -> None:
    with tracking.record("ingest", IngestSettings()) as run:
        run.log_metrics({"learning_rate": 0.0010000000474974513, "val/loss": 123456.789})
    assert get(run.id).data.metrics == {"learning_rate": 0.001, "val/loss": 123457.0}


def stop_after_an_epoch(settings: TrainSettings) -> str:
    """Interrupt a training once it has a checkpoint; returns the run's id."""
    checkpoints, over = queries.CHECKPOINTS.resolve(), threading.Event()

    def interrupt() -> None:
        while not over.wait(0.01):
            if list(checkpoints.glob("*.npz")):
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    finally:
        over.set()
    return runs()[0].info.run_id


@pytest.mark.slow
def test_a_resumed_training_learns_the_same_faces_wherever_they_lie(
    data: str, dataset: Dataset, faces: Faces, store: Path
) -> None:
    stopped = stop_after_an_epoch(quick(data, epochs=12, patience=0))
    save(assemble(faces, source="drawn", policy="report", seed=1), store / "split otherwise")
    with pytest.raises(InputError, match=f"resume={stopped}: the dataset has changed"):
        train(TrainSettings(resume=stopped, data=str(store / "split otherwise")))

    # As a row of the grid, or a study's winner, is resumed.
    elsewhere = Path(data).rename(store / "elsewhere")
    same = quick(str(elsewhere), epochs=12, patience=0)
    with tracking.record("grid", GridSettings()) as parent:
        resumed = train_child(lambda message: None, same, parent.id, dataset.digest)
    assert get(resumed).data.params["resume"] == stopped
    assert len(MlflowClient().get_metric_history(resumed, "val/accuracy")) == 12
    again_elsewhere = elsewhere.rename(store / "again elsewhere")
    tested = get(evaluate(EvaluateSettings(resumed, data=str(again_elsewhere))))
    assert "test/accuracy_unseen" in tested.data.metrics


@pytest.mark.slow
def test_a_training_begins_with_a_trained_network_and_remembers_its_faces(
    data: str, dataset: Dataset, faces: Faces, store: Path
) -> None:
    first = train(quick(data, tta="flip"))
    other = assemble(faces, source="drawn", policy="report", seed=1)
    save(other, store / "split otherwise")
    at_rest = quick(str(store / "split otherwise"), tta="flip", lr=1e-9, epochs=1)
    second = train(replace(at_rest, init_from=first))
    before, after = (files.load(addresses.model_file(run)[0]) for run in (first, second))
    for old, new in zip(before.trainable_weights, after.trainable_weights, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5)
    assert get(second).data.tags["start_trained_by"] == first

    # Training faces of the initial weights are not unseen, even if the last training lacks them.
    evaluated = evaluate(EvaluateSettings(second))
    predictions = mlflow.artifacts.load_text(f"runs:/{evaluated}/predictions.csv")
    training_images = np.concatenate([made.part(TRAIN)[0] for made in (dataset, other)])
    is_unseen = unseen(other.part(TEST)[0], training_images)
    assert pd.read_csv(StringIO(predictions))["unseen"].tolist() == is_unseen.tolist()
    assert is_unseen.sum() < unseen(other.part(TEST)[0], other.part(TRAIN)[0]).sum()

    # The network's file knows them all, also without that dataset.
    Path(data).rename(store / "gone")
    evaluated = evaluate(EvaluateSettings(second))
    assert get(evaluated).data.tags["learnt_all_known"] == "True"

    # For a file of an earlier version the runs are asked, and one of the datasets is gone.
    model = MlflowClient().get_logged_model(str(queries.logged_model(second)))
    [file] = Path(model.artifact_location).rglob("*.keras")
    with zipfile.ZipFile(file) as archive:
        members = {n: archive.read(n) for n in archive.namelist() if n != learnt.FACES}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    evaluated = evaluate(EvaluateSettings(second))
    assert get(evaluated).data.tags["learnt_all_known"] == "False"

    with pytest.raises(InputError, match=f"init_from={first}: another network than report of"):
        train(replace(at_rest, network="report", init_from=first))


@pytest.mark.slow
def test_a_training_that_began_with_a_file_goes_on_without_it(
    data: str, capsys: pytest.CaptureFixture[str], store: Path
) -> None:
    file = store / "o'brien's network.keras"
    start = quick(data, epochs=12, patience=0, init_from=str(file))
    build(start, precision="float32").save(file)
    stopped = stop_after_an_epoch(start)
    file.unlink()
    assert params.is_value(shlex.quote(str(file)), str(file)), "as `mlflow run` puts it on record"
    resumed = train(TrainSettings(resume=stopped, init_from=str(file)))
    assert get(resumed).data.params["init_from"] == str(file)
    evaluate(EvaluateSettings(resumed))
    assert "not all training faces of this network are known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("recorded", "value"), [("2e-4", 0.0002), ("08", 8), ("true", True), ("'a b'", "a b")]
)
def test_a_param_may_be_typed_in_another_form(recorded: str, value: object) -> None:
    assert params.is_value(recorded, value)
    assert not params.is_value("7", value)


@pytest.mark.slow
def test_mlflow_run_resumes_by_the_id_and_the_settings_that_were_changed(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = stop_after_an_epoch(quick(data, epochs=12, patience=0, max_train_faces=50))
    for typed in ({}, {"max_train_faces": "50"}):
        made = MlflowClient().create_run("0").info.run_id
        recorded = {
            "network": TINY,
            "data": "latest",
            "resume": stopped,
            "max_train_faces": "0",
        } | typed
        for name, value in recorded.items():
            MlflowClient().log_param(made, name, value)
        monkeypatch.setenv("MLFLOW_RUN_ID", made)
        if typed:
            assert train(TrainSettings(resume=stopped)) == made
        else:
            with pytest.raises(
                InputError, match="give -P max_train_faces=50 too: .* recorded max_train_faces=0"
            ):
                train(TrainSettings(resume=stopped))
    tags = get(made).data.tags
    assert (tags["dataset"], get(made).data.params["data"]) == (data, "latest")


def test_a_device_that_computes_wrong_numbers_stops_a_training_before_it_begins(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        return 2 * conv(*arguments, **options)

    conv = keras.ops.conv
    monkeypatch.setattr(keras.ops, "conv", broken)
    self_test.cache_clear()
    with pytest.raises(TrainingError, match="this device computes wrong numbers"):
        train(quick(data))
    [run] = runs()
    assert run.info.status == "FAILED"
    assert "train/loss" not in run.data.metrics


def test_resume_takes_a_networks_recipe_for_defaults_that_nobody_typed(
    data: str, dataset: Dataset
) -> None:
    typed = replace(recipe(TrainSettings, "compact"), data=data, width=0.1, epochs=1)
    with tracking.record("train", replace(typed, lr=0.002)) as run:
        run.tag(dataset=data, dataset_digest=dataset.digest)
    run_id = run.id
    MlflowClient().set_terminated(run_id, "KILLED")
    queries.CHECKPOINTS.mkdir()
    queries.checkpoint_of(run_id).write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint that can be read"):  # not: lr=0.004
        train(replace(typed, resume=run_id))


def test_resume_refuses_other_settings_and_finished_runs(data: str, dataset: Dataset) -> None:
    with tracking.record("train", quick(data, epochs=1)) as run:
        run.tag(dataset=data, dataset_digest=dataset.digest)
    queries.CHECKPOINTS.mkdir()
    finished = run.id
    with pytest.raises(InputError, match="this run has finished"):
        train(quick(data, resume=finished))
    MlflowClient().set_terminated(finished, "KILLED")
    with pytest.raises(InputError, match="no checkpoint in"):
        train(quick(data, resume=finished))
    queries.checkpoint_of(finished).write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint that can be read"):
        train(quick(data, epochs=1, resume=finished))
    queries.checkpoint_of(finished).write_bytes(b"")
    with pytest.raises(InputError, match="lr=0.5: run .* keeps its settings"):
        train(quick(data, epochs=1, resume=finished, lr=0.5))
