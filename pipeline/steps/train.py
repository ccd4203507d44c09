"""Training of a network on a dataset, recorded as a run."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from pipeline.data import VALIDATION
from pipeline.data.dataset import Dataset
from pipeline.networks import files
from pipeline.reports import artifacts, metrics, plots
from pipeline.runs import addresses, tracking
from pipeline.runs.metric_names import RECORDING_SECONDS
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings
from pipeline.steps.data import load_training
from pipeline.steps.resume import move_checkpoint, resumed_settings
from pipeline.training import device
from pipeline.training.fit import OnEpoch, TrainResult, fit
from pipeline.training.progress import EpochProgress
from pipeline.training.self_test import self_test


def train(settings: TrainSettings, parent: Run | None = None) -> str:
    """Record a training and return its run's id.

    Raises KeyboardInterrupt after Ctrl-C, once the results so far are recorded.
    """
    settings = resumed_settings(settings)
    with tracking.record("train", settings, parent=parent) as run:
        faces = load_training(settings, run)
        with EpochProgress(settings.epochs) as progress:
            result = fit_and_record(
                settings,
                faces,
                run,
                on_epoch=[progress.on_epoch],
                on_batch=progress.on_batch,
                checkpoint=run.checkpoint,
            )
        _record(result, faces, run, settings.monitor)
        if result.interrupted and run.checkpoint.exists():
            print(f"interrupted; resume with: python -m pipeline.train --resume {run.id}")
        if result.interrupted:
            raise KeyboardInterrupt
    run.checkpoint.unlink(missing_ok=True)
    return run.id


def fit_and_record(
    settings: TrainSettings,
    faces: Dataset,
    run: Run,
    *,
    on_epoch: Sequence[OnEpoch],
    test_device: bool = True,
    **options: Any,
) -> TrainResult:
    """Train with `fit` on the device of this machine; record the device and every epoch.

    The metric time/recording_seconds is the time spent on recording and in `on_epoch`.
    """
    computer = device.describe(device.use_threads(settings.threads))
    precision = device.choose_precision(settings.precision, computer)
    about = {f"device.{name}": value for name, value in asdict(computer).items()}
    run.tag(precision=precision, **about)
    if test_device:
        self_test(precision)
    initial = None
    if settings.resume is not None:
        move_checkpoint(settings.resume, faces, run)  # which has the weights
    elif settings.init_from is not None:
        initial = _load_initial(settings.init_from, run)
    recording = 0.0

    def record(epoch: int, logs: dict[str, float]) -> None:
        nonlocal recording
        start = time.perf_counter()
        try:
            for call in (run.log_epoch, *on_epoch):
                call(epoch, logs)
        finally:
            recording += time.perf_counter() - start

    try:
        return fit(
            settings, faces, precision=precision, initial=initial, on_epoch=[record], **options
        )
    finally:
        run.log_metrics({RECORDING_SECONDS: recording})


def _load_initial(address: str, run: Run) -> keras.Model:
    """Load the network with the initial weights; tag its file's digest and its train run."""
    file, trained_by = addresses.model_file(address)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    run.tag(start_digest=digest, start_trained_by=trained_by or "unknown")
    return files.load(file)


def _record(result: TrainResult, faces: Dataset, run: Run, monitor: str) -> None:
    """Log the network, its learning curves and its metrics on validation; metrics come first."""
    if result.model is None:
        return
    names = {"accuracy", monitor}
    best = {f"val/best_{name}": result.best_value(name) for name in names}
    run.log_metrics(best | {"best_epoch": result.best_epoch})
    run.log_text(files.summary(result.model), "network.txt")
    run.log_model(result.model)
    images, labels = faces.part(VALIDATION)
    evaluation = metrics.compute(labels, files.predict(result.model, images))
    with TemporaryDirectory() as scratch:
        artifacts.write(evaluation, "validation", Path(scratch))
        plots.curves(result.history, result.best_epoch, Path(scratch) / "curves.png")
        run.log_files(Path(scratch))
    print(f"validation accuracy {metrics.accuracy_text(evaluation)}, epoch {result.best_epoch}")
    print(f"train run {run.id}")
