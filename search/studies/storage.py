"""Optuna storage of a study: opening it, heartbeats, and retrying trials whose process died."""

import hashlib
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import InputError
from pipeline.runs import params, process, tracking

HEARTBEAT = 10
"""Seconds between two signs of life of a running trial."""
GRACE = 60
"""Seconds without one after which a trial on another machine counts as dead."""
RETRIES = 3
"""How often a trial is tried again whose process was killed: its settings may be the cause."""
SQLITE = "sqlite:///"
SQLITE_PATIENCE = 60
"""Seconds that a writer waits for others; sqlite's own 5 are short for many workers."""


# We beat ourselves, in the loop that listens to the trial, instead of by Study.optimize.
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")


warnings.filterwarnings("ignore", category=ExperimentalWarning)


def lock(url: str, purpose: str = "") -> FileLock:
    """What the processes of this host do one after another: making the study, taking a trial.

    Optuna 5.0 fails where two processes make a database at once. Beside an sqlite file, so that
    whoever opens the file finds the lock; for a server, in the temporary folder of this host.
    """
    if url.startswith(SQLITE):
        return FileLock(f"{url.removeprefix(SQLITE)}{purpose}.lock")
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"emotion-search-{name}{purpose}.lock")


def open_storage(url: str) -> RDBStorage:
    """Optuna's database, made if there is none; hold the lock. Raises InputError."""
    options = {"connect_args": {"timeout": SQLITE_PATIENCE}} if url.startswith(SQLITE) else {}
    try:
        return RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=_on_stale,
        )
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
        raise no_answer(url, error) from error


def no_answer(url: str, error: Exception) -> InputError:
    """What to raise where the database can't be opened, or is lost later."""
    reason = " ".join(str(error.__cause__ or error).split())[:150]
    return InputError(f"storage={params.without_password(url)}: can't be used ({reason})")


@dataclass(frozen=True)
class Count:
    """Trials of a study: `settled` have ended for good, `running` are under way."""

    settled: int
    running: int


def count(study: optuna.Study) -> Count:
    """A failed trial that was put up again does not count: its successor does."""
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in retry_history(trial)}
    settled = [t for t in trials if t.state.is_finished() and t.number not in retried]
    running = [t for t in trials if t.state == TrialState.RUNNING]
    return Count(len(settled), len(running))


def retry_history(trial: FrozenTrial) -> list[int]:
    """Numbers of the killed trials that this one repeats."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def heartbeat(storage: RDBStorage, trial: optuna.Trial) -> Callable[[], None]:
    """A function that gives a sign of life for `trial`, at most every `HEARTBEAT` seconds."""
    last = -float(HEARTBEAT)

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= HEARTBEAT:
            last = time.monotonic()
            storage.record_heartbeat(trial._trial_id)

    beat()
    return beat


def fail_dead_trials(study: optuna.Study) -> None:
    """Fail the running trials whose process is gone, and put them up to be tried again.

    One of this host is noticed at once, one of another host by its heartbeat. Hold the lock.
    """
    long_ago = datetime.now() - timedelta(seconds=GRACE)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        trainer = trial.user_attrs.get("process", "")
        # One that was killed before it could even say who trains it has no heartbeat to miss.
        nameless = not trainer and trial.datetime_start and trial.datetime_start < long_ago
        if nameless or process.is_gone(trainer):
            fail_and_retry(study, trial.number, "its process was killed")
    optuna.storages.fail_stale_trials(study)


def fail_and_retry(
    study: optuna.Study, number: int, error: str, *, was_killed: bool = True
) -> None:
    """Fail a trial that could not end by itself, and put its settings up again.

    After more kills than `RETRIES` they are given up; other interruptions don't count.
    """
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return  # another process was faster
    trial = next(t for t in study.get_trials() if t.number == number)
    _end_run(trial, error)
    _retry(study, trial, was_killed=was_killed)


def _on_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    """Optuna calls this for a trial that it has failed for want of heartbeats."""
    _end_run(trial, "its process gave no sign of life")
    _retry(study, trial, was_killed=True)


def _end_run(trial: FrozenTrial, error: str) -> None:
    if "run" in trial.user_attrs:
        tracking.end_for_another(trial.user_attrs["run"], "FAILED", error)


def _retry(study: optuna.Study, trial: FrozenTrial, *, was_killed: bool) -> None:
    kills = trial.user_attrs.get("kills", 0) + was_killed
    if kills > RETRIES:
        return
    # Process, run and error are those of the trial that failed, and so are the rungs of the pruner.
    trial.user_attrs = {"kills": kills}
    trial.system_attrs = {
        name: value
        for name, value in trial.system_attrs.items()
        if not name.startswith("completed_rung_")
    }
    RetryHeartbeatStaleTrialCallback()(study, trial)
