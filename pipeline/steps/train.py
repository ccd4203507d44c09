"""Train: fit a network on a dataset and record it."""

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
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings
from pipeline.steps.data import load_training
from pipeline.steps.resume import resumed, take_over
from pipeline.training import device
from pipeline.training.fit import OnEpoch, TrainResult, fit
from pipeline.training.progress import EpochProgress
from pipeline.training.self_test import self_test


def train(settings: TrainSettings, parent: Run | None = None) -> str:
    """Record a training and return its run's id. Ctrl-C saves what was reached, then goes on up."""
    settings = resumed(settings)
    with tracking.record("train", settings, parent=parent) as run:
        faces = load_training(settings, run)
        with EpochProgress(settings.epochs) as progress:
            fitted = fit_and_record(
                settings,
                faces,
                run,
                on_epoch=[progress.on_epoch],
                on_batch=progress.on_batch,
                checkpoint=run.checkpoint,
            )
        _record(fitted, faces, run)
        if fitted.interrupted and run.checkpoint.exists():
            print(f"interrupted; go on with: python -m pipeline.train --resume {run.id}")
        if fitted.interrupted:
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
    """`training.fit` on this computer; what computes and every epoch are put on record.

    So are the seconds that this took, as `recording_seconds`.
    """
    computer = device.describe(device.use_threads(settings.threads))
    precision = device.choose_precision(settings.precision, computer)
    about = {f"device.{name}": value for name, value in asdict(computer).items()}
    run.tag(precision=precision, **about)
    if test_device:
        self_test(precision)
    initial = None
    if settings.resume is not None:
        take_over(settings.resume, faces, run)  # and with the checkpoint its weights
    elif settings.init_from is not None:
        initial = _load_initial(settings.init_from, run)
    recording = 0.0

    def record(epoch: int, logs: dict[str, float]) -> None:
        nonlocal recording
        began = time.perf_counter()
        try:
            for call in (run.log_epoch, *on_epoch):
                call(epoch, logs)
        finally:
            recording += time.perf_counter() - began

    try:
        return fit(
            settings, faces, precision=precision, initial=initial, on_epoch=[record], **options
        )
    finally:
        run.log_metrics({"recording_seconds": recording})


def _load_initial(address: str, run: Run) -> keras.Model:
    """The network to begin with; which file it was, and who trained it, is put on record."""
    file, trained_by = addresses.model_file(address)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    run.tag(start_digest=digest, start_trained_by=trained_by or "unknown")
    return files.load(file)


def _record(fitted: TrainResult, faces: Dataset, run: Run) -> None:
    """Put the network, its curves and its validation report on record, numbers before pictures."""
    if fitted.model is None:
        return
    run.log_metrics(
        {"best_val_accuracy": fitted.best_val_accuracy, "best_epoch": fitted.best_epoch}
    )
    run.log_text(files.summary(fitted.model), "network.txt")
    run.log_model(fitted.model)
    images, labels = faces.part(VALIDATION)
    result = metrics.compute(labels, files.predict(fitted.model, images))
    with TemporaryDirectory() as scratch:
        artifacts.write(result, "validation", Path(scratch))
        plots.curves(fitted.history, fitted.best_epoch, Path(scratch) / "curves.png")
        run.log_files(Path(scratch))
    print(f"validation accuracy {metrics.accuracy_text(result)}, epoch {fitted.best_epoch}")
    print(f"train run {run.id}")
