"""Learning curves for the search benchmark: a full grid of real trainings.

    python -m benchmarks.record_curves --data INGEST_RUN_ID_OR_FOLDER

5 learning rates x 4 batch sizes x 3 optimizers, 20 epochs each, of the report's network at a
quarter of its width on 2,000 training and 1,000 validation faces of FER2013. The metrics go to
benchmarks/curves.csv, a row an epoch. It takes 1 to 2 hours on 2 cores, and a repeated command
continues from there.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from pipeline.data import TRAIN, VALIDATION, dataset
from pipeline.data.dataset import Dataset
from pipeline.runs import addresses
from pipeline.settings import TrainSettings
from pipeline.training import device
from pipeline.training.fit import fit

FILE = Path(__file__).with_name("curves.csv")
LRS = (0.0001, 0.0003, 0.001, 0.003, 0.01)
BATCH_SIZES = (16, 32, 64, 128)
OPTIMIZERS: tuple[str, ...] = ("adam", "sgd", "momentum")
EPOCHS = 20
BASE = TrainSettings(epochs=EPOCHS, width=0.25, dropout=0.1, l2=0.001, patience=0)


@dataclass(frozen=True)
class Recording:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    threads: int = 0
    """Threads to compute with; 0 takes one a core."""


def main(recording: Recording) -> None:
    faces = subset(dataset.load_without_test(addresses.dataset_folder(recording.data)))
    threads = device.use_threads(recording.threads)
    precision = device.choose_precision("auto", device.describe(threads))
    done = set() if not FILE.exists() else recorded()
    for optimizer, batch_size, lr in itertools.product(OPTIMIZERS, BATCH_SIZES, LRS):
        if (optimizer, batch_size, lr) in done:
            continue
        settings = replace(BASE, optimizer=optimizer, batch_size=batch_size, lr=lr)
        result = fit(settings, faces, precision=precision)
        if result.interrupted:
            raise KeyboardInterrupt
        curve = pd.DataFrame(result.history)[["train/loss", "val/loss", "val/accuracy"]].round(5)
        curve.columns = curve.columns.str.replace("/", "_")
        point = {"optimizer": optimizer, "batch_size": batch_size, "lr": lr}
        for name, value in reversed(point.items()):
            curve.insert(0, name, value)
        curve.insert(3, "epoch", range(1, EPOCHS + 1))
        curve.to_csv(FILE, mode="a", header=not FILE.exists(), index=False)
        print(f"{point} best validation accuracy {result.best_val_accuracy:.3f}", flush=True)


def recorded() -> set[tuple[str, int, float]]:
    curves = pd.read_csv(FILE)
    return set(zip(curves["optimizer"], curves["batch_size"], curves["lr"], strict=True))


def subset(full: Dataset) -> Dataset:
    """2,000 training and 1,000 validation faces, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    chosen = [
        rng.choice(np.flatnonzero(full.split == split), count, replace=False)
        for split, count in ((TRAIN, 2000), (VALIDATION, 1000))
    ]
    rows = np.sort(np.concatenate(chosen))
    return Dataset(full.images[rows], full.labels[rows], full.split[rows], full.about)


if __name__ == "__main__":
    main(tyro.cli(Recording))
