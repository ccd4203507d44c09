"""Read-only queries on the MLflow store: runs by step, id, settings and dataset."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from pipeline.errors import InputError, reason
from pipeline.percent import interval, percent
from pipeline.runs import experiment, outbox, stores
from pipeline.runs.metric_names import present, with_present_names
from pipeline.runs.params import has_settings, is_value
from pipeline.settings import LATEST, Hyperparameters, TrainSettings

CHECKPOINTS = Path("checkpoints")


def use_store() -> None:
    """Create the store's tables if they do not exist. Raises InputError if it can't be used.

    What earlier processes could not send to a server is sent.

    MLflow 3.17 fails if several processes create the tables of a new database at the same time,
    therefore the file lock.
    """
    uri = mlflow.get_tracking_uri()
    stores.require_usable(uri)
    if file := stores.sqlite_file(uri):
        with lock():
            stores.follow_moved_folder(file.absolute())
            MlflowClient().search_experiments(max_results=1)
    outbox.send_left()


def lock(subject: str = "") -> AbstractContextManager[object]:
    """A lock for a subject among the processes that use one local database.

    With a server it locks nothing.
    """
    file = stores.sqlite_file(mlflow.get_tracking_uri())
    return FileLock(f"{file}.{subject}lock") if file else nullcontext()


def find(run_id: str, *steps: str) -> Run:
    """A FINISHED run of one of `steps`, by id, or the newest for "latest". Raises InputError."""
    if run_id == LATEST:
        if newest := latest(steps[0]):
            return newest
        raise InputError(f"no finished {steps[0]} run on record; make one with -e {steps[0]}")
    run = get(run_id, *steps)
    if run.info.status != "FINISHED":
        remedy = "make another one"
        if steps == ("train",):
            remedy = f"resume it, or name its model as runs:/{run_id}/model"
        raise InputError(f"run {run_id} has not finished (it is {run.info.status}); {remedy}")
    return run


def get(run_id: str, *steps: str) -> Run:
    """The run of one of `steps` with this id, of any status. Raises InputError."""
    use_store()
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise unreachable(error) from None
        raise InputError(
            f"no run {run_id} on record in {mlflow.get_tracking_uri()}; `mlflow ui` lists the ids"
        ) from None
    if run.data.tags.get("step") not in steps:
        raise InputError(f"run {run_id} is no {' or '.join(steps)} run")
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise InputError(f"run {run_id} was deleted; `mlflow runs restore` brings it back")
    return run


def latest(step: str) -> Run | None:
    use_store()
    query = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    found = search(query, max_results=1)
    return found[0] if found else None


def finished_run(
    step: str, settings: Hyperparameters, digest: str, parent: str | None = None
) -> Run | None:
    """The newest finished run of `step` with these settings on the dataset with this digest.

    The dataset's address and the number of threads may differ. A setting that was added after a run
    had its present default in it. With `parent`, only child runs of that run are searched.
    """
    query = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    query += f" and tags.dataset_digest = '{digest}'"
    if parent is not None:
        query += f" and tags.mlflow.parentRunId = '{parent}'"
    return next((run for run in search(query) if has_settings(run.data.params, settings)), None)


def members(group: str) -> list[Run]:
    """The finished trainings of a group, by seed, one a seed."""
    by_seed = {int(run.data.params["seed"]): run for run in children(group, "train")}
    return [by_seed[seed] for seed in sorted(by_seed)]


def children(parent: str, step: str) -> list[Run]:
    """The finished child runs of a step, the oldest first."""
    query = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    return list(reversed(search(f"{query} and tags.mlflow.parentRunId = '{parent}'")))


def is_group(run_id: str) -> bool:
    return MlflowClient().get_run(run_id).data.tags.get("step") == "train_seeds"


def unfinished_group(settings: TrainSettings, digest: str) -> str | None:
    """Id of the newest stopped group with these settings on the dataset with this digest."""
    query = (
        "tags.step = 'train_seeds' and attributes.status != 'FINISHED'"
        f" and attributes.status != 'RUNNING' and tags.dataset_digest = '{digest}'"
    )
    for run in search(query):
        same_seeds = is_value(run.data.params["seeds"], settings.seeds)
        if same_seeds and has_settings(run.data.params, settings):
            return str(run.info.run_id)
    return None


def resumable_run(settings: Hyperparameters, digest: str) -> Run | None:
    """The newest stopped train run with these settings on the dataset with this digest whose
    checkpoint is in this folder."""
    query = (
        "tags.step = 'train' and attributes.status != 'FINISHED'"
        f" and attributes.status != 'RUNNING' and tags.dataset_digest = '{digest}'"
    )
    found = (run for run in search(query) if checkpoint_of(run.info.run_id).exists())
    return next((run for run in found if has_settings(run.data.params, settings)), None)


def curves(run_id: str, names: Sequence[str]) -> dict[str, list[float]]:
    """Values of metrics by epoch, under their present names; empty for one that is not there."""
    recorded = {present(name): name for name in MlflowClient().get_run(run_id).data.metrics}
    found = {}
    for name in names:
        points = (
            MlflowClient().get_metric_history(run_id, recorded[name]) if name in recorded else []
        )
        by_epoch = {point.step: point.value for point in points}
        found[name] = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    return found


def figures(run_id: str) -> dict[str, float]:
    """Last values of a run's metrics, by the present names."""
    return metrics_of(MlflowClient().get_run(run_id))


