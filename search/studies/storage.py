"""Optuna storage of a study: opening it, heartbeats, and retrying trials whose process died."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial, wraps
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.runs import process, tracking
from search.studies.database import engine_options, patiently, unreachable
from search.studies.lease import Leases

HEARTBEAT = 10
"""Seconds between two heartbeats of a running trial."""
GRACE = 60
"""Seconds without a heartbeat after which a trial on another machine counts as dead."""
RETRIES = 3
"""Maximum retries of a trial whose process was killed, since its settings may be the cause."""

# Heartbeats are recorded by `job.run`, not by Study.optimize as Optuna expects.
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class Storage(RDBStorage):
    """Optuna's storage, whose calls outlast an outage of the database's server."""

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        def has_arrived() -> bool | None:
            # Of a state that is final, since any worker may have set RUNNING.
            done = state.is_finished() and super(Storage, self).get_trial(trial_id).state == state
            return True if done else None

        tell = partial(super().set_trial_state_values, trial_id, state, values)
        return patiently(self.url, tell, has_arrived)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Storage, *arguments: Any, **options: Any) -> Any:
        return patiently(self.url, partial(method, self, *arguments, **options))

    return call


# What Optuna's cache, which is between a study and its storage, calls.
for _name in (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "_create_new_trial",
    "_set_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial",
    "_get_trials",
    "record_heartbeat",
    "_get_stale_trial_ids",
):
    setattr(Storage, _name, _patient(getattr(RDBStorage, _name)))


def open_storage(url: str) -> Storage:
    """Open Optuna's database, created if there is none. Raises InputError."""
    with Leases(url).hold("", "tables"):  # Optuna 5.0 fails if two processes create it at once
        try:
            return Storage(
                url,
                engine_kwargs=engine_options(url),
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=_on_stale,
            )
        except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
            raise unreachable(url, error) from error


@dataclass(frozen=True)
class Count:
    """Numbers of trials of a study: done (finished and not to be retried) and running."""

    n_done: int
    running: int


def count(trials: Sequence[FrozenTrial]) -> Count:
    """Count the trials of a study; of a trial and its retries only the last counts."""
    retried = {number for trial in trials for number in retry_history(trial)}
    done = [t for t in trials if t.state.is_finished() and t.number not in retried]
    running = [t for t in trials if t.state == TrialState.RUNNING]
    return Count(len(done), len(running))


def ended_early(
    trials: Sequence[FrozenTrial], target: float | None, stop_after: int, *, maximize: bool
) -> bool:
    """Whether `target` was reached, or `stop_after` trials (0: off) brought no better best."""
    best = best_trial(trials, maximize=maximize)
    if best is None:
        return False
    sign = 1.0 if maximize else -1.0
    reached = target is not None and sign * (best.value or 0.0) >= sign * target
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    since = sum(t.number > best.number and t.state in ended for t in trials)
    return reached or 0 < stop_after <= since


def best_trial(trials: Sequence[FrozenTrial], *, maximize: bool) -> FrozenTrial | None:
    """The finished trial with the best value, of equals the first."""
    sign = 1.0 if maximize else -1.0
    finished = [one for one in trials if one.state == TrialState.COMPLETE]
    return max(finished, key=lambda one: (sign * (one.value or 0.0), -one.number), default=None)


def retry_history(trial: FrozenTrial) -> list[int]:
    """Numbers of the trials that this one retries."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def make_heartbeat(storage: RDBStorage, trial: optuna.Trial) -> Callable[[], None]:
    """A function that records a heartbeat of `trial`, at most every `HEARTBEAT` seconds."""
    last = -float(HEARTBEAT)

    def heartbeat() -> None:
        nonlocal last
        if time.monotonic() - last >= HEARTBEAT:
            last = time.monotonic()
            storage.record_heartbeat(trial._trial_id)

    heartbeat()
    return heartbeat


def fail_dead_trials(study: optuna.Study) -> None:
    """Fail and retry the running trials whose process is gone. The caller holds the lease.

    A dead process of this host is detected at once, one of another host by its heartbeat.
    """
    long_ago = datetime.now() - timedelta(seconds=GRACE)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        trainer = trial.user_attrs.get("process", "")
        # A trial whose worker was killed before it set `process` has no heartbeat either.
        nameless = not trainer and trial.datetime_start and trial.datetime_start < long_ago
        if nameless or process.is_gone(trainer):
            fail_and_retry(study, trial.number, "its process was killed")
    optuna.storages.fail_stale_trials(study)


def fail_and_retry(
    study: optuna.Study, number: int, error: str, *, was_killed: bool = True
) -> None:
    """Fail a trial that could not end by itself, and enqueue its settings again.

    After more kills than `RETRIES` they are not retried; other interruptions don't count.
    """
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return  # another process has failed it
    trial = next(t for t in study.get_trials() if t.number == number)
    _retry(study, trial, error, was_killed=was_killed)


def _on_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    """Optuna's callback for a trial that it has failed because of missing heartbeats."""
    _retry(study, trial, "its process sent no heartbeat", was_killed=True)


def _retry(study: optuna.Study, trial: FrozenTrial, error: str, *, was_killed: bool) -> None:
    """Enqueue a failed trial again, then end its run, for which MLflow's server is needed."""
    run = trial.user_attrs.get("run")
    kills = trial.user_attrs.get("kills", 0) + was_killed
    if kills <= RETRIES:
        # A retry starts without the failed trial's process, run, error and pruner rungs.
        trial.user_attrs = {"kills": kills}
        trial.system_attrs = {
            name: value
            for name, value in trial.system_attrs.items()
            if not name.startswith("completed_rung_")
        }
        RetryHeartbeatStaleTrialCallback()(study, trial)
    if run:
        tracking.end_if_running(run, "FAILED", error)
