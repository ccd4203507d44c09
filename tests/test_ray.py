"""Tests of a study on a real Ray cluster: two nodes on this computer, of which one is lost."""

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from pipeline.errors import InputError
from pipeline.runs import process, queries
from search.jobs import job, placement
from search.settings import SearchSettings
from search.studies import storage
from search.studies.study import search
from tests.commands import until
from tests.tiny import TINY

MISSING = importlib.util.find_spec("ray") is None
needs_ray = pytest.mark.skipif(MISSING, reason="Ray is missing: requirements-ray.txt")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    own = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        # A busy machine is no failure.
        "RAY_raylet_start_wait_time_s": "600",
        "RAY_agent_register_timeout_ms": "600000",
        "RAY_worker_register_timeout_seconds": "600",
    }
    os.environ.update(own)
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80_000_000}
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory}
    )
    made.second = made.add_node(num_cpus=1, **memory)
    yield made
    made.shutdown()
    for name in own:
        del os.environ[name]


@needs_ray
@pytest.mark.slow
def test_a_node_that_is_lost_costs_its_trial_a_restart_from_its_checkpoint(
    cluster: Any, data: str, store: Path
) -> None:
    uri = f"sqlite:///{store}/mlflow.db"
    settings = SearchSettings(
        data=data, trials=2, network=TINY, epochs=60, pruner="none", grid="none", confirm=1,
        ray=cluster.address, gpus="0",
    )  # fmt: skip

    def lose_a_node() -> None:
        client = MlflowClient(uri)

        def running() -> bool:
            found = client.search_runs(["0"], "tags.step = 'trial'")
            return sum("val/accuracy" in run.data.metrics for run in found) == 2

        until(running)
        cluster.remove_node(cluster.second, allow_graceful=False)

    loss = threading.Thread(target=lose_a_node)
    loss.start()
    search(settings)
    loss.join()

    study = optuna.load_study(study_name="emotion", storage=settings.storage)
    assert storage.count(study) == storage.Count(n_done=2, running=0)
    [lost] = [t for t in study.trials if t.user_attrs.get("error") == placement.NODE_LOST]
    [repeat] = [t for t in study.trials if storage.retry_history(t) == [lost.number]]
    assert repeat.state == TrialState.COMPLETE
    assert [*repeat.intermediate_values] == [*range(1, 61)], "a whole curve"
    run = MlflowClient().get_run(repeat.user_attrs["run"])
    assert run.data.metrics["resumed_from_epoch"] >= 1, "not from its first epoch again"
    runs = queries.search("attributes.status = 'RUNNING'")
    assert not runs, "no run is left"
    children = queries.search("tags.step = 'trial'")
    assert all(process.is_gone(child.data.tags["process"]) for child in children)


@needs_ray
@pytest.mark.slow
def test_a_command_that_is_interrupted_frees_its_slots(cluster: Any, data: str) -> None:
    with placement.slots(cluster.address, "0", 1) as slots:
        stop = threading.Event()
        threading.Timer(3, stop.set).start()
        outcome = placement.run(slots, _sleep, stop=stop)
        assert outcome.kind == "interrupted"
        assert slots.threads == 1
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
    ray.shutdown()


def _sleep(send: job.Send) -> None:
    signal.pause()


def test_a_cluster_that_cannot_be_used_is_a_mistake_of_one_line() -> None:
    if MISSING:
        with pytest.raises(InputError, match="ray=auto: Ray is not installed; pip install -r"):
            placement.slots("auto", "auto", 2)
        return
    with pytest.raises(InputError, match="gpus=many: with ray, GPUs a trial"):
        placement.slots("auto", "many", 2)
