"""Writes to the MLflow store: start or join a run, log to it, end it with the right status.

The status is FINISHED, FAILED (reason in the tag `error`) or KILLED (interrupted). The run of a
process that was killed is ended by the next command on the same host that starts a run.
"""

import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.fluent import run_id_to_system_metrics_monitor

from pipeline import paths, secrets
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError, Pruned, note, one_line
from pipeline.runs import (
    addresses,
    environment,
    experiment,
    models,
    outbox,
    params,
    process,
    queries,
    signals,
    stores,
)
from pipeline.runs.metric_names import rounded
from pipeline.runs.outbox import Outbox
from pipeline.runs.signals import PROJECT_RUN
from pipeline.settings import LATEST, Settings

A_DAY = 24 * 3600
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
"""Names that MLflow gives to runs without one, such as adaptable-conch-243."""
LONGEST_NOTE = 7_900
"""Maximum characters of a description; MLflow refuses tags of more than 8,000."""
TRAININGS = ("train", "trial", "confirm")
"""Steps whose runs have system metrics, if they last longer than a minute."""
SYSTEM_METRICS = {
    "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "10",  # seconds
    "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "6",
}


class Run:
    """A run that is being written."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.is_left = False
        self.dataset = ""
        """Address of the dataset in use."""
        self.is_named = False
        """Whether the user has named it."""
        self._client = MlflowClient()
        self._outbox: Outbox | None = None
        self._note = ""

    @property
    def checkpoint(self) -> Path:
        """Checkpoint file of this run's training; deleted when the training has finished."""
        return queries.checkpoint_of(self.id)

    def use_outbox(self) -> None:
        """From now on let no metric, tag or name wait for MLflow's server, if there is one."""
        if address := outbox.server():
            self._outbox = Outbox(self.id, address)

    def tag(self, **tags: object) -> None:
        if self._outbox:
            self._outbox.log(tags={name: str(value) for name, value in tags.items()})
            return
        entities = [RunTag(name, str(value)) for name, value in tags.items()]
        with signals.defer_interrupts():
            self._client.log_batch(self.id, tags=entities)

    def data(self) -> mlflow.entities.RunData:
        """What is on record: tags, params and last values of metrics."""
        self._wait()
        return self._client.get_run(self.id).data

    def rename(self, name: str) -> None:
        """Name the run, unless its user has."""
        if self.is_named:
            return
        if self._outbox:
            self._outbox.update(run_name=name)
        else:
            self._client.update_run(self.id, name=name)

    def describe(self, text: str) -> None:
        """Set the description, Markdown that MLflow shows at the top of the run's page."""
        self._note = secrets.hide(text)[:LONGEST_NOTE]
        self.tag(**{experiment.NOTE: self._note})

    def fail(self, error: str) -> None:
        """Put an error into the tag `error` and in front of the description."""
        note = self._note if self._outbox else self.data().tags.get(experiment.NOTE, "")
        self.tag(error=one_line(error)[:500])
        self.describe(f"**Failed**: {error}\n\n{note}")

    def clear_error(self) -> None:
        """Delete the error tag of a run that was reopened and has finished."""
        if self._outbox is None and "error" in self.data().tags:
            self._client.delete_tag(self.id, "error")

    def end(self, status: str) -> None:
        """End the run that MLflow has active."""
        if self._outbox is None:
            mlflow.end_run(status)
            return
        self._outbox.flush(outbox.END)
        if self._outbox.had_outage:  # its thread may wait for MLflow's next try, minutes from now
            run_id_to_system_metrics_monitor.pop(self.id, None)
        now = time.time_ns() // 1_000_000
        try:
            with outbox.impatient():
                mlflow.end_run(status)
        except MlflowException:
            self._outbox.update(status=status, end_time=now)
        self._outbox.close()

    def _wait(self) -> None:
        """Wait until the server has what was written; for the rest of an interruption, briefly.

        Raises InputError if it does not answer.
        """
        if self._outbox:
            was_interrupted = signals.was_interrupted()
            self._outbox.require_sent(outbox.END if was_interrupted else outbox.OUTAGE)

    def leave(self) -> None:
        """Stop writing to this run, which stays RUNNING for the other processes that use it."""
        self.tag(process=",".join(_other_processes(self.id)))
        self.is_left = True

    def log_metrics(
        self,
        metrics: Mapping[str, float],
        step: int = 0,
        model_id: str | None = None,
        faces: Dataset | None = None,
    ) -> None:
        """Log metrics with six digits, also for a logged model on the dataset `faces`."""
        now = time.time_ns() // 1_000_000
        if self._outbox:
            values = {name: rounded(value) for name, value in metrics.items()}
            shared = {"timestamp": now, "step": step}
            self._outbox.log([{"key": k, "value": v, **shared} for k, v in values.items()])
            return
        of: dict[str, Any] = {"model_id": model_id, "run_id": self.id}
        if faces:
            of |= {"dataset_name": _short_name(faces), "dataset_digest": faces.digest}
        points = [Metric(name, rounded(v), now, step, **of) for name, v in metrics.items()]
        try:
            with signals.defer_interrupts():
                self._client.log_batch(self.id, metrics=points)
        except MlflowException as error:  # the store can fail hours after the checks at the start
            raise queries.unreachable(error) from None

    def log_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        self.log_metrics(logs, step=epoch)

    def log_file(self, file: Path, folder: str | None = None) -> None:
        self._wait()
        self._client.log_artifact(self.id, str(file), folder)

    def log_environment(self, **more: object) -> None:
        """Log environment.json, with `more` in it, and changes.diff if there are changes."""
        content = environment.environment() | more
        self.log_text(json.dumps(content, indent=2) + "\n", environment.FILE)
        if changes := environment.changes():
            self.log_text(secrets.hide(changes), environment.CHANGES)

    def log_text(self, text: str, name: str) -> None:
        self._wait()
        self._client.log_text(self.id, text, name)

    def log_files(self, folder: Path) -> None:
        """Log the files of `folder`."""
        self._wait()
        self._client.log_artifacts(self.id, str(folder))

    def log_folder(self, folder: Path, name: str) -> None:
        """Log `folder` as the artifact folder `name`; a partial copy is removed."""
        self._wait()
        try:
            self._client.log_artifacts(self.id, str(folder), name)
        except BaseException:
            if artifacts := queries.local_artifacts(self.id):
                shutil.rmtree(artifacts / name, ignore_errors=True)
            raise

    def use_dataset(self, dataset: Dataset, address: str, context: str) -> None:
        """Record the dataset in use: its digest as a run input, its address as a tag."""
        self._wait()
        with warnings.catch_warnings(action="ignore"):  # several source classes match a folder
            resolved = resolve_dataset_source(addresses.dataset_uri(address))
        entity = MetaDataset(resolved, name=_short_name(dataset), digest=dataset.digest)
        try:
            mlflow.log_input(entity, context=context)
        except MlflowException as error:
            # Two processes may insert the same dataset at the same time: MLflow then refuses one,
            # which finds the dataset when it tries again.
            if error.error_code != "BAD_REQUEST":
                raise
            mlflow.log_input(entity, context=context)
        self.dataset = address
        self.tag(dataset=address, dataset_digest=dataset.digest)

    def log_model(
        self,
        model: Any,
        finish: Callable[[Path], None] = lambda folder: None,
        name: str = "model",
        epoch: int = 0,
    ) -> str:
        """Log a Keras network for grey levels (N, 48, 48, 1), ready to be served; returns its id.

        `finish` is called with the folder of the saved model before it is logged. `epoch` is the
        one that the network is of.
        """
        self._wait()
        return models.log(model, name, environment.model_packages(), finish, epoch).model_id


