"""What is on record: finding runs, their datasets and models in MLflow's store; it changes none."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from pipeline import InputError
from pipeline.settings import LATEST, Training

CHECKPOINTS = Path("checkpoints")
DOWNLOADS = Path("~/.cache/emotion-search/datasets")

Settings = Any  # one of the dataclasses of settings.py


def use_store() -> None:
    """Make sure that the store's tables exist before anything reads them.

    On a fresh database MLflow 3.17 lets several processes create the tables at once, and all but
    one die of it; a lock beside the file lets one do it.
    """
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///"):
        with FileLock(uri.removeprefix("sqlite:///") + ".lock"):
            MlflowClient().search_experiments(max_results=1)


def find(run_id: str, *steps: str) -> Run:
    """A FINISHED run of one of `steps`, by id or the newest for "latest". Raises InputError."""
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
    """The run of one of `steps` with this id, whatever its status. Raises InputError."""
    use_store()
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise no_answer(error) from None
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


def on_record(step: str, settings: Training, digest: str, parent: str | None = None) -> Run | None:
    """The newest finished run of `step` with these settings on the dataset with this digest.

    What does not change the result is left aside: where the dataset lies, and the threads. A
    setting that is younger than a run had what is now its default there. With `parent`, only the
    child runs of that run are looked at.
    """
    query = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    query += f" and tags.dataset_digest = '{digest}'"
    if parent is not None:
        query += f" and tags.mlflow.parentRunId = '{parent}'"
    return next((run for run in search(query) if _has(run, settings)), None)


def unfinished(settings: Training, digest: str) -> Run | None:
    """The newest train run with these settings on the dataset with this digest that was stopped and
    can be resumed here: its checkpoint is in this folder."""
    query = (
        "tags.step = 'train' and attributes.status != 'FINISHED'"
        f" and attributes.status != 'RUNNING' and tags.dataset_digest = '{digest}'"
    )
    found = (run for run in search(query) if checkpoint_of(run.info.run_id).exists())
    return next((run for run in found if _has(run, settings)), None)


def _has(run: Run, settings: Training) -> bool:
    """Whether a run trained with these settings; the threads, which don't matter, aside."""
    params, wanted = run.data.params, asdict(settings)
    defaults = asdict(Training())
    del defaults["threads"]
    return all(says(params.get(name, str(old)), wanted[name]) for name, old in defaults.items())


def evaluations(faces_digest: str) -> int:
    """How many evaluations opened the split with these faces, whatever became of them."""
    return len(search(f"tags.step = 'evaluate' and tags.faces_digest = '{faces_digest}'"))


def evaluation_of(train_run: str, **digest: str) -> str | None:
    """The newest finished evaluate run of a train run's model on test.

    `digest` is the dataset's, as dataset_digest, or that of the test faces alone, as faces_digest.
    """
    query = (
        "tags.step = 'evaluate' and attributes.status = 'FINISHED' and params.split = 'test'"
        f" and tags.trained_by = '{train_run}'"
    )
    query += "".join(f" and tags.{name} = '{value}'" for name, value in digest.items())
    found = search(query, max_results=1)
    return found[0].info.run_id if found else None


def dataset_folder(address: str) -> Path:
    """The folder of a dataset: a folder's path itself, or an ingest run's id. Raises InputError."""
    if Path(address).is_dir():
        return Path(address)
    if "/" in address or "." in address:
        raise InputError(f"{address}: no such dataset folder")
    run = find(address, "ingest")
    if local := local_artifacts(run.info.run_id):
        return local / "dataset"
    return _downloaded(run.info.run_id)


def _downloaded(ingest_run: str) -> Path:
    """A server's dataset, fetched once for all processes of this user, whole or not at all."""
    kept = DOWNLOADS.expanduser() / ingest_run
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            with TemporaryDirectory(dir=kept.parent) as half:
                uri = f"runs:/{ingest_run}/dataset"
                mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=half)
                (Path(half) / "dataset").rename(kept)
    return kept


def dataset_uri(address: str) -> str:
    """Where the dataset at `address` lies: a folder, a URI of a store, or a page of a server."""
    if Path(address).is_dir():
        return str(Path(address).resolve())
    info = MlflowClient().get_run(address).info
    if info.artifact_uri.startswith("mlflow-artifacts:"):  # MLflow has no dataset source for it
        page = f"#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts"
        return f"{mlflow.get_tracking_uri()}/{page}"
    return f"{info.artifact_uri.removeprefix('file://')}/dataset"


