"""Trial of a study: a training in a child process, under the control of the study's pruner."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from pipeline.settings import TrainSettings, recipe
from search.jobs import TRAIN_TRIAL, job
from search.settings import SearchSettings


def trial_settings(settings: SearchSettings, data: str, point: dict[str, Any]) -> TrainSettings:
    """Settings of a trial's training: the network's recipe, then the study's, then `point`."""
    return replace(
        recipe(TrainSettings, settings.network),
        **{
            "data": data,
            "width": settings.width,
            "max_train_faces": settings.max_train_faces,
            "seed": settings.seed,
            "threads": job.threads_each(settings.workers),
            "keep_epoch": "best",  # like the pruner; determines the length (`space.suggest`)
            **point,
        },
    )


def run(
    trial: optuna.Trial,
    settings: TrainSettings,
    parent_id: str,
    max_epochs: int,
    *,
    heartbeat: Callable[[], None],
    stop: threading.Event,
) -> job.Outcome:
    """Train a trial's settings as a child run; the outcome's value is the best val_accuracy.

    No trial of the study has more than `max_epochs` epochs. The id of the child run is recorded as
    the trial's user attribute `run`. Raises optuna's UpdateFinishedTrialError if another worker has
    taken over the trial because of missing heartbeats.
    """

    def on_message(message: Any) -> bool:
        match message:
            case ("run", run_id):
                trial.set_user_attr("run", run_id)
            case ("epoch", epoch, val_accuracy):
                trial.report(val_accuracy, comparable_epoch(settings, epoch, max_epochs))
                # No pruning while training images are smaller than validation images, nor after
                # the last epoch, when nothing is left to save.
                prune = epoch > settings.small_epochs and trial.should_prune()
                return prune and epoch < settings.epochs
        return False

    tags = {"study": trial.study.study_name, "trial": trial.number}
    return job.run(
        TRAIN_TRIAL,
        settings,
        parent_id,
        "trial",
        tags,
        on_message=on_message,
        heartbeat=heartbeat,
        stop=stop,
    )


def comparable_epoch(settings: TrainSettings, epoch: int, max_epochs: int) -> int:
    """Step at which the pruner compares a training after `epoch` (the first is 1).

    With a constant learning rate it is the epoch. With a schedule, which depends on the length of
    the training, it is the same share of `max_epochs`.
    """
    if settings.schedule == "constant":
        return epoch
    return round(epoch * max_epochs / settings.epochs)
