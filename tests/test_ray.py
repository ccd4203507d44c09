"""Tests of a study on a real Ray cluster: two nodes on this computer, of which one is lost."""

import importlib.util
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import InputError
from pipeline.runs import queries
from search.jobs import placement
from search.studies import storage
from tests.commands import LIMIT, free_port, until
from tests.conftest import Start
from tests.tiny import TINY

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is missing: requirements-test.txt"
)
EPOCHS = 30
NODE_ID = "RAY_OVERRIDE_NODE_ID_FOR_TESTING"


class Paced(BasePruner):
    """Prunes nothing. A trial waits after its third epoch until there is a file `go`."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step == 3:
            until(Path("go").exists)
        time.sleep(0.1)
        return False


def paced(epochs: int, small_epochs: int) -> BasePruner:
    return Paced()


AGENT_PORTS = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and a second node, with a core each. A busy machine is no failure."""
    variables = {
        "RAY_USAGE_STATS_ENABLED": 0, "RAY_worker_niceness": 0,
        "RAY_raylet_start_wait_time_s": LIMIT, "RAY_worker_register_timeout_seconds": LIMIT,
        "RAY_agent_register_timeout_ms": 1000 * LIMIT,
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        stop = threading.Event()
        ports = {f"{name}_port": free_port() for name in AGENT_PORTS}
        node = {"num_cpus": 1, "object_store_memory": 80_000_000, **ports}
        writer = threading.Thread(target=write_ports, args=(Path(folder), ports, stop))
        writer.start()
        monkeypatch.setenv(NODE_ID, "1" * 56)
        head = {"include_dashboard": False, "temp_dir": folder, **node}
        made = Cluster(initialize_head=True, head_node_args=head)
        monkeypatch.setenv(NODE_ID, "2" * 56)
        node |= {f"{name}_port": free_port() for name in AGENT_PORTS}
        made.second = made.add_node(**node)
        stop.set()
        yield made
        made.shutdown()


def write_ports(folder: Path, ports: dict[str, int], stop: threading.Event) -> None:
    """Write what a raylet waits for from its agents, since it gives up after 15 seconds."""
    while not stop.wait(0.05):
        for session in folder.glob("session_2*"):
            for name, port in ports.items():
                for node in "12":
                    with suppress(OSError), (session / f"{name}_{node * 56}").open("x") as file:
                        file.write(str(port))


def stored_trials() -> list[FrozenTrial]:
    database = optuna.storages.get_storage("sqlite:///optuna.db")
    if "emotion" not in optuna.get_all_study_names(database):  # not begun yet
        return []
    return optuna.load_study(study_name="emotion", storage=database).trials


def resumed_from(trial: FrozenTrial) -> float:
    """The epoch of the checkpoint that a trial began with."""
    run = MlflowClient().get_run(trial.user_attrs["run"])
    return float(run.data.metrics["resumed_from_epoch"])


@needs_ray
@pytest.mark.slow
def test_a_study_on_a_cluster_outlasts_a_lost_node_and_an_interruption(
    cluster: Any, start: Start, data: str, store: Path
) -> None:
    settings = {
        "data": data, "trials": 2, "network": TINY, "epochs": EPOCHS, "grid": "none", "confirm": 1,
        "pruner": "tests.test_ray:paced", "ray": cluster.address,
    }  # fmt: skip
    study = start("search.optuna_study", **settings)
    until(lambda: [t.last_step for t in stored_trials()] == [3, 3])
    cluster.remove_node(cluster.second, allow_graceful=False)
    (store / "go").touch()
    # The other node repeats the lost trial when it has finished its own.
    until(lambda: [t.last_step for t in stored_trials()[2:] if (t.last_step or 0) > 5])
    study.send(signal.SIGINT)
    assert study.end() == 130, study.stderr
    # The one core that is left is free again, or this would wait for ever.
    again = start("search.optuna_study", **settings)
    assert again.end() == 0, again.stderr

    *first, repeat, last = stored_trials()
    [lost] = [trial for trial in first if trial.state == TrialState.FAIL]
    [other] = [trial for trial in first if trial.state == TrialState.COMPLETE]
    assert lost.user_attrs["error"] == placement.NODE_LOST
    assert (repeat.state, repeat.user_attrs["error"]) == (TrialState.FAIL, "interrupted")
    assert (last.state, storage.retry_history(last)) == (
        TrialState.COMPLETE,
        [lost.number, repeat.number],
    )
    assert lost.params == repeat.params == last.params != other.params, "none is doubled"
    assert 3 <= resumed_from(repeat) <= resumed_from(last), "none begins anew"
    client = MlflowClient()
    for trial in (other, last):
        assert trial.last_step
        assert [*trial.intermediate_values] == [*range(1, trial.last_step + 1)]
        points = client.get_metric_history(trial.user_attrs["run"], "val/accuracy")
        assert [point.step for point in points] == [*range(1, trial.last_step + 1)]
    [parent] = queries.search("tags.step = 'study'")
    assert parent.info.status == "FINISHED"
    assert len(queries.search("tags.step = 'trial'")) == 4
    assert not queries.search("attributes.status = 'RUNNING'")


def test_without_ray_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "search.jobs.ray_slots", raising=False)
    with pytest.raises(InputError, match="ray=auto: Ray is not installed; pip install -r"):
        placement.slots("auto", "auto", 2)


@needs_ray
def test_a_number_of_gpus_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="gpus=many: with ray, GPUs a trial"):
        placement.slots("auto", "many", 2)


@needs_ray
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:9"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(address: str) -> None:
    with pytest.raises(InputError, match=f"ray={address}: no Ray cluster answers at HOST:PORT"):
        placement.slots(address, "auto", 2)
