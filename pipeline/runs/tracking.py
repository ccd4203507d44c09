"""Writes to the MLflow store: start or join a run, log to it, end it with the right status.

The status is FINISHED, FAILED (tag `error` says why) or KILLED (interrupted). A process that is
killed outright can't end its run; the next one on the same host that starts a run does.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline.data import CLASSES, SIDE
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError, Pruned
from pipeline.runs import addresses, params, process, queries, signals
from pipeline.runs.signals import PROJECT_RUN
from pipeline.settings import LATEST, Settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mlflow", "keras", "tensorflow", "jax", "torch", "numpy", "optuna")


class Run:
    """A run that is being recorded."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.is_left = False
        self._client = MlflowClient()

    @property
    def checkpoint(self) -> Path:
        """Where this run's training keeps what it needs to go on; gone when it has finished."""
        return queries.checkpoint_of(self.id)

    def tag(self, **tags: object) -> None:
        entities = [RunTag(name, str(value)) for name, value in tags.items()]
        with signals.shielded():
            self._client.log_batch(self.id, tags=entities)

    def leave(self) -> None:
        """Leave this run, which then stays RUNNING, to other processes that work on it."""
        self.tag(process=",".join(_other_processes(self.id)))
        self.is_left = True

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        now = time.time_ns() // 1_000_000
        points = [Metric(name, value, now, step) for name, value in metrics.items()]
        try:
            with signals.shielded():
                self._client.log_batch(self.id, metrics=points)
        except MlflowException as error:  # hours after all that is checked before a training
            raise queries.no_answer(error) from None

    def log_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        self.log_metrics(logs, step=epoch)

    def log_file(self, file: Path) -> None:
        self._client.log_artifact(self.id, str(file))

    def log_text(self, text: str, name: str) -> None:
        self._client.log_text(self.id, text, name)

    def log_files(self, folder: Path) -> None:
        """Log the files of `folder`."""
        self._client.log_artifacts(self.id, str(folder))

    def log_folder(self, folder: Path, name: str) -> None:
        """Log `folder` as the artifact folder `name`, whole or not at all."""
        try:
            self._client.log_artifacts(self.id, str(folder), name)
        except BaseException:
            if folder_of_half := queries.local_artifacts(self.id):
                shutil.rmtree(folder_of_half / name, ignore_errors=True)
            raise

    def use_dataset(self, dataset: Dataset, address: str, context: str) -> None:
        """Record which dataset went in: its digest as an input, and its address as a tag."""
        source = dataset.about["source"]
        with warnings.catch_warnings(action="ignore"):  # several of its classes know a folder
            resolved = resolve_dataset_source(addresses.dataset_uri(address))
        entity = MetaDataset(resolved, name=Path(source).name[-60:], digest=dataset.digest)
        try:
            mlflow.log_input(entity, context=context)
        except MlflowException as error:
            # MLflow looks whether the store knows the faces, then writes: of two processes that
            # do so at once one is refused, and finds them the next time.
            if error.error_code != "BAD_REQUEST":
                raise
            mlflow.log_input(entity, context=context)
        self.tag(dataset=address, dataset_digest=dataset.digest, dataset_source=source)

    def log_model(self, model: Any, name: str = "model") -> None:
        """Log a Keras network that takes grey levels (N, 48, 48, 1) so that it can be served."""
        inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, SIDE, SIDE, 1))])
        outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, len(CLASSES)))])
        # Requirements are given, since inferring them costs 8 s of loading the model elsewhere.
        mlflow.keras.log_model(
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

    With `run_id` that run is opened again and keeps the params that it has. Where other processes
    of this host work on it too, one that fails or is interrupted leaves it to them.
    SIGTERM and Ctrl-C both arrive as KeyboardInterrupt and end the run KILLED; while it is being
    ended, further ones are ignored, so that what was reached is saved.
    """
    queries.use_store()
    mend_dead_runs()
    with signals.interruptible() if parent is None else nullcontext():
        joined = PROJECT_RUN in os.environ
        others = _other_processes(run_id) if run_id else []
        active = mlflow.start_run(
            run_id=run_id,
            run_name=None if joined or run_id else name or step,
            nested=parent is not None,
            parent_run_id=parent.id if parent else None,
        )
        run = Run(active.info.run_id)
        try:
            processes = ",".join([*others, process.this_process()])
            run.tag(step=step, process=processes, **_circumstances())
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
            if signals.was_interrupted():  # and whatever was hit has made another error of it
                _end(run, "KILLED", "interrupted")
                raise KeyboardInterrupt from error
            _end(run, "FAILED", f"{type(error).__name__}: {error}")
            raise
        _forget_error(run.id)
        mlflow.end_run("RUNNING" if run.is_left else "FINISHED")


def mend_dead_runs() -> None:
    """End the runs that still say RUNNING though their process on this host is gone."""
    for run in queries.search("attributes.status = 'RUNNING'"):
        if all(process.is_gone(name) for name in _processes(run)):
            end_for_another(run.info.run_id, "FAILED", "its process was killed")


def end_for_another(run_id: str, status: str, error: str) -> None:
    """End a run whose own process can't any more; one that has ended stays as it is."""
    if MlflowClient().get_run(run_id).info.status == "RUNNING":
        tag_error(run_id, error)
        MlflowClient().set_terminated(run_id, status)


def tag_error(run_id: str, error: str) -> None:
    MlflowClient().set_tag(run_id, "error", error[:500])


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


def _log_settings(run_id: str, settings: Settings) -> None:
    """Log each setting as a param under its own name, but for those that `mlflow run` has logged.

    MLflow can't change a param, so one that says something else than the training uses is an error.
    """
    recorded = MlflowClient().get_run(run_id).data.params
    used = asdict(settings)
    if recorded.get("data") == LATEST:  # which one that was, the tag `dataset` says
        used["data"] = LATEST
    if wrong := {
        name: value
        for name, value in used.items()
        if name in recorded and not params.is_value(recorded[name], value)
    }:
        wanted = " ".join(f"-P {name}={value}" for name, value in wrong.items())
        said = ", ".join(f"{name}={recorded[name]}" for name in wrong)
        raise InputError(f"give {wanted} too: `mlflow run` has recorded {said}")
    fresh = [
        Param(name, params.without_password(str(value)))
        for name, value in used.items()
        if name not in recorded
    ]
    MlflowClient().log_batch(run_id, params=fresh)


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


def _processes(run: mlflow.entities.Run) -> list[str]:
    """The processes that work on a run: one, but for a study's."""
    return run.data.tags.get("process", "").split(",")


def _other_processes(run_id: str) -> list[str]:
    """Those of this host that work on a run beside this one."""
    run, here = MlflowClient().get_run(run_id), process.this_process()
    if run.info.status != "RUNNING":
        return []
    return [name for name in _processes(run) if name != here and process.is_running(name)]


def _end(run: Run, status: str, error: str) -> None:
    """End a run; one that a full disk keeps RUNNING is left to the next process's mending."""
    with suppress(MlflowException):
        if _other_processes(run.id):
            run.leave()
            mlflow.end_run("RUNNING")
            return
    with suppress(MlflowException):
        tag_error(run.id, error)
    with suppress(MlflowException):
        mlflow.end_run(status)
