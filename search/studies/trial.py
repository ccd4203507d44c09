"""A trial of a study: a training in a process of its own, watched by the study's pruner."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from pipeline.reports import notes
from pipeline.settings import TrainSettings
from search.jobs import TRAIN_TRIAL, job, placement
from search.studies import storage


def run(
    trial: optuna.Trial,
    settings: TrainSettings,
    parent_id: str,
    max_epochs: int,
    *,
    checkpoints: Path | None = None,
    heartbeat: Callable[[], None],
    on_epoch: Callable[[int], None] = lambda epoch: None,
    stop: threading.Event,
    run_job: placement.Run = job.run,
) -> job.Outcome:
    """Train `settings` as a child run of `parent_id`; the value is that of the best epoch.

    No trial of the study has more than `max_epochs` epochs. The id of the trial's run becomes its
    attribute `run`. A trial that repeats an interrupted one resumes from that one's checkpoint in
    the folder `checkpoints`.
    Raises optuna's UpdateFinishedTrialError if another worker has taken the trial over, since this
    one sent no heartbeat for too long. `run_job` is the slot's.
    """

    def on_message(message: Any) -> bool:
        match message:
            case ("run", run_id):
                trial.set_user_attr("run", run_id)
            case ("epoch", epoch, value):
                on_epoch(epoch)
                trial.report(value, comparable_epoch(settings, epoch, max_epochs))
                # Validation at a smaller image size doesn't compare, and a training at its last
                # epoch has nothing left to save.
                prune = epoch > settings.small_epochs and trial.should_prune()
                return prune and epoch < settings.epochs
        return False

    study = trial.study
    frozen = study.get_trials(deepcopy=False)[trial.number]
    first = storage.retry_history(frozen)[:1] or [trial.number]
    tags = {"study": study.study_name, "trial": trial.number, "first": first[0]}
    name = notes.joined(f"trial {trial.number}", *notes.words(trial.params))
    arguments = (settings, parent_id, "trial", tags, name, checkpoints)
    return run_job(
        TRAIN_TRIAL,
        *arguments,
        on_message=on_message,
        heartbeat=heartbeat,
        stop=stop,
    )


def comparable_epoch(settings: TrainSettings, epoch: int, max_epochs: int) -> int:
    """The step at which the pruner compares a training after `epoch` (the first is 1).

    With a constant learning rate that is the epoch itself. With a schedule, which a short training
    runs through sooner than a long one, it is the same share of the longest training's epochs.
    """
    if settings.schedule == "constant":
        return epoch
    return round(epoch * max_epochs / settings.epochs)