@contextmanager
def record(
    step: str,
    settings: Settings,
    *,
    parent: Run | None = None,
    name: str | None = None,
    run_id: str | None = None,
) -> Iterator[Run]:
    """Join the run that `mlflow run` created, or start one, and end it with the right status.

    With `run_id` that run is reopened with its params. If other processes of this host use it too,
    it stays RUNNING when this one fails or is interrupted.
    SIGTERM and Ctrl-C both raise KeyboardInterrupt and end the run KILLED; further signals are
    ignored, so that the results so far are saved.
    """
    queries.use_store()
    if parent is None:
        environment.tell_without_git()
        end_dead_runs()
    with signals.interruptible() if parent is None else nullcontext():
        joined = PROJECT_RUN in os.environ
        others = _other_processes(run_id) if run_id else []
        own = _experiment_of(parent) if parent else experiment.use(run_id)
        for variable, value in SYSTEM_METRICS.items():
            os.environ.setdefault(variable, value)
        is_new = not (joined or run_id)
        tags = _tags(step, parent)
        active = mlflow.start_run(
            run_id=run_id,
            experiment_id=own if is_new else None,
            run_name=name or step if is_new else None,
            nested=parent is not None,
            tags=tags if is_new else None,
            log_system_metrics=step in TRAININGS,
        )
        run = Run(active.info.run_id)
        given = active.data.tags.get("mlflow.runName", "")
        run.is_named = joined and not GENERATED_NAME.fullmatch(given)
        try:
            if not is_new:
                run.tag(**tags | {"process": ",".join([*others, process.this_process()])})
            if run_id is None:
                _begin(run, step, settings, name, joined=joined)
            if step in TRAININGS:
                run.use_outbox()
            yield run
        except KeyboardInterrupt:
            _end(run, step, "KILLED", "interrupted")
            raise
        except Pruned:
            run.tag(trial_state="PRUNED")
            run.end("KILLED")
            raise
        except BaseException as error:
            if signals.was_interrupted():  # a library replaced KeyboardInterrupt by its own error
                _end(run, step, "KILLED", "interrupted")
                raise KeyboardInterrupt from error
            _end(run, step, "FAILED", f"{type(error).__name__}: {error}")
            raise
        run.clear_error()
        run.end("RUNNING" if run.is_left else "FINISHED")


