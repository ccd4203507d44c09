"""Tasks: the functions that run as jobs."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.data import SIDE
from pipeline.errors import Pruned
from pipeline.networks.build import build
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
    """Record a training without its model; returns the value of its best epoch.

    A trial that repeats a killed or interrupted one (tag `first`) resumes from its checkpoint.
    """
    metric = f"val_{settings.monitor}"

    def report(epoch: int, logs: dict[str, float]) -> None:
        if send(("epoch", epoch, logs[metric])):
            raise Pruned(f"pruned after epoch {epoch}")

    name = " ".join([step, *(str(tags[tag]) for tag in ("trial", "seed") if tag in tags)])
    checkpoint = _checkpoint(tags)
    ended = False
    try:
        with tracking.record(step, settings, parent=tracking.Run(parent_id), name=name) as run:
            run.tag(**tags)
            send(("run", run.id))
            faces = load_training(settings, run)
            result = fit_and_record(
                settings, faces, run,
                on_epoch=[report], test_device=False, checkpoint=checkpoint,
            )  # fmt: skip
            if result.best_epoch:
                best = {f"best_{metric}": result.best_value(settings.monitor)}
                run.log_metrics(best | {"best_epoch": result.best_epoch})
            if result.interrupted:
                raise KeyboardInterrupt
        ended = True
    except KeyboardInterrupt:
        raise
    except BaseException:
        ended = True
        raise
    finally:
        if ended and checkpoint:
            checkpoint.unlink(missing_ok=True)
    return result.best_value(settings.monitor)


def _checkpoint(tags: dict[str, Any]) -> Path | None:
    """The file from which a repeated trial resumes; other trainings of a study have none."""
    if "first" not in tags:
        return None
    study = hashlib.sha256(str(tags["study"]).encode()).hexdigest()[:12]
    return queries.CHECKPOINTS / f"study-{study}-trial-{tags['first']}.npz"


def train_child(send: job.Send, settings: TrainSettings, parent_id: str, digest: str) -> str:
    """Train as `mlflow run . -e train` does, as a child run of `parent_id`; returns its run's id.

    Resumes a training with these settings on the dataset with this digest that was stopped.
    """
    if stopped := queries.resumable_run(settings, digest):
        settings = TrainSettings(resume=stopped.info.run_id, data=settings.data)
    return train(settings, parent=tracking.Run(parent_id))


def evaluate_child(send: job.Send, settings: EvaluateSettings, parent_id: str) -> str:
    """Evaluate as `mlflow run . -e evaluate` does, as a child run of `parent_id`."""
    return evaluate(settings, parent=tracking.Run(parent_id))


def check_device(send: job.Send, precision: str) -> None:
    """Self-test the device as `pipeline.train` does, once for all trials of a command."""
    self_test(device.choose_precision(precision, device.describe(device.use_threads(0))))


def measure(send: job.Send, settings: TrainSettings) -> dict[str, int]:
    """Parameters, and multiply-adds a face of 48x48 pixels, of the network of `settings`."""
    model = build(settings, precision="float32")
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    outputs = keras.Model(model.inputs, [layer.output for layer in layers])
    shapes = [np.shape(out) for out in outputs(np.zeros((1, SIDE, SIDE, 1), np.float32))]
    multiply_adds = sum(
        int(np.prod(layer.kernel.shape)) * int(np.prod(shape[1:-1]))
        for layer, shape in zip(layers, shapes, strict=True)
    )
    return {"parameters": model.count_params(), "multiply_adds": multiply_adds}