def dataset_of(run_id: str) -> str:
    """The address of the dataset that a train run was trained on."""
    return get(run_id, "train").data.tags["dataset"]


def model_file(address: str) -> tuple[Path, str | None]:
    """The .keras file behind an address, and the id of the run that trained it, if known.

    `address` is a .keras file, a train run's id or latest, or an address of MLflow's:
    runs:/ID/model, models:/NAME@ALIAS, ….
    """
    if address.endswith(".keras"):
        if not Path(address).is_file():
            raise InputError(f"{address}: no such file")
        return Path(address), None
    if ":/" not in address:
        address = f"runs:/{find(address, 'train').info.run_id}/model"
    use_store()
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
        run_id = mlflow.models.get_model_info(str(folder)).run_id
    except (MlflowException, OSError) as error:
        raise InputError(
            f"{address}: no such model ({' '.join(str(error).split())[:150]})"
        ) from None
    files = list(folder.rglob("*.keras"))
    if not files:
        raise InputError(f"{address}: this model holds no .keras file")
    return files[0], run_id


def _mlflow() -> str:
    """The mlflow of this environment, as it can be typed in the working folder."""
    command = Path(sys.executable).with_name("mlflow")
    here = Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)


def recorded_settings(run: Run, settings_class: type[Settings]) -> dict[str, Any]:
    """Values of a run's params by name, with the types that `settings_class` gives its defaults."""
    defaults = asdict(settings_class())
    params = run.data.params
    return {
        name: params[name].lower() == "true"
        if isinstance(value, bool)
        else type(value)(_unquoted(params[name]))
        for name, value in defaults.items()
        if name in params
    }


def checkpoint_of(run_id: str) -> Path:
    return CHECKPOINTS / f"{run_id}.npz"


def headline(evaluate_run: str) -> dict[str, float]:
    """The accuracy, with its interval, of an evaluate run."""
    metrics = MlflowClient().get_run(evaluate_run).data.metrics
    return {name: value for name, value in metrics.items() if name.startswith("test_accuracy")}


def where_to_look(evaluate_run: str) -> str:
    """A few lines for a person: the accuracy, where its report and pictures are, what to open."""
    run = MlflowClient().get_run(evaluate_run)
    artifacts = local_artifacts(evaluate_run) or run.info.artifact_uri
    m = run.data.metrics
    return "\n".join(
        [
            f"test accuracy {m['test_accuracy']:.1%} "
            f"(95 % interval {m['test_accuracy_low']:.1%} to {m['test_accuracy_high']:.1%})",
            f"report and pictures: {artifacts}",
            f"all runs: {_mlflow()} ui, then open http://127.0.0.1:5000 and choose Model training",
        ]
    )


def local_artifacts(run_id: str) -> Path | None:
    """The folder of a run's artifacts if it is on this machine; MLflow's download would copy it."""
    uri = MlflowClient().get_run(run_id).info.artifact_uri
    path = Path(uri.removeprefix("file://"))
    return path if path.is_dir() else None


def search(query: str, max_results: int = 1000) -> Sequence[Run]:
    client = MlflowClient()
    try:
        experiments = [e.experiment_id for e in client.search_experiments()]
        return client.search_runs(
            experiments, query, ViewType.ACTIVE_ONLY, max_results, ["attributes.start_time DESC"]
        )
    except MlflowException as error:
        raise no_answer(error) from None


def no_answer(error: MlflowException) -> InputError:
    """What to raise where the store can't be reached, or written to."""
    reason = " ".join(str(error).split())[:150]
    return InputError(f"{mlflow.get_tracking_uri()} does not answer ({reason})")


def without_password(address: str) -> str:
    """A database's address as it may be shown and put on record."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", address)


def says(recorded: str, value: object) -> bool:
    """Whether a param as `mlflow run` logs it (2e-4, or 'a path' in quotes) stands for `value`."""
    text = _unquoted(recorded)
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    return text == str(value) or (isinstance(value, float) and float(text) == value)


def _unquoted(recorded: str) -> str:
    """A param as it was given: `mlflow run` puts quotes around one with a blank or the like."""
    is_quoted = len(recorded) > 1 and recorded[0] == recorded[-1] == "'"
    return "".join(shlex.split(recorded)) if is_quoted else recorded
