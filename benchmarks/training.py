"""Time of an epoch: `train` with tracking and plain model.fit, and bfloat16 and float32.

    python -m benchmarks.training --data INGEST_RUN_ID_OR_FOLDER

Both sides train the report's network on the same faces, alternating, so that a drift of the
machine's speed affects both. An epoch includes validation, recording and the checkpoint.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import processor
from pipeline.data import TRAIN, VALIDATION, dataset, splitting
from pipeline.data.dataset import Dataset
from pipeline.networks import files
from pipeline.networks.build import build
from pipeline.runs import addresses, tracking
from pipeline.settings import TrainSettings
from pipeline.training.fit import fit
from pipeline.training.progress import EpochProgress


@dataclass(frozen=True)
class Measurement:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    faces: int = 3000
    """Training faces an epoch."""
    n: int = 5
    """Trainings of each side; each gives the mean of two epochs after one to warm up."""


def untracked_epochs(faces: Dataset, precision: str, epochs: int) -> list[float]:
    """Seconds of each epoch of `fit` without tracking."""
    ends: list[float] = []
    fit(
        TrainSettings(epochs=epochs, patience=0),
        faces,
        precision=precision,
        on_epoch=[lambda *_: ends.append(time.perf_counter())],
    )
    return np.diff(ends).tolist()


def tracked_epochs(faces: Dataset, precision: str, epochs: int) -> list[float]:
    """Seconds of each epoch of `fit` with the callbacks and the checkpoint of `pipeline.train`."""
    settings = TrainSettings(epochs=epochs, patience=0)
    ends = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tracking.record("train", settings) as run,
        EpochProgress(epochs) as progress,
    ):
        fit(
            settings,
            faces,
            precision=precision,
            on_epoch=[
                run.log_epoch,
                progress.on_epoch,
                lambda *_: ends.append(time.perf_counter()),
            ],
            on_batch=progress.on_batch,
            checkpoint=Path(folder) / "checkpoint.npz",
        )
    return np.diff(ends).tolist()


def bare_epochs(faces: Dataset, precision: str, epochs: int) -> list[float]:
    """Seconds of each epoch of Keras' model.fit with the same network and arrays."""
    settings = TrainSettings()
    keras.utils.set_random_seed(0)
    model = build(settings, precision=precision, to_train=True)
    model.compile(
        keras.optimizers.Adam(settings.lr), "categorical_crossentropy", metrics=["accuracy"]
    )
    sides = []
    for split in (TRAIN, VALIDATION):
        images, labels = faces.part(split)
        sides.append((images, np.eye(7, dtype=np.float32)[labels]))
    ends: list[float] = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: ends.append(time.perf_counter())
    )
    model.fit(
        *sides[0], batch_size=settings.batch_size, epochs=epochs, verbose=0, callbacks=[callback],
        validation_data=sides[1], validation_batch_size=files.PREDICT_BATCH,
    )  # fmt: skip
    return np.diff(ends).tolist()


def main(measurement: Measurement) -> None:
    full = dataset.load_without_test(addresses.dataset_folder(measurement.data))
    faces = splitting.subsample(full, measurement.faces, seed=0)
    rows = np.concatenate(
        [np.flatnonzero(faces.split == TRAIN), np.flatnonzero(faces.split == VALIDATION)[:500]]
    )
    faces = Dataset(faces.images[rows], faces.labels[rows], faces.split[rows], faces.about)
    with tempfile.TemporaryDirectory() as store:
        mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
        print_times(
            "train with its tracking against model.fit, bfloat16",
            {
                "model.fit": lambda: bare_epochs(faces, "bfloat16", 3),
                "train, nothing recorded": lambda: untracked_epochs(faces, "bfloat16", 3),
                "train": lambda: tracked_epochs(faces, "bfloat16", 3),
            },
            measurement,
        )
        print_times(
            "float32 against bfloat16",
            {
                "bfloat16": lambda: untracked_epochs(faces, "bfloat16", 3),
                "float32": lambda: untracked_epochs(faces, "float32", 3),
            },
            measurement,
        )


def print_times(title: str, sides: dict[str, Callable[[], list[float]]], m: Measurement) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(m.n):
        for name, side in sides.items():
            seconds[name].append(statistics.mean(side()))
    first = next(iter(seconds.values()))
    table = Table("side", "seconds an epoch (min-max)", "faces/s", "ratio (min-max)", title=title)
    for name, values in seconds.items():
        median = statistics.median(values)
        ratios = [b / a for a, b in zip(first, values, strict=True)]
        table.add_row(
            name,
            f"{median:.2f} ({min(values):.2f}-{max(values):.2f})",
            f"{m.faces / median:.0f}",
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})",
        )
    Console().print(table, f"n={m.n}, {m.faces} faces, {processor()}, Keras {keras.__version__}")


if __name__ == "__main__":
    main(tyro.cli(Measurement))
