"""The settings of every command: one frozen dataclass each, and every default of the project.

The command line, MLproject, the recorded params and the documentation follow these classes; tests
hold them together. A value that can't be used raises `InputError` when the settings are made.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline import InputError

SplitPolicy = Literal["report", "official"]
NetworkName = Literal["report"]
OptimizerName = Literal["adam", "sgd", "momentum", "adamw", "rmsprop"]
LossName = Literal["cross_entropy", "dice", "focal"]
Precision = Literal["auto", "float32", "bfloat16"]
SplitName = Literal["train", "validation", "test"]

NONE = "none"
LATEST = "latest"


@dataclass(frozen=True)
class IngestSettings:
    """Read faces from a source, split them and keep them as a dataset."""

    source: str = "sample"
    """sample (drawn faces), a CSV (.csv, .gz, .zip), a folder of classes, or kaggle:OWNER/NAME."""
    split: SplitPolicy = "report"
    """report: 81/9/10 % at random. official: Training/PublicTest/PrivateTest as the file says."""
    seed: int = 0
    """Seed of the random split, and of the drawn faces."""

    def __post_init__(self) -> None:
        _require(
            self.source != "",
            "source",
            self.source,
            "sample, a file, a folder or kaggle:OWNER/NAME",
        )
        _require(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True)
class Training:
    """How a network is trained. The defaults are the report's baseline."""

    network: NetworkName = "report"
    """Network to train, by name (docs/training.md)."""
    epochs: int = 30
    """Passes over the training faces, at most."""
    batch_size: int = 64
    """Faces a step."""
    lr: float = 0.0001
    """Peak learning rate."""
    optimizer: OptimizerName = "adam"
    """momentum is SGD with Nesterov momentum."""
    momentum: float = 0.9
    """Momentum of the optimizer momentum, in [0, 1)."""
    weight_decay: float = 0.004
    """Decoupled weight decay of the optimizer adamw (Keras' default)."""
    loss: LossName = "cross_entropy"
    """Loss to minimise (docs/training.md)."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over the classes, in [0, 1)."""
    dropout: float = 0.25
    """Dropout rate after each group of the network, in [0, 1). The report does not give its own."""
    l2: float = 0.01
    """L2 penalty on two of the report network's convolutions. The report does not give its own."""
    width: float = 1.0
    """Factor on the channels of the convolutions; 1 is the published network."""
    kernel: int = 3
    """Side of the convolutions' kernels, in pixels, odd; 3 is the published network."""
    patience: int = 10
    """Epochs without a better validation accuracy before training stops; 0 never stops early."""
    precision: Precision = "auto"
    """Computation dtype; auto is bfloat16 where the hardware computes in it, else float32."""
    threads: int = 0
    """Threads to compute with; 0 takes one a core."""
    seed: int = 0
    """Seed of initial weights, order of faces and dropout."""
    faces: int = 0
    """Training faces to use, drawn at random by class from `seed`; 0 is all. For a quick try."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _require(_positive(self.lr), "lr", self.lr, "a finite number above 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        _require(
            _not_negative(self.weight_decay), "weight_decay", self.weight_decay, "finite, 0 or more"
        )
        _require(
            0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)"
        )
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        _require(_not_negative(self.l2), "l2", self.l2, "finite, 0 or more")
        _require(0.05 <= self.width <= 8, "width", self.width, "from 0.05 to 8")
        _require(
            self.kernel % 2 == 1 and 1 <= self.kernel <= 11,
            "kernel",
            self.kernel,
            "odd, from 1 to 11",
        )
        _require(self.patience >= 0, "patience", self.patience, "0 (off) or more")
        _require(self.threads >= 0, "threads", self.threads, "0 (one a core) or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        _require(self.faces >= 0, "faces", self.faces, "0 (all) or more")


@dataclass(frozen=True)
class TrainSettings(Training):
    """Train a network on a dataset's training split. The defaults are the report's baseline."""

    data: str = LATEST
    """A dataset folder, an ingest run's id, or latest (the newest ingest run)."""
    resume: str = NONE
    """Id of an interrupted train run to go on with, from its last finished epoch."""


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure a trained network on a split that it was not trained on."""

    run: str = LATEST
    """A train run's id, latest, a model address (models:/emotion@champion) or a .keras file."""
    data: str = NONE
    """A dataset folder or an ingest run's id; none is the dataset that the run was trained on."""
    split: SplitName = "test"
    """Split to measure on. The test split is for the end: nothing may be chosen by it."""


@dataclass(frozen=True)
class MainSettings(Training):
    """Ingest a source, train on it and evaluate, in one go. `seed` serves all three."""

    source: str = "sample"
    """sample (drawn faces), a CSV (.csv, .gz, .zip), a folder of classes, or kaggle:OWNER/NAME."""
    split: SplitPolicy = "report"
    """report: 81/9/10 % at random. official: Training/PublicTest/PrivateTest as the file says."""


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _not_negative(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _require(met: bool, name: str, value: object, expected: str) -> None:
    if not met:
        raise InputError(f"{name}={value}: expected {expected}")
