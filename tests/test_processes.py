"""Tests of the runs' status after signals, kills and a full disk, with real processes."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.data.dataset import Dataset, save
from pipeline.runs import addresses, queries, tracking
from search.settings import SearchSettings
from tests.conftest import LIMIT, ROOT, Command

MODULE = "pipeline.train"
SETTINGS = {"width": 0.05, "batch_size": 32, "lr": 0.002, "epochs": 8, "patience": 0, "threads": 1}


@pytest.fixture
def data(dataset: Dataset, store: Path) -> str:
    save(dataset, store / "faces")
    return str(store / "faces")


class Child:
    """A running command, for `LIMIT` seconds at most; its output is read line by line."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            arguments, cwd=folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.output: list[str] = []
        self.limit = threading.Timer(LIMIT, self.kill)
        self.limit.daemon = True
        self.limit.start()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if text in line:
                return
        raise AssertionError(f"ended without saying {text!r}:\n{''.join(self.output)}")

    def end(self) -> int:
        assert self.process.stdout is not None
        self.output += self.process.stdout.readlines()
        return self.process.wait(timeout=LIMIT)


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


Start = Callable[..., Child]


@pytest.fixture
def start(environment: dict[str, str], store: Path) -> Iterator[Start]:
    children: list[Child] = []

    def start_child(*arguments: str, environment: dict[str, str] = environment) -> Child:
        children.append(Child(list(arguments), environment, store))
        return children[-1]

    yield start_child
    for child in children:
        child.limit.cancel()
        child.kill()
        child.process.wait()


def training(data: str, **changes: object) -> list[str]:
    settings = SETTINGS | {"data": data} | changes
    named = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", MODULE, *named]


def runs(step: str) -> list[Run]:
    return list(MlflowClient().search_runs(["0"], f"tags.step = '{step}'"))


def final_metrics(run: Run) -> dict[str, float]:
    timed = ("images_per_second", "recording_seconds")
    return {k: v for k, v in run.data.metrics.items() if k not in timed}


def speeds(run: Run) -> list[float]:
    points = MlflowClient().get_metric_history(run.info.run_id, "images_per_second")
    return [point.value for point in points]


def test_a_training_that_is_running_is_not_resumed(
    start: Start, data: str, command: Command
) -> None:
    child = start(*training(data, epochs=200))
    child.wait_for("epoch   1/200")
    (run,) = runs("train")
    refused = command(MODULE, resume=run.info.run_id)
    assert refused.returncode == 2
    assert "still training; stop it first" in refused.stderr
    child.process.send_signal(signal.SIGINT)
    child.end()


