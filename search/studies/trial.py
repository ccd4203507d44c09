"""A trial of a study: a training in a process of its own, watched by the study's pruner."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from pipeline.settings import TrainSettings, recipe
from search.jobs import RUN_TRAINING, job
from search.settings import SearchSettings


def trial_settings(settings: SearchSettings, data: str, point: dict[str, Any]) -> TrainSettings:
    """What a trial trains: the network's recipe, the study's own settings, those of `point`."""
    return replace(
        recipe(TrainSettings, settings.network),
        **{
            "data": data,
            "width": settings.width,
            "max_train_faces": settings.max_train_faces,
            "seed": settings.seed,
            "threads": job.threads_each(settings.workers),
            "keep_epoch": "best",  # as the pruner judges; it finds the length (`space.suggest`)
            **point,
        },
    )


def run(
    trial: optuna.Trial,
    settings: TrainSettings,
    parent: str,
    most_epochs: int,
    *,
    beat: Callable[[], None],
    stop: threading.Event,
) -> job.Outcome:
    """Train a trial's settings as a child of the run `parent`; how that ended, with the best
    val_accuracy as its value.

    No trial of the study has more than `most_epochs` epochs.
    Its run's id goes onto the trial as `run`. Raises optuna's UpdateFinishedTrialError if another
    worker has taken the trial over, since this one gave no sign of life for too long.
    """

    def answer(message: Any) -> bool:
        match message:
            case ("run", run_id):
                trial.set_user_attr("run", run_id)
            case ("epoch", epoch, val_accuracy):
                trial.report(val_accuracy, comparable_epoch(settings, epoch, most_epochs))
                # While faces are small, validation at full size says little (`image_size`); and a
                # training at its last epoch has nothing left to save.
                prune = epoch > settings.small_epochs and trial.should_prune()
                return prune and epoch < settings.epochs
        return False

    tags = {"study": trial.study.study_name, "trial": trial.number}
    return job.run(
        RUN_TRAINING, settings, parent, "trial", tags, answer=answer, beat=beat, stop=stop
    )


def comparable_epoch(settings: TrainSettings, epoch: int, most_epochs: int) -> int:
    """The step at which the pruner compares a training after `epoch` (the first is 1).

    With a constant learning rate that is the epoch itself. With a schedule, which a short training
    runs through sooner than a long one, it is the same share of the longest training's epochs.
    """
    if settings.schedule == "constant":
        return epoch
    return round(epoch * most_epochs / settings.epochs)
