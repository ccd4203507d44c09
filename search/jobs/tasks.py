"""Tasks: functions that run as jobs."""

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


def train_trial(
    send: job.Send, settings: TrainSettings, parent_id: str, step: str, tags: dict[str, Any]
) -> float:
    """Train for a trial, recorded without the model; returns the best validation accuracy."""

    def send_epoch(epoch: int, logs: dict[str, float]) -> None:
        if send(("epoch", epoch, logs["val_accuracy"])):
            raise Pruned(f"pruned after epoch {epoch}")

    name = " ".join([step, *(str(tags[tag]) for tag in ("trial", "seed") if tag in tags)])
    with tracking.record(step, settings, parent=tracking.Run(parent_id), name=name) as run:
        run.tag(**tags)
        send(("run", run.id))
        result = fit_and_record(
            settings, load_training(settings, run), run, on_epoch=[send_epoch], test_device=False
        )
        if result.best_epoch:
            best = {"best_val_accuracy": result.best_val_accuracy}
            run.log_metrics(best | {"best_epoch": result.best_epoch})
        if result.interrupted:
            raise KeyboardInterrupt
    return result.best_val_accuracy


def train_child(send: job.Send, settings: TrainSettings, parent_id: str, digest: str) -> str:
    """Train as a child run of `parent_id`, like `mlflow run . -e train`; returns the run's id.

    A stopped training with these settings on the dataset with this digest is resumed.
    """
    if stopped := queries.resumable_run(settings, digest):
        settings = TrainSettings(resume=stopped.info.run_id, data=settings.data)
    return train(settings, parent=tracking.Run(parent_id))


def evaluate_child(send: job.Send, settings: EvaluateSettings, parent_id: str) -> str:
    """Evaluate as a child run of `parent_id`, like `mlflow run . -e evaluate`; returns its id."""
    return evaluate(settings, parent=tracking.Run(parent_id))


def check_device(send: job.Send, precision: str) -> None:
    """Run the device's self-test, once for all trials of a command."""
    self_test(device.choose_precision(precision, device.describe(device.use_threads(0))))
