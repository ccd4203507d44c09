"""One trial of a study: a training in a process of its own, watched by the study's pruner."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline import Pruned
from pipeline.settings import EvaluateSettings, SearchSettings, TrainSettings, recipe
from search import process

if TYPE_CHECKING:
    import optuna


def trial_settings(settings: SearchSettings, data: str, point: dict[str, Any]) -> TrainSettings:
    """What a trial trains: the network's recipe, the study's own settings, those of `point`."""
    return replace(
        recipe(TrainSettings, settings.network),
        **{
            "data": data,
            "width": settings.width,
            "faces": settings.faces,
            "seed": settings.seed,
            "threads": process.threads_each(settings.workers),
            "keep": "best",  # as the pruner judges; it finds the length (`space.suggest`)
            **point,
        },
    )


def run(
    trial: "optuna.Trial",
    settings: TrainSettings,
    parent: str,
    most_epochs: int,
    *,
    beat: Callable[[], None],
    stop: threading.Event,
) -> process.Outcome:
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
                # While faces are small, validation at full size says little (`side`); and a
                # training at its last epoch has nothing left to save.
                prune = epoch > settings.small_epochs and trial.should_prune()
                return prune and epoch < settings.epochs
        return False

    tags = {"study": trial.study.study_name, "trial": trial.number}
    return process.run(train, settings, parent, "trial", tags, answer=answer, beat=beat, stop=stop)


def comparable_epoch(settings: TrainSettings, epoch: int, most_epochs: int) -> int:
    """The step at which the pruner compares a training after `epoch` (the first is 1).

    With a constant learning rate that is the epoch itself. With a schedule, which a short training
    runs through sooner than a long one, it is the same share of the longest training's epochs.
    """
    if settings.schedule == "constant":
        return epoch
    return round(epoch * most_epochs / settings.epochs)


def train(
    tell: process.Tell, settings: TrainSettings, parent: str, step: str, tags: dict[str, Any]
) -> float:
    """The job of a trial's process: record a training without its model; its best val_accuracy."""
    from pipeline import tracking
    from pipeline.train import fit, training_faces

    def report(epoch: int, logs: dict[str, float]) -> None:
        if tell(("epoch", epoch, logs["val_accuracy"])):
            raise Pruned(f"pruned after epoch {epoch}")

    name = " ".join([step, *(str(tags[tag]) for tag in ("trial", "seed") if tag in tags)])
    with tracking.record(step, settings, parent=tracking.Run(parent), name=name) as run:
        run.tag(**tags)
        tell(("run", run.id))
        fitted = fit(
            settings, training_faces(settings, run), run, on_epoch=[report], self_test=False
        )
        if fitted.best_epoch:
            best = {"best_val_accuracy": fitted.best_val_accuracy}
            run.log_metrics(best | {"best_epoch": fitted.best_epoch})
        if fitted.interrupted:
            raise KeyboardInterrupt
    return fitted.best_val_accuracy


def train_whole(tell: process.Tell, settings: TrainSettings, parent: str, digest: str) -> str:
    """A job: what `mlflow run . -e train` does, as a child run of `parent`; its run's id.

    Goes on with a training by these settings on the dataset with this digest that was stopped.
    """
    from pipeline import records, tracking
    from pipeline.train import train

    if stopped := records.unfinished(settings, digest):
        settings = TrainSettings(resume=stopped.info.run_id, data=settings.data)
    return train(settings, parent=tracking.Run(parent))


def evaluate_whole(tell: process.Tell, settings: EvaluateSettings, parent: str) -> str:
    """A job: what `mlflow run . -e evaluate` does, as a child run of `parent`; its run's id."""
    from pipeline import tracking
    from pipeline.evaluate import evaluate

    return evaluate(settings, parent=tracking.Run(parent))


def check_device(tell: process.Tell, precision: str) -> None:
    """A job: the self-test that `pipeline.train` makes, once for all trials of a command."""
    from pipeline import device

    device.self_test(device.choose_precision(precision, device.describe(device.use_threads(0))))
