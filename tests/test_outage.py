"""Tests of outages of an MLflow server, a real one that is stopped and started anew."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from pipeline.runs import outbox, queries, tracking
from pipeline.settings import TrainSettings
from tests.commands import Child, free_port, until
from tests.conftest import Start, copy_stores
from tests.tiny import TINY

pytestmark = pytest.mark.slow
ACCURACY = "val/accuracy"


class Server:
    """`mlflow server` on a port of its own, on loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1",
             "--port", str(self._port), "--backend-store-uri", "sqlite:///mlflow.db",
             "--artifacts-destination", "kept", "--uvicorn-opts", "--log-level critical"],
            cwd=self._folder, env=environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )  # fmt: skip
        mlflow.set_tracking_uri(self.address)
        until(outbox.is_reachable)

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_stores: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    copy_stores(empty_stores, folder)
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture
def client(server: Server, environment: dict[str, str]) -> dict[str, str]:
    """Environment of a command that uses the server."""
    mlflow.set_tracking_uri(server.address)
    return environment | {"MLFLOW_TRACKING_URI": server.address}


def lines_unsent() -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in Path("unsent").glob("*.jsonl"))


def curve(run_id: str) -> list[Metric]:
    return MlflowClient().get_metric_history(run_id, ACCURACY)


def train(start: Start, client: dict[str, str], data: str, epochs: int) -> Child:
    """A training that has finished an epoch."""
    settings = {"data": data, "network": TINY, "epochs": epochs, "patience": 0}
    training = start("pipeline.train", environment=client, **settings)
    until(lambda: list(Path("checkpoints").glob("*.npz")))
    return training


def test_a_training_goes_on_without_its_server_and_its_curve_is_whole(
    server: Server, client: dict[str, str], start: Start, data: str
) -> None:
    training = train(start, client, data, epochs=40)
    server.send(signal.SIGSTOP)
    until(lambda: lines_unsent() >= 20)
    training.wait_for("goes on, and its epochs are kept")
    back = time.time() * 1000
    server.send(signal.SIGCONT)
    assert training.end() == 0, training.stderr
    [run] = queries.search("tags.step = 'train'")
    points = curve(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert [point.step for point in points] == [*range(1, 41)]
    times = [point.timestamp for point in points]
    assert times == sorted(times)
    assert sum(written < back for written in times) >= 15, "no epoch waits for the server"
    assert not list(Path("unsent").iterdir())


def test_what_a_killed_command_has_not_sent_is_sent_by_the_next(
    server: Server, client: dict[str, str], start: Start, data: str
) -> None:
    training = train(start, client, data, epochs=500)
    server.kill()
    until(lambda: lines_unsent() >= 5)
    training.kill()
    training.end()
    [file] = Path("unsent").iterdir()
    requests = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    kept = [body["metrics"][0] for _, body in requests if body.get("metrics")]
    server.start()
    tracking.end_dead_runs()  # as the next command does
    assert not file.exists()
    points = curve(file.stem)
    assert [point.step for point in points] == [*range(1, kept[-1]["step"] + 1)]
    assert points[-1].timestamp == kept[-1]["timestamp"]
    assert MlflowClient().get_run(file.stem).info.status == "FAILED"


def test_a_run_that_ends_in_an_outage_leaves_its_status(
    server: Server, client: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "END", 0.5)
    monkeypatch.setattr(outbox, "ANSWER", 1.0)
    with tracking.record("trial", TrainSettings()) as run:
        run.log_epoch(1, {ACCURACY: 0.5})
        server.send(signal.SIGSTOP)
        run.log_epoch(2, {ACCURACY: float("inf")})
        run.rename("a name")
    assert mlflow.active_run() is None
    server.send(signal.SIGCONT)
    outbox.send_left()
    ended = MlflowClient().get_run(run.id)
    assert (ended.info.status, ended.info.run_name) == ("FINISHED", "a name")
    # MLflow's database has no infinity.
    assert [point.value for point in curve(run.id)] == [0.5, sys.float_info.max]
    assert ended.info.end_time - curve(run.id)[1].timestamp < 2000, "as it was, not as it was sent"


def test_what_is_sent_together_arrives_as_if_sent_one_by_one(
    server: Server, client: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    box = outbox.Outbox(run_id, server.address)
    for epoch in range(1, 901):  # more than MLflow takes in one request
        box.log([{"key": ACCURACY, "value": epoch / 900, "timestamp": epoch, "step": epoch}])
    box.log(tags={"which": "first"})
    box.log([{"key": "no/such metric?", "value": 0.5, "timestamp": 1, "step": 1}])
    box.update(run_name="a name")
    box.log(tags={"which": "last"})
    begin = time.monotonic()
    assert box.flush(60)
    assert time.monotonic() - begin < 30, "many requests go as one"
    box.close()
    said = capsys.readouterr().err
    assert said.count("refused a part") == 1, "of what goes as one only the bad part is refused"
    assert "no/such metric?" in said
    assert [point.step for point in curve(run_id)] == [*range(1, 901)]
    sent = MlflowClient().get_run(run_id)
    assert (sent.data.tags["which"], sent.info.run_name) == ("last", "a name")


def test_a_run_that_the_server_does_not_know_stops_nothing(
    server: Server, client: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    box = outbox.Outbox("0" * 32, server.address)
    box.log([{"key": ACCURACY, "value": 0.5, "timestamp": 1, "step": 1}])
    assert box.flush(20)
    box.close()
    assert "refused a part of run 000" in capsys.readouterr().err
    assert not list(Path("unsent").iterdir())
