"""All that knows MLflow: joining or starting a run, what is on it, finding runs, mending dead ones.

A run's status tells the truth: FINISHED, FAILED (tag `error` says why) or KILLED (interrupted). A
process that is killed outright can't say so; the next one on the same host that starts a run does.
"""

import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import mlflow
import numpy as np
import psutil
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline import InputError, Pruned, evaluation, figures
from pipeline.dataset import CLASSES, SIDE, Dataset
from pipeline.evaluation import Evaluation
from pipeline.settings import LATEST, Training

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = Path("checkpoints")
PACKAGES = ("mlflow", "keras", "tensorflow", "jax", "torch", "numpy", "optuna")
PROJECT_RUN = "MLFLOW_RUN_ID"  # set by `mlflow run` for the process that it starts

Settings = Any  # one of the dataclasses of settings.py


class Run:
    """A run that is being recorded."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self._client = MlflowClient()

    @property
    def checkpoint(self) -> Path:
        """Where this run's training keeps what it needs to go on; gone when it has finished."""
        return checkpoint_of(self.id)

    def tag(self, **tags: object) -> None:
        entities = [RunTag(name, str(value)) for name, value in tags.items()]
        self._client.log_batch(self.id, tags=entities)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        now = time.time_ns() // 1_000_000
        points = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self.id, metrics=points)

    def log_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        self.log_metrics(logs, step=epoch)

    def log_file(self, file: Path) -> None:
        self._client.log_artifact(self.id, str(file))

    def log_text(self, text: str, name: str) -> None:
        self._client.log_text(self.id, text, name)

    def log_evaluation(self, result: Evaluation, split: str, scratch: Path) -> None:
        """Log the classification report and the confusion matrix, as text and as a picture."""
        self.log_text(evaluation.report_text(result), "classification_report.txt")
        self.log_text(json.dumps(result.report, indent=2), "classification_report.json")
        self.log_text(evaluation.confusion_csv(result), "confusion_matrix.csv")
        self.log_file(figures.confusion_matrix(result, split, scratch / "confusion_matrix.png"))

    def log_folder(self, folder: Path, name: str) -> None:
        """Log `folder` as the artifact folder `name`, whole or not at all."""
        try:
            self._client.log_artifacts(self.id, str(folder), name)
        except BaseException:
            if folder_of_half := _local_artifacts(self.id):
                shutil.rmtree(folder_of_half / name, ignore_errors=True)
            raise

    def use_dataset(self, dataset: Dataset, address: str, context: str) -> None:
        """Record which dataset went in: its digest as an input, and its address as a tag."""
        source = dataset.about["source"]
        with warnings.catch_warnings(action="ignore"):  # a source that MLflow has no class for
            resolved = resolve_dataset_source(str(Path(address).resolve()))
        entity = MetaDataset(resolved, name=Path(source).name[-60:], digest=dataset.digest)
        mlflow.log_input(entity, context=context)
        self.tag(dataset=address, dataset_digest=dataset.digest, dataset_source=source)

    def log_model(self, model: Any, name: str = "model") -> None:
        """Log a Keras network that takes grey levels (N, 48, 48, 1) so that it can be served."""
        inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, SIDE, SIDE, 1))])
        outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, len(CLASSES)))])
        # Requirements are given, since inferring them costs 8 s of loading the model elsewhere.
        mlflow.keras.log_model(  # type: ignore[attr-defined]
            model,
            name=name,
            signature=ModelSignature(inputs, outputs),
            pip_requirements=[f"{name}=={version}" for name, version in _model_packages().items()],
        )


@contextmanager
def record(
    step: str,
    settings: Settings,
    *,
    parent: Run | None = None,
    name: str | None = None,
    run_id: str | None = None,
) -> Iterator[Run]:
    """Join the run that `mlflow run` made, or start one, and end it with a status that is true.

    With `run_id` that run is opened again and keeps the params that it has.
    SIGTERM and Ctrl-C both arrive as KeyboardInterrupt and end the run KILLED; while it is being
    ended, further ones are ignored, so that what was reached is saved.
    """
    use_store()
    mend_dead_runs()
    with _interruptible() if parent is None else _nothing():
        joined = PROJECT_RUN in os.environ
        active = mlflow.start_run(
            run_id=run_id,
            run_name=None if joined or run_id else name or step,
            nested=parent is not None,
            parent_run_id=parent.id if parent else None,
        )
        run = Run(active.info.run_id)
        try:
            run.tag(step=step, process=this_process(), **_circumstances())
            if run_id is None:
                _log_settings(run.id, settings)
            yield run
        except KeyboardInterrupt:
            _end(run, "KILLED", "interrupted")
            raise
        except Pruned:
            run.tag(trial_state="PRUNED")
            mlflow.end_run("KILLED")
            raise
        except BaseException as error:
            _end(run, "FAILED", f"{type(error).__name__}: {error}")
            raise
        if run_id is not None:
            _forget_error(run.id)
        mlflow.end_run("FINISHED")