def evaluations(faces_digest: str) -> int:
    """Number of evaluate runs, of any status, that read the split with these faces."""
    return len(search(f"tags.step = 'evaluate' and tags.faces_digest = '{faces_digest}'"))


def evaluation_of(train_run: str, **digest: str) -> str | None:
    """Id of the newest finished evaluate run of a train run's model on the test split.

    `digest` is given as dataset_digest, of the dataset, or faces_digest, of the test faces only.
    """
    query = (
        "tags.step = 'evaluate' and attributes.status = 'FINISHED' and params.split = 'test'"
        f" and tags.trained_by = '{train_run}'"
    )
    query += "".join(f" and tags.{name} = '{value}'" for name, value in digest.items())
    found = search(query, max_results=1)
    return found[0].info.run_id if found else None


def logged_model(train_run: str) -> str | None:
    """Id of the model that a train run has logged last."""
    outputs = MlflowClient().get_run(train_run).outputs
    models = outputs.model_outputs if outputs else []
    return models[-1].model_id if models else None


def model_text(model_id: str, name: str) -> str | None:
    """Text of a file beside a logged model; None if it is not there."""
    try:
        folder = MlflowClient().get_logged_model(model_id).artifact_location
        return str(mlflow.artifacts.load_text(f"{folder}/{name}"))
    except (MlflowException, OSError):  # of an earlier version, or deleted
        return None


def _mlflow() -> str:
    """Path of this environment's mlflow command, relative to the working folder if possible."""
    command = Path(sys.executable).with_name("mlflow")
    here = Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)


def checkpoint_of(run_id: str) -> Path:
    return CHECKPOINTS / f"{run_id}.npz"


def metrics_of(run: Run) -> dict[str, float]:
    """Last values of a run's metrics, by the present names."""
    return with_present_names(run.data.metrics)


def test_accuracy(evaluate_run: str) -> dict[str, float]:
    """Test accuracy of an evaluate run, with its interval, by the metrics' names."""
    metrics = metrics_of(MlflowClient().get_run(evaluate_run))
    return {name: value for name, value in metrics.items() if name.startswith("test/accuracy")}


def test_text(tested: Mapping[str, float]) -> str:
    """What `test_accuracy` returns, as text."""

    def one(name: str) -> str:
        low, high = tested[f"{name}_low"], tested[f"{name}_high"]
        return f"{percent(tested[name])} ({interval(low, high)})"

    if "test/accuracy_votes" not in tested:
        return one("test/accuracy")
    return (
        f"{one('test/accuracy')} against the dataset's labels, {one('test/accuracy_votes')} "
        "against the votes' majority"
    )


def summary_text(evaluate_run: str) -> str:
    """Summary of an evaluate run for the terminal: accuracy and artifact folder."""
    run = MlflowClient().get_run(evaluate_run)
    artifacts = local_artifacts(evaluate_run) or run.info.artifact_uri
    return "\n".join(
        [
            f"test accuracy {test_text(metrics_of(run))}",
            f"report and pictures: {artifacts}",
        ]
    )


def address_text(run_id: str) -> str:
    """The last line of a command: where a browser shows its run."""
    address = experiment.run_address(run_id)
    if mlflow.get_tracking_uri().startswith("http"):
        return f"see {address}"
    return f"see {address} (after: {_mlflow()} ui)"


def local_artifacts(run_id: str) -> Path | None:
    """Folder of a run's artifacts if it is on this machine; no copy, unlike MLflow's download."""
    uri = MlflowClient().get_run(run_id).info.artifact_uri
    path = Path(uri.removeprefix("file://"))
    return path if path.is_dir() else None


def search(query: str, max_results: int = 1000) -> Sequence[Run]:
    outbox.send_left()
    client = MlflowClient()
    try:
        experiments = [e.experiment_id for e in client.search_experiments()]
        return client.search_runs(
            experiments, query, ViewType.ACTIVE_ONLY, max_results, ["attributes.start_time DESC"]
        )
    except MlflowException as error:
        raise unreachable(error) from None


def unreachable(error: MlflowException) -> InputError:
    """InputError for a store that can't be reached or written to."""
    if known := stores.remedy(error):
        return InputError(f"{mlflow.get_tracking_uri()}: {reason(error)}; {known}")
    return InputError(f"{mlflow.get_tracking_uri()} does not answer ({reason(error, 150)})")
