"""Tests of the runs' status after signals, kills and a full disk, with real processes."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.data.dataset import Dataset
from pipeline.runs import addresses, queries, tracking
from search.settings import SearchSettings
from tests.commands import LIMIT, ROOT, until
from tests.conftest import Command, Start
from tests.tiny import TINY

pytestmark = pytest.mark.slow
MODULE = "pipeline.train"
SETTINGS = {
    "network": TINY, "batch_size": 32, "lr": 0.003, "epochs": 8, "patience": 0, "threads": 1,
}  # fmt: skip


def runs(step: str) -> list[Run]:
    return list(MlflowClient().search_runs(["0"], f"tags.step = '{step}'"))


def final_metrics(run: Run) -> dict[str, float]:
    of_the_process = ("time/", "system/", "resumed_from_epoch")
    return {k: v for k, v in run.data.metrics.items() if not k.startswith(of_the_process)}


def speeds(run: Run) -> list[float]:
    points = MlflowClient().get_metric_history(run.info.run_id, "time/images_per_second")
    return [point.value for point in points]


def test_ctrl_c_ends_a_run_killed_with_its_best_model_and_only_then_it_can_be_resumed(
    start: Start, data: str, command: Command
) -> None:
    child = start(MODULE, **SETTINGS | {"data": data, "epochs": 2000})
    child.wait_for("epoch   2/2000")
    (run,) = runs("train")
    refused = command(MODULE, resume=run.info.run_id)
    assert refused.returncode == 2
    assert "still training; stop it first" in refused.stderr
    child.send(signal.SIGINT)
    child.send(signal.SIGTERM)  # `mlflow run` sends this too; the first one counts
    assert child.end() == 130
    assert "Traceback" not in child.stdout + child.stderr
    (run,) = runs("train")
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == "interrupted"
    assert addresses.model_file(f"runs:/{run.info.run_id}/model")[0].exists()
    names = {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert {"curves.png", "confusion_matrix.png"} <= names
    assert f"--resume {run.info.run_id}" in child.stdout


def test_a_killed_training_is_marked_failed_by_the_next_and_resumes_to_the_same_result(
    start: Start, data: str, command: Command
) -> None:
    settings = SETTINGS | {"data": data, "epochs": 60}
    child = start(MODULE, **settings)
    child.wait_for("epoch   3/60")
    child.kill()
    child.end()
    (killed,) = runs("train")
    assert killed.info.status == "RUNNING"
    epochs = len(speeds(killed))

    resumed = command(MODULE, resume=killed.info.run_id)
    assert resumed.returncode == 0, resumed.stderr
    killed = MlflowClient().get_run(killed.info.run_id)
    assert (killed.info.status, killed.data.tags["error"]) == ("FAILED", "its process was killed")
    whole = command(MODULE, **settings)
    assert whole.returncode == 0, whole.stderr
    first, second = (run for run in runs("train") if run.info.status == "FINISHED")
    assert final_metrics(first) == final_metrics(second)
    # Its first epochs are those of the killed training, not trained again: they took as long.
    (resumed_run,) = (run for run in (first, second) if run.data.params["resume"] != "None")
    assert speeds(resumed_run)[: epochs - 1] == speeds(killed)[: epochs - 1]
    assert not list(Path("checkpoints").iterdir())


@pytest.mark.usefixtures("no_databases")
def test_four_commands_at_once_share_a_store_that_does_not_exist_yet(
    start: Start, csv: str
) -> None:
    children = [start("pipeline.ingest", source=csv) for _ in range(4)]
    assert [child.end() for child in children] == [0] * 4, [child.stderr for child in children]
    assert [run.info.status for run in runs("ingest")] == ["FINISHED"] * 4


def test_a_full_disk_leaves_no_half_dataset(environment: dict[str, str], store: Path) -> None:
    """A limit on the file size simulates a full disk: the kernel refuses the write."""
    queries.use_store()
    limit = Path("mlflow.db").stat().st_size + 100_000
    assert limit < 1280 * 48 * 48, "the images must not fit"
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
    return ["run", str(ROOT), "-e", entry_point, "--env-manager", "local", *named]


@pytest.fixture
def project_store(environment: dict[str, str], store: Path) -> dict[str, str]:
    """Environment with the store's URI, since `mlflow run` would use the project's folder."""
    return {**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"}


def test_mlflow_run_with_an_unknown_parameter_fails_and_says_which(
    start: Start, project_store: dict[str, str]
) -> None:
    child = start("mlflow", *mlflow_run("train", typo=3), environment=project_store)
    assert child.end() != 0
    assert "error: unknown parameter --typo 3" in child.stderr
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED"
    assert "unknown parameter --typo 3" in run.data.tags["error"]


def test_a_terminated_mlflow_run_takes_its_training_along(
    start: Start, project_store: dict[str, str]
) -> None:
    """It trains in the run that `mlflow run` made, and ingests the sample first."""
    settings = {"network": TINY, "lr": "3e-3", "epochs": 2000}
    child = start("mlflow", *mlflow_run("train", **settings), environment=project_store)
    child.wait_for("epoch   2/2000")
    assert "no dataset on record: ingesting the drawn sample first" in child.stdout
    child.send(signal.SIGTERM)
    until(lambda: runs("train")[0].info.status != "RUNNING")
    child.end()
    (trained,) = runs("train")
    assert trained.info.status == "KILLED"
    assert [run.info.status for run in runs("ingest")] == ["FINISHED"]
    assert len(MlflowClient().search_runs(["0"])) == 2
    assert trained.data.params["lr"] == "3e-3"
    assert trained.data.metrics["learning_rate"] == pytest.approx(0.003)
    assert "mlflow.project.entryPoint" in trained.data.tags


def test_of_first_trainings_that_start_together_one_draws_the_sample(
    start: Start, no_databases: None
) -> None:
    """Of a folder without a database: both make it, too."""
    children = [start("pipeline.train", network=TINY, epochs=1, seed=seed) for seed in (0, 1)]
    assert [child.end() for child in children] == [0, 0]
    (drawn,) = runs("ingest")
    assert [run.info.status for run in runs("train")] == ["FINISHED"] * 2
    assert {run.data.params["data"] for run in runs("train")} <= {"latest", drawn.info.run_id}


def test_a_terminated_mlflow_run_takes_a_continued_study_along(
    start: Start, project_store: dict[str, str], store: Path, dataset: Dataset, data: str
) -> None:
    """A continued study deletes the run that `mlflow run` created and uses its own."""
    storage = f"sqlite:///{store}/optuna.db"
    study = optuna.create_study(study_name="begun", storage=storage, direction="maximize")
    with tracking.record("study", SearchSettings()) as run:
        for name, value in {"data": data, "digest": dataset.digest, "parent": run.id}.items():
            study.set_user_attr(name, value)
    settings = {"study": "begun", "storage": storage, "network": TINY, "epochs": 2000, "workers": 1}
    settings["fix"] = "patience=0"  # so that no trial ends by itself
    child = start("mlflow", *mlflow_run("search", **settings), environment=project_store)
    until(lambda: any("val/accuracy" in trial.data.metrics for trial in runs("trial")))
    child.send(signal.SIGTERM)
    until(lambda: runs("study")[0].info.status != "RUNNING")
    assert [run.info.status for run in (*runs("study"), *runs("trial"))] == ["KILLED"] * 2
    child.end()


@pytest.mark.usefixtures("no_databases")
def test_the_default_store_is_the_one_that_mlflow_ui_shows(
    command: Command, csv: str, store: Path
) -> None:
    """Without flags, `mlflow ui` opens ./mlflow.db with the artifacts below ./mlruns."""
    assert command("pipeline.ingest", source=csv).returncode == 0
    assert (store / "mlflow.db").exists()
    (run,) = runs("ingest")
    assert Path(run.info.artifact_uri).is_relative_to(store / "mlruns")
    assert mlflow.get_tracking_uri() == f"sqlite:///{store}/mlflow.db"