def _tags(step: str, parent: Run | None) -> dict[str, str]:
    """Tags of a new run."""
    tags = {"step": step, "process": process.this_process(), **_commit_tag()}
    return tags | {"mlflow.parentRunId": parent.id} if parent else tags


def _begin(run: Run, step: str, settings: Settings, name: str | None, *, joined: bool) -> None:
    """Log a run's params, environment and name; `joined`: `mlflow run` has logged some."""
    recorded = MlflowClient().get_run(run.id).data.params if joined else {}
    params = [Param(name, value) for name, value in _missing(recorded, settings).items()]
    MlflowClient().log_batch(run.id, params=params)
    if step not in TRAININGS:  # which log it with their device
        run.log_environment()
    if joined and name:
        run.rename(name)


def end_dead_runs() -> None:
    """End the RUNNING runs whose processes, all of this host, are gone."""
    for run in queries.search("attributes.status = 'RUNNING'"):
        if all(process.is_gone(name) for name in _processes(run)) or _is_abandoned(run):
            end_if_running(run.info.run_id, "FAILED", "its process was killed")


def end_children(parent: Run) -> None:
    """End the RUNNING runs below `parent`, whose processes the caller knows to be gone."""
    below = f"attributes.status = 'RUNNING' and tags.`mlflow.parentRunId` = '{parent.id}'"
    for run in queries.search(below):
        end_if_running(run.info.run_id, "FAILED", "its process was lost")


def _is_abandoned(run: mlflow.entities.Run) -> bool:
    """Whether a run that `mlflow run` made on this machine was left by it before our part began."""
    tags = run.data.tags
    is_of_mlflow_run = "mlflow.project.entryPoint" in tags and "process" not in tags
    if not is_of_mlflow_run or run.info.run_id == os.environ.get(PROJECT_RUN):
        return False
    begun = (run.info.start_time or 0) / 1000
    if stores.sqlite_file(mlflow.get_tracking_uri()) is None:  # it may be of another machine
        return time.time() - begun > A_DAY
    return not process.works_for(run.info.run_id, PROJECT_RUN, begun)


def end_if_running(run_id: str, status: str, error: str) -> None:
    """End the run of another process, unless it has ended."""
    if outbox.wait() and MlflowClient().get_run(run_id).info.status == "RUNNING":
        tag_error(run_id, error)
        MlflowClient().set_terminated(run_id, status)


def tag_error(run_id: str, error: str) -> None:
    MlflowClient().set_tag(run_id, "error", one_line(error)[:500])