def test_ctrl_c_ends_a_run_killed_with_its_best_model_and_it_can_be_resumed(
    start: Start, data: str, command: Command
) -> None:
    child = start(*training(data, epochs=200))
    child.wait_for("epoch   2/200")
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)  # `mlflow run` sends this too; the first one counts
    assert child.end() == 130
    assert "Traceback" not in "".join(child.output)
    (run,) = runs("train")
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == "interrupted"
    assert addresses.model_file(f"runs:/{run.info.run_id}/model")[0].exists()
    names = {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert {"curves.png", "confusion_matrix.png"} <= names
    assert f"--resume {run.info.run_id}" in "".join(child.output)


def test_a_killed_training_is_marked_failed_by_the_next_and_resumes_to_the_same_result(
    start: Start, data: str, command: Command
) -> None:
    child = start(*training(data))
    child.wait_for("epoch   3/8")
    child.process.kill()
    child.process.wait()
    (killed,) = runs("train")
    assert killed.info.status == "RUNNING"

    resumed = command(MODULE, resume=killed.info.run_id)
    assert resumed.returncode == 0, resumed.stderr
    killed = MlflowClient().get_run(killed.info.run_id)
    assert (killed.info.status, killed.data.tags["error"]) == ("FAILED", "its process was killed")
    whole = command(MODULE, **SETTINGS, data=data)
    assert whole.returncode == 0, whole.stderr
    first, second = (run for run in runs("train") if run.info.status == "FINISHED")
    assert final_metrics(first) == final_metrics(second)
    # The first epochs are those of the killed training, not trained again: the speed is the same.
    (resumed_run,) = (run for run in (first, second) if run.data.params["resume"] != "none")
    assert speeds(resumed_run)[:3] == speeds(killed)[:3]
    assert not list(Path("checkpoints").iterdir())


def test_four_trainings_at_once_share_a_store_that_does_not_exist_yet(
    start: Start, data: str
) -> None:
    children = [start(*training(data, epochs=1)) for _ in range(4)]
    assert [child.end() for child in children] == [0] * 4, [child.output for child in children]
    assert [run.info.status for run in runs("train")] == ["FINISHED"] * 4


def test_a_full_disk_leaves_no_half_dataset(environment: dict[str, str], store: Path) -> None:
    """A limit on the file size simulates a full disk: the kernel refuses the write."""
    queries.use_store()
    limit = Path("mlflow.db").stat().st_size + 100_000
    assert limit < 504 * 48 * 48, "the images must not fit"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.ingest"],
        cwd=store, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert queries.latest("ingest") is None
    assert not list(Path("mlruns").rglob("*.npy"))


def mlflow_run(entry_point: str, **settings: object) -> list[str]:
    named = [part for name, value in settings.items() for part in ("-P", f"{name}={value}")]
    return ["mlflow", "run", str(ROOT), "-e", entry_point, "--env-manager", "local", *named]


@pytest.fixture
def project_store(environment: dict[str, str], store: Path) -> dict[str, str]:
    """Environment with the store's URI, since `mlflow run` would use the project's folder."""
    return {**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}


def test_mlflow_run_trains_in_the_run_that_it_made_and_ingests_the_sample_first(
    project_store: dict[str, str], store: Path
) -> None:
    done = subprocess.run(
        mlflow_run("train", lr="2e-3", epochs=1, width=0.05),
        cwd=store, env=project_store, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no dataset on record: ingesting the drawn sample first" in done.stdout
    (trained,) = runs("train")
    assert len(MlflowClient().search_runs(["0"])) == 2
    assert len(runs("ingest")) == 1
    assert trained.info.status == "FINISHED"
    assert trained.data.params["lr"] == "2e-3"
    assert trained.data.metrics["learning_rate"] == pytest.approx(0.002)
    assert "mlflow.project.entryPoint" in trained.data.tags


def test_mlflow_run_with_an_unknown_parameter_fails_and_says_which(
    project_store: dict[str, str], store: Path
) -> None:
    done = subprocess.run(
        mlflow_run("train", typo=3),
        cwd=store, env=project_store, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode != 0
    assert "error: unknown parameter --typo 3" in done.stderr
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED"
    assert "unknown parameter --typo 3" in run.data.tags["error"]


def test_a_terminated_mlflow_run_takes_its_training_along(
    start: Start, project_store: dict[str, str], data: str
) -> None:
    command = mlflow_run("train", data=data, epochs=500, width=0.05)
    child = start(*command, environment=project_store)
    child.wait_for("epoch   2/500")
    child.process.terminate()
    until(lambda: runs("train")[0].info.status != "RUNNING")
    assert runs("train")[0].info.status == "KILLED"
    child.end()


def test_a_terminated_mlflow_run_takes_a_continued_study_along(
    start: Start, project_store: dict[str, str], store: Path, dataset: Dataset, data: str
) -> None:
    """A continued study deletes the run that `mlflow run` created and uses its own."""
    storage = f"sqlite:///{store}/optuna.db"
    study = optuna.create_study(study_name="begun", storage=storage, direction="maximize")
    with tracking.record("study", SearchSettings()) as run:
        for name, value in {"data": data, "digest": dataset.digest, "parent": run.id}.items():
            study.set_user_attr(name, value)
    settings = {"study": "begun", "storage": storage, "width": 0.05, "epochs": 500, "workers": 1}
    child = start(*mlflow_run("search", **settings), environment=project_store)
    until(lambda: any("val_accuracy" in trial.data.metrics for trial in runs("trial")))
    child.process.terminate()
    until(lambda: runs("study")[0].info.status != "RUNNING")
    assert [run.info.status for run in (*runs("study"), *runs("trial"))] == ["KILLED"] * 2
    child.end()


def test_main_records_ingest_train_and_evaluate_as_children(command: Command) -> None:
    done = command("pipeline.main", width=0.05, epochs=1)
    assert done.returncode == 0, done.stderr
    (main,) = runs("main")
    parents = {
        step: [run.data.tags["mlflow.parentRunId"] for run in runs(step)]
        for step in ("ingest", "train", "evaluate")
    }
    assert parents == {step: [main.info.run_id] for step in parents}
    accuracy = runs("evaluate")[0].data.metrics["test_accuracy"]
    assert main.data.metrics["test_accuracy"] == accuracy
    assert f"test accuracy {accuracy:.1%}" in done.stdout
    assert "mlflow ui" in done.stdout
    folder = done.stdout.split("report and pictures: ")[1].splitlines()[0]
    assert (Path(folder) / "classification_report.txt").exists()


def test_the_default_store_is_the_one_that_mlflow_ui_shows(command: Command, store: Path) -> None:
    """Without flags, `mlflow ui` opens ./mlflow.db with the artifacts below ./mlruns."""
    assert command("pipeline.ingest").returncode == 0
    assert (store / "mlflow.db").exists()
    (run,) = runs("ingest")
    assert Path(run.info.artifact_uri).is_relative_to(store / "mlruns")
    assert mlflow.get_tracking_uri() == f"sqlite:///{store}/mlflow.db"


def test_a_trained_model_is_served_and_answers_raw_faces_with_probabilities(
    start: Start, data: str, command: Command, dataset: Dataset
) -> None:
    trained = command(MODULE, **SETTINGS | {"epochs": 1}, data=data)
    run_id = trained.stdout.strip().split()[-1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(
        "mlflow", "models", "serve", "-m", f"runs:/{run_id}/model", "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port),
    )  # fmt: skip
    server.wait_for("Uvicorn running on")
    body = json.dumps({"inputs": dataset.images[:10, ..., np.newaxis].tolist()}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        probabilities = np.array(json.load(answer)["predictions"])
    assert probabilities.shape == (10, 7)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(10), abs=1e-5)
