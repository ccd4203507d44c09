"""Ablation of compact's recipe: the recipe without one part, or with one part more.

    python -m benchmarks.ablation --data INGEST_RUN_ID_OR_FOLDER

Every row trains `compact` at a quarter of its width on 2,000 training faces, with 3 seeds. The
number of epochs (50) and the ratio of faces to parameters are about those of the full size, since
the effect of a regulariser depends on both. The last epoch is saved, so nothing is chosen by
validation accuracy, which is compared with the recipe's by seed, with Student's interval over the
seeds. Test-time augmentation is evaluated on the recipe's networks. Results go to
benchmarks/ablation.csv, and a repeated command continues from there: remove that file for other
data or settings. It takes about an hour on 2 cores.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks import processor
from pipeline.data import VALIDATION, dataset, splitting
from pipeline.data.dataset import Dataset
from pipeline.networks import files
from pipeline.percent import percent
from pipeline.runs import addresses
from pipeline.settings import TrainSettings, recipe
from pipeline.training import device
from pipeline.training.fit import fit, kept_network

FILE = Path(__file__).with_name("ablation.csv")
BASE = replace(recipe(TrainSettings, "compact"), width=0.25, max_train_faces=2000)
RECIPE = "the recipe"
ROWS: dict[str, dict[str, Any]] = {
    RECIPE: {},
    "constant learning rate": {"schedule": "constant"},
    "one_cycle for cosine": {"schedule": "one_cycle"},
    "no warm-up": {"warmup": 0.0},
    "momentum for AdamW": {"optimizer": "momentum", "lr": 0.1, "l2": 0.00025},
    "no weight decay": {"weight_decay": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "no dropout": {"dropout": 0.0},
    "no averaged weights": {"ema": 0.0},
    "no flip": {"flip": False},
    "no shift": {"shift": 0},
    "no zoom": {"zoom": 0.0},
    "no rotation": {"rotate": 0.0},
    "48 pixels from the start": {"image_size": 48},
    "and cutout=12": {"cutout": 12},
    "and mixup=0.2": {"mixup": 0.2},
    "no recalibration": {"recalibrate_bn": False},
}
TTA: dict[str, Any] = {"one view": "none", "two views": "flip", "ten views": "ten_crop"}


@dataclass(frozen=True)
class Ablation:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    seeds: int = 3
    """Trainings of each row, 2 or more: the interval is over them."""

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise SystemExit("seeds: expected 2 or more, for an interval")


def main(ablation: Ablation) -> None:
    faces = dataset.load_without_test(addresses.dataset_folder(ablation.data))
    precision = device.choose_precision("auto", device.describe(device.use_threads(0)))
    for seed in range(ablation.seeds):  # by seed, so that an interrupted command has full tables
        for name, change in ROWS.items():
            if not _is_measured(name, seed):
                _measure(name, replace(BASE, **change, seed=seed), faces, precision)
    rows = pd.read_csv(FILE).drop_duplicates(["row", "seed"], keep="last")
    rows = rows[rows["seed"] < ablation.seeds]
    Console(width=110).print(_table(rows), processor())


def _is_measured(name: str, seed: int) -> bool:
    if not FILE.exists():
        return False
    rows = pd.read_csv(FILE)
    return bool(((rows["row"] == name) & (rows["seed"] == seed)).any())


def _measure(name: str, settings: TrainSettings, faces: Dataset, precision: str) -> None:
    start = time.perf_counter()
    subset = splitting.subsample(faces, settings.max_train_faces, settings.seed)
    result = fit(settings, subset, precision=precision)
    if result.interrupted or result.model is None:
        raise KeyboardInterrupt
    weights = files.get_state(result.model.get_layer(settings.network).weights)
    seconds = time.perf_counter() - start
    images, labels = faces.part(VALIDATION)
    # The row that `_is_measured` looks for comes last, in case of an interruption.
    rows = (TTA if name == RECIPE else {}) | {name: settings.tta}
    for row, tta in rows.items():
        network = kept_network(replace(settings, tta=tta), subset, weights)
        accuracy = np.mean(files.predict(network, images).argmax(axis=1) == labels)
        _append(row, settings.seed, float(accuracy), seconds)


def _append(row: str, seed: int, accuracy: float, seconds: float) -> None:
    figures = {"row": [row], "seed": [seed], "accuracy": [round(accuracy, 4)]}
    figures["seconds"] = [round(seconds)]
    pd.DataFrame(figures).to_csv(FILE, mode="a", header=not FILE.exists(), index=False)
    print(f"{row}, seed {seed}: {accuracy:.3f} in {seconds:.0f} s", flush=True)


def _table(rows: pd.DataFrame) -> Table:
    by_seed = rows.pivot(index="seed", columns="row", values="accuracy")
    seconds = rows.groupby("row")["seconds"].median()
    table = Table("row", "validation accuracy", "against the recipe (95 %)", "seconds")
    for name in (*ROWS, *TTA):
        gain = (by_seed[name] - by_seed[RECIPE]).to_numpy() * 100
        half = stats.sem(gain) * stats.t.ppf(0.975, len(gain) - 1)
        difference = f"{gain.mean():+.1f} ({gain.mean() - half:+.1f} to {gain.mean() + half:+.1f})"
        table.add_row(
            name,
            percent(by_seed[name].mean()),
            "" if name == RECIPE else difference,
            f"{seconds[name]:.0f}",
        )
    return table


if __name__ == "__main__":
    main(tyro.cli(Ablation))
