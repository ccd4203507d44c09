"""Tasks: the functions that run as jobs."""

from typing import Any

from pipeline.errors import Pruned
from pipeline.runs import queries, tracking
from pipeline.settings import EvaluateSettings, TrainSettings
from pipeline.steps.data import load_training
from pipeline.steps.evaluate import evaluate
from pipeline.steps.train import fit_and_record, train
from pipeline.training import device
from pipeline.training.self_test import self_test
from search.jobs import job


def run_training(
    tell: job.Tell, settings: TrainSettings, parent: str, step: str, tags: dict[str, Any]
) -> float:
    """The job of a trial's process: record a training without its model; its best val_accuracy."""

    def report(epoch: int, logs: dict[str, float]) -> None:
        if tell(("epoch", epoch, logs["val_accuracy"])):
            raise Pruned(f"pruned after epoch {epoch}")

    name = " ".join([step, *(str(tags[tag]) for tag in ("trial", "seed") if tag in tags)])
    with tracking.record(step, settings, parent=tracking.Run(parent), name=name) as run:
        run.tag(**tags)
        tell(("run", run.id))
        fitted = fit_and_record(
            settings, load_training(settings, run), run, on_epoch=[report], test_device=False
        )
        if fitted.best_epoch:
            best = {"best_val_accuracy": fitted.best_val_accuracy}
            run.log_metrics(best | {"best_epoch": fitted.best_epoch})
        if fitted.interrupted:
            raise KeyboardInterrupt
    return fitted.best_val_accuracy


def train_whole(tell: job.Tell, settings: TrainSettings, parent: str, digest: str) -> str:
    """A job: what `mlflow run . -e train` does, as a child run of `parent`; its run's id.

    Goes on with a training by these settings on the dataset with this digest that was stopped.
    """
    if stopped := queries.unfinished(settings, digest):
        settings = TrainSettings(resume=stopped.info.run_id, data=settings.data)
    return train(settings, parent=tracking.Run(parent))


def evaluate_whole(tell: job.Tell, settings: EvaluateSettings, parent: str) -> str:
    """A job: what `mlflow run . -e evaluate` does, as a child run of `parent`; its run's id."""
    return evaluate(settings, parent=tracking.Run(parent))


def check_device(tell: job.Tell, precision: str) -> None:
    """A job: the self-test that `pipeline.train` makes, once for all trials of a command."""
    self_test(device.choose_precision(precision, device.describe(device.use_threads(0))))