def hide_secrets(run_id: str) -> None:
    """Mask the addresses among the params that `mlflow run` has recorded as they were typed."""
    recorded = MlflowClient().get_run(run_id).data.params
    hidden = {name: secrets.masked(value) for name, value in recorded.items()}
    changed = {name: value for name, value in hidden.items() if value != recorded[name]}
    file = stores.sqlite_file(mlflow.get_tracking_uri())
    if changed and file:
        stores.hide_params(file, changed, run_id)
    elif changed:
        note(
            f"MLflow's server has the secrets of {', '.join(changed)} on record, as they were "
            f"typed; delete the run for good: `mlflow runs delete --run-id {run_id}`, `mlflow gc`"
        )


def discard_project_run(run_id: str | None) -> None:
    """Delete the empty run that `mlflow run` created, if the existing run `run_id` is continued.

    It is ended first; `mlflow runs restore` brings it back.
    """
    created = os.environ.get(PROJECT_RUN)
    if run_id is not None and created not in (None, run_id):
        del os.environ[PROJECT_RUN]
        MlflowClient().set_terminated(created, "FINISHED")
        MlflowClient().delete_run(created)


def _missing(recorded: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The settings as params of the same names, without those that `mlflow run` has recorded.

    MLflow can't change a param. Raises InputError if one differs from the setting in use.
    """
    used = {
        name: secrets.masked(value) if isinstance(value, str) else value
        for name, value in asdict(settings).items()
    }
    if recorded.get("data") == LATEST:  # the address is in the tag `dataset`
        used["data"] = LATEST
    if wrong := {
        name: value
        for name, value in used.items()
        if name in recorded and not params.is_value(recorded[name], value)
    }:
        options = " ".join(f"-P {name}={value}" for name, value in wrong.items())
        logged = ", ".join(f"{name}={recorded[name]}" for name in wrong)
        raise InputError(f"give {options} too: `mlflow run` has recorded {logged}")
    return {name: str(value) for name, value in used.items() if name not in recorded}


def log_card(model_id: str, card: str, name: str) -> None:
    """Write a logged model's card beside it, over an earlier one, and as its description."""
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / name
        file.write_text(card)
        MlflowClient().log_model_artifact(model_id, str(file))
    describe_model(model_id, card)


def describe_model(model_id: str, text: str) -> None:
    """Set the description of a logged model, Markdown."""
    MlflowClient().set_logged_model_tags(model_id, {experiment.NOTE: text[:LONGEST_NOTE]})


def _short_name(dataset: Dataset) -> str:
    """Name of a dataset in MLflow: the last part of its source, or of each."""
    return ",".join(Path(one).name for one in paths.several(dataset.about["source"]))[-60:]


def _experiment_of(run: Run) -> str:
    """Id of the experiment of a run that this command began; waits for a server in an outage."""
    try:
        with outbox.impatient():
            found = MlflowClient().get_run(run.id)
    except MlflowException:
        outbox.wait()
        found = MlflowClient().get_run(run.id)
    return str(found.info.experiment_id)


def _commit_tag() -> dict[str, str]:
    """The commit, in the tag that MLflow sets only if the main program is in a repository."""
    commit = environment.environment()["git"]["commit"]
    return {} if commit == environment.UNKNOWN else {"mlflow.source.git.commit": commit}


def _processes(run: mlflow.entities.Run) -> list[str]:
    """Names of the processes that use a run; only a study's run can have several."""
    return run.data.tags.get("process", "").split(",")


def _other_processes(run_id: str) -> list[str]:
    """Names of the other live processes of this host that use a run."""
    run, here = MlflowClient().get_run(run_id), process.this_process()
    if run.info.status != "RUNNING":
        return []
    return [name for name in _processes(run) if name != here and process.is_running(name)]


def _end(run: Run, step: str, status: str, error: str) -> None:
    """End a run. If the store refuses (disk full), a later `end_dead_runs` does it."""
    with outbox.impatient():
        with suppress(MlflowException):
            if step not in TRAININGS and _other_processes(run.id):
                run.leave()
                run.end("RUNNING")
                return
        with suppress(MlflowException):
            if status == "FAILED":
                run.fail(error)
            else:
                run.tag(error=one_line(error)[:500])
        with suppress(MlflowException):
            run.end(status)