def use_store() -> None:
    """Make sure that the store's tables exist before anything reads them.

    On a fresh database MLflow 3.17 lets several processes create the tables at once, and all but
    one die of it; a lock beside the file lets one do it.
    """
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///"):
        with FileLock(uri.removeprefix("sqlite:///") + ".lock"):
            MlflowClient().search_experiments(max_results=1)


def mend_dead_runs() -> None:
    """End the runs that still say RUNNING though their process on this host is gone."""
    for run in _search("attributes.status = 'RUNNING'"):
        if is_gone(run.data.tags.get("process", "")):
            end_for_another(run.info.run_id, "FAILED", "its process was killed")


def end_for_another(run_id: str, status: str, error: str) -> None:
    """End a run whose own process can't any more; one that has ended stays as it is."""
    if MlflowClient().get_run(run_id).info.status == "RUNNING":
        tag_error(run_id, error)
        MlflowClient().set_terminated(run_id, status)


def tag_error(run_id: str, error: str) -> None:
    MlflowClient().set_tag(run_id, "error", error[:500])


def evaluation_of(train_run: str, digest: str, split: str = "test") -> str | None:
    """The newest finished evaluate run of a train run's model, on a split of a dataset."""
    query = (
        f"tags.step = 'evaluate' and attributes.status = 'FINISHED' and params.split = '{split}'"
        f" and tags.dataset_digest = '{digest}' and tags.trained_by = '{train_run}'"
    )
    found = _search(query, max_results=1)
    return found[0].info.run_id if found else None


def give_up_joining(run_id: str | None) -> None:
    """Go on with the run `run_id`, if it is one, and not with the empty one that `mlflow run` made.

    The latter is finished and deleted (`mlflow.db` can restore it), so that no second one shows.
    """
    made = os.environ.get(PROJECT_RUN)
    if run_id is not None and made not in (None, run_id):
        del os.environ[PROJECT_RUN]
        MlflowClient().set_terminated(made, "FINISHED")
        MlflowClient().delete_run(made)


def _forget_error(run_id: str) -> None:
    """A run that was opened again and finished has no error any more."""
    if "error" in MlflowClient().get_run(run_id).data.tags:
        MlflowClient().delete_tag(run_id, "error")


def on_record(
    step: str, settings: Training, digest: str, parent: str | None = None
) -> MlflowRun | None:
    """The newest finished run of `step` with these settings on the dataset with this digest.

    What does not change the result is left aside: where the dataset lies, and the threads. With
    `parent`, only the child runs of that run are looked at.
    """
    query = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    query += f" and tags.dataset_digest = '{digest}'"
    if parent is not None:
        query += f" and tags.mlflow.parentRunId = '{parent}'"
    wanted = asdict(settings)
    names = {field.name for field in fields(Training)} - {"threads"}
    for run in _search(query):
        params = run.data.params
        if all(name in params and _says(params[name], wanted[name]) for name in names):
            return run
    return None


def find(run_id: str, *steps: str) -> MlflowRun:
    """A FINISHED run of one of `steps`, by id or the newest for "latest". Raises InputError."""
    if run_id == LATEST:
        if newest := latest(steps[0]):
            return newest
        raise InputError(f"no finished {steps[0]} run on record; make one with -e {steps[0]}")
    run = get(run_id, *steps)
    if run.info.status != "FINISHED":
        raise InputError(
            f"run {run_id} has not finished (it is {run.info.status}); resume it, or name its "
            f"model as runs:/{run_id}/model"
        )
    return run


def get(run_id: str, *steps: str) -> MlflowRun:
    """The run of one of `steps` with this id, whatever its status. Raises InputError."""
    use_store()
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:
        raise InputError(
            f"no run {run_id} on record in {mlflow.get_tracking_uri()}; `mlflow ui` lists the ids"
        ) from None
    if run.data.tags.get("step") not in steps:
        raise InputError(f"run {run_id} is no {' or '.join(steps)} run")
    return run


def latest(step: str) -> MlflowRun | None:
    use_store()
    query = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    found = _search(query, max_results=1)
    return found[0] if found else None


def evaluations(digest: str, split: str) -> int:
    """How often this split of the dataset with this digest was opened by a finished evaluation."""
    query = (
        f"tags.step = 'evaluate' and attributes.status = 'FINISHED' and params.split = '{split}'"
    )
    return len(_search(f"{query} and tags.dataset_digest = '{digest}'"))


def dataset_folder(address: str) -> Path:
    """The folder of a dataset: a folder's path itself, or an ingest run's id. Raises InputError."""
    if Path(address).is_dir():
        return Path(address)
    if "/" in address or "." in address:
        raise InputError(f"{address}: no such dataset folder")
    run = find(address, "ingest")
    if local := _local_artifacts(run.info.run_id):
        return local / "dataset"
    return Path(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="dataset")
    )


def dataset_of(run_id: str) -> str:
    """The address of the dataset that a train run was trained on."""
    return get(run_id, "train", "trial").data.tags["dataset"]


