"""An MLflow server that keeps the artifacts: other machines find datasets and models there."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline import paths
from tests.commands import free_port
from tests.conftest import Start
from tests.tiny import TINY

pytestmark = pytest.mark.slow


def test_train_evaluate_and_compare_work_on_a_server_and_fetch_a_dataset_once(
    start: Start,
    environment: dict[str, str],
    store: Path,
    csv: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    server = start(
        "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}/mlflow.db",
        "--artifacts-destination", str(store / "kept"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--serve-artifacts", "--default-artifact-root", "mlflow-artifacts:/",
    )  # fmt: skip
    server.wait_for("Uvicorn running on")
    address = f"http://127.0.0.1:{port}"
    (store / "home").mkdir()
    client = environment | {"MLFLOW_TRACKING_URI": address, "HOME": str(store / "home")}
    mlflow.set_tracking_uri(address)
    experiment = MlflowClient().create_experiment("on the server")
    client["MLFLOW_EXPERIMENT_ID"] = experiment

    def run(module: str, **settings: object) -> str:
        child = start(module, environment=client, **settings)
        assert child.end() == 0, child.stderr
        return child.stdout

    run("pipeline.main", source=csv, network=TINY, epochs=1)
    monkeypatch.setenv("HOME", str(store / "home"))
    [fetched] = [path for path in paths.cached("datasets").iterdir() if path.is_dir()]
    file = (fetched / "images.npy").stat().st_ino
    run("pipeline.evaluate")
    assert (fetched / "images.npy").stat().st_ino == file, "it is not fetched again"

    runs = MlflowClient().search_runs([experiment])
    by_step = {run.data.tags["step"]: run for run in runs}
    assert fetched.name == by_step["ingest"].info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    [used] = by_step["evaluate"].inputs.dataset_inputs
    assert f"{address}/#/experiments/{experiment}/runs/{fetched.name}" in used.dataset.source
    assert not (store / "mlruns").exists(), "all artifacts are on the server"
    first, second = (run.info.run_id for run in runs if run.data.tags["step"] == "evaluate")
    assert "A and B" in run("search.compare", runs=f"{first},{second}")
