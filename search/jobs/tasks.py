"""Tasks: the functions that run as jobs."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.data import SIDE
from pipeline.errors import InputError, Pruned, TrainingError, note
from pipeline.networks.build import build
from pipeline.percent import percent
from pipeline.reports import notes
from pipeline.runs import environment, queries, tracking
from pipeline.settings import EvaluateSettings, TrainSettings
from pipeline.steps.data import load_training
from pipeline.steps.evaluate import evaluate
from pipeline.steps.train import fit_and_record, repeatable_note, train
from pipeline.training import device
from pipeline.training.checkpoint import remove, require_whole
from pipeline.training.fit import TrainResult
from pipeline.training.self_test import self_test
from search.jobs import job

environment.environment()  # read once by the fork server, for all of its jobs


def train_trial(
    send: job.Send,
    settings: TrainSettings,
    parent_id: str,
    step: str,
    tags: dict[str, Any],
    name: str,
    checkpoints: Path | None = None,
) -> float:
    """Record a training without its model; returns the value of its best epoch.

    `name` is the run's, to which the result is added. A trial that repeats a killed or interrupted
    one (tag `first`) resumes from its checkpoint in the folder `checkpoints`.
    """
    monitor = settings.monitor

    def report(epoch: int, logs: dict[str, float]) -> None:
        if send(("epoch", epoch, logs[f"val/{monitor}"])):
            raise Pruned(f"pruned after epoch {epoch}")

    with tracking.record(step, settings, parent=tracking.Run(parent_id), name=name) as run:
        run.tag(**tags)
        send(("run", run.id))
        faces = load_training(settings, run)
        checkpoint = checkpoints and _checkpoint(checkpoints, tags, settings, faces.digest)
        options: dict[str, Any] = {"test_device": False, "checkpoint": checkpoint}
        try:
            result = fit_and_record(settings, faces, run, on_epoch=[report], **options)
        except (Pruned, TrainingError) as error:  # not repeated
            _remove(checkpoint)
            run.rename(notes.joined(name, "pruned" if isinstance(error, Pruned) else "failed"))
            raise
        if result.best_epoch:
            best = {f"val/best_{monitor}": result.best_value(monitor)}
            run.log_metrics(best | {"best_epoch": result.best_epoch})
            _tell_result(result, run, name)
        if result.interrupted:
            raise KeyboardInterrupt
    _remove(checkpoint)
    return result.best_value(monitor)


def _tell_result(result: TrainResult, run: tracking.Run, name: str) -> None:
    """Put the result of a training without a model into its run's name and description."""
    monitor = result.settings.monitor
    value = result.best_value(monitor)
    text = f"{value:.4f}" if monitor == "loss" else percent(value)
    epochs = f"epoch {result.best_epoch} of {len(result.history)}"
    line = f"**Validation {monitor.replace('_', ' ')} {text}**, {epochs}. No model is kept."
    run.describe(notes.paragraphs(line, repeatable_note(result.settings, run)))
    run.rename(notes.joined(name, text))


def _checkpoint(folder: Path, tags: dict[str, Any], settings: TrainSettings, digest: str) -> Path:
    """The file from which a repeated trial resumes, on any machine; a damaged one is deleted."""
    same = replace(settings, data="", threads=0)
    key = repr((tags["study"], tags["first"], same, digest))
    file = folder / f"trial-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if file.exists():
        try:
            require_whole(file)
        except InputError as error:
            note(f"{error}; the trial begins anew")
            remove(file)
    return file


def _remove(checkpoint: Path | None) -> None:
    if checkpoint:
        remove(checkpoint)


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


def measure(send: job.Send, settings: TrainSettings, classes: int) -> dict[str, int]:
    """Parameters, and multiply-adds a face of 48x48 pixels, of the network of `settings`."""
    model = build(settings, precision="float32", classes=classes)
    layers = [layer for layer in model.layers if _kernels(layer)]
    outputs = keras.Model(model.inputs, [layer.output for layer in layers])
    shapes = [np.shape(out) for out in outputs([np.zeros((1, SIDE, SIDE, 1), np.float32)])]
    multiply_adds = sum(
        math.prod(kernel) * math.prod(shape[1:-1])
        for layer, shape in zip(layers, shapes, strict=True)
        for kernel in _kernels(layer)
    )
    return {"parameters": model.count_params(), "multiply_adds": multiply_adds}


def _kernels(layer: keras.Layer) -> list[tuple[int, ...]]:
    """Shapes of a layer's kernels; a separable convolution has two."""
    return [tuple(weight.shape) for weight in layer.weights if weight.name.endswith("kernel")]