def _local_artifacts(run_id: str) -> Path | None:
    """The folder of a run's artifacts if it is on this machine; MLflow's download would copy it."""
    uri = MlflowClient().get_run(run_id).info.artifact_uri
    path = Path(uri.removeprefix("file://"))
    return path if path.is_dir() else None


def model_file(address: str) -> tuple[Path, str | None]:
    """The .keras file behind a model address, and the id of the run that trained it, if known.

    `address` is a .keras file, or an address of MLflow's: runs:/ID/model, models:/NAME@ALIAS, ….
    """
    if address.endswith(".keras"):
        if not Path(address).is_file():
            raise InputError(f"{address}: no such file")
        return Path(address), None
    use_store()
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
        run_id = mlflow.models.get_model_info(str(folder)).run_id
    except (MlflowException, OSError) as error:
        raise InputError(
            f"{address}: no such model ({' '.join(str(error).split())[:150]})"
        ) from None
    return next(folder.rglob("*.keras")), run_id


def checkpoint_of(run_id: str) -> Path:
    return CHECKPOINTS / f"{run_id}.npz"


def headline(evaluate_run: str) -> dict[str, float]:
    """The accuracy, with its interval, of an evaluate run."""
    metrics = MlflowClient().get_run(evaluate_run).data.metrics
    return {name: value for name, value in metrics.items() if name.startswith("test_accuracy")}


def where_to_look(evaluate_run: str) -> str:
    """A few lines for a person: the accuracy, where its report and pictures are, what to open."""
    run = MlflowClient().get_run(evaluate_run)
    artifacts = _local_artifacts(evaluate_run) or run.info.artifact_uri
    m = run.data.metrics
    return "\n".join(
        [
            f"test accuracy {m['test_accuracy']:.1%} "
            f"(95 % interval {m['test_accuracy_low']:.1%} to {m['test_accuracy_high']:.1%})",
            f"report and pictures: {artifacts}",
            "all runs: mlflow ui, then open http://127.0.0.1:5000",
        ]
    )


def recorded_settings(run: MlflowRun, settings_class: type[Settings]) -> dict[str, Any]:
    """Values of a run's params by name, with the types that `settings_class` gives its defaults."""
    defaults = asdict(settings_class())
    params = run.data.params
    return {name: type(defaults[name])(params[name]) for name in defaults if name in params}


def _search(query: str, max_results: int = 1000) -> Sequence[MlflowRun]:
    client = MlflowClient()
    experiments = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(
        experiments, query, ViewType.ACTIVE_ONLY, max_results, ["attributes.start_time DESC"]
    )


def _log_settings(run_id: str, settings: Settings) -> None:
    """Log each setting as a param under its own name, but for those that `mlflow run` has logged.

    MLflow can't change a param, so one that says something else than the training uses is an error.
    """
    recorded = MlflowClient().get_run(run_id).data.params
    fresh = []
    for name, value in asdict(settings).items():
        if name not in recorded:
            fresh.append(Param(name, str(value)))
        elif not _says(recorded[name], value):
            raise InputError(
                f"give -P {name}={value} too: `mlflow run` has recorded {recorded[name]}"
            )
    MlflowClient().log_batch(run_id, params=fresh)


def _says(recorded: str, value: object) -> bool:
    """Whether a param as `mlflow run` logs it (2e-4, or 'a path' in quotes) stands for `value`."""
    text = "".join(shlex.split(recorded))
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    return text == str(value) or (isinstance(value, float) and float(text) == value)


def _circumstances() -> dict[str, object]:
    """Tags that say with what a run was made."""
    versions = {f"version.{name}": version for name, version in _versions(PACKAGES).items()}
    return versions | {
        "version.python": platform.python_version(),
        "platform": platform.platform(),
        # MLflow's own tag, which it fills only if the main program lies in a repository.
        "mlflow.source.git.commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str:
    """What git says of the project's folder; empty where that is no repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    installed = {}
    for name in packages:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _model_packages() -> dict[str, str]:
    """What a server of the model needs: Keras with the backend that trained it."""
    backend = sys.modules["keras"].backend.backend()
    return _versions(("keras", backend, "numpy"))


def _end(run: Run, status: str, error: str) -> None:
    """End a run; one that a full disk keeps RUNNING is left to the next process's mending."""
    with suppress(MlflowException):
        tag_error(run.id, error)
    with suppress(MlflowException):
        mlflow.end_run(status)


def this_process() -> str:
    return _process_name(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process that `this_process` named is one of this host and has ended."""
    return process.startswith(f"{socket.gethostname()}:") and not _is_alive(process)


def _process_name(pid: int) -> str:
    """host:pid:start, which no later process shares; psutil raises if there is none."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.0f}"


def _is_alive(process: str) -> bool:
    try:
        return _process_name(int(process.split(":")[1])) == process
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt and ignore those after it."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            print("\nstopping; what was reached is being saved", file=sys.stderr)
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch_parent()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_parent() -> None:
    """Stop when the `mlflow run` that started this process is gone: it takes no child along."""
    if PROJECT_RUN not in os.environ:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
