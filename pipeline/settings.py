"""The settings of every command: one frozen dataclass each, and every default of the project.

The command line, MLproject, the recorded params and the documentation follow these classes; tests
hold them together. A value that can't be used raises `InputError` when the settings are made.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import FlagConversionOff
from tyro.constructors import PrimitiveConstructorSpec

from pipeline import InputError

SplitPolicy = Literal["report", "official", "final"]
NetworkName = Literal["report", "compact", "strong"]
OptimizerName = Literal["adam", "sgd", "momentum", "adamw", "rmsprop"]
LossName = Literal["cross_entropy", "dice", "focal"]
ScheduleName = Literal["constant", "cosine", "one_cycle"]
ViewsName = Literal["one", "flip", "ten", "turned"]
KeepName = Literal["best", "last"]
Precision = Literal["auto", "float32", "bfloat16"]
SplitName = Literal["train", "validation", "test"]
SamplerName = Literal["tpe", "random"]
PrunerName = Literal["halving", "median", "none"]
SpaceName = Literal["narrow", "wide"]

# A bare --name as a person types it, or --name true as MLproject passes it.
Switch = Annotated[
    bool,
    FlagConversionOff,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[true|false]",
        instance_from_str=lambda words: _switch(words),
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    ),
]

NONE = "none"
LATEST = "latest"
SIDE = 48
"""Height and width of a face in pixels."""

AnyTraining = TypeVar("AnyTraining", bound="Training")


@dataclass(frozen=True)
class IngestSettings:
    """Read faces from a source, split them and keep them as a dataset."""

    source: str = "sample"
    """sample (drawn faces), a CSV (.csv, .gz, .zip), a folder of classes, or kaggle:OWNER/NAME."""
    split: SplitPolicy = "report"
    """report: 81/9/10 % at random. official: Training/PublicTest/PrivateTest as the file says.
    final: PublicTest is trained on too, when nothing is left to choose; PrivateTest is test."""
    validation: float = 0.1
    """Share of the faces not for testing that is held out for validation, in [0.01, 0.5]; with
    split=official only where the source has no validation split of its own."""
    seed: int = 0
    """Seed of the random split, and of the drawn faces."""

    def __post_init__(self) -> None:
        _require(
            self.source != "",
            "source",
            self.source,
            "sample, a file, a folder or kaggle:OWNER/NAME",
        )
        _require(0.01 <= self.validation <= 0.5, "validation", self.validation, "in [0.01, 0.5]")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")


@dataclass(frozen=True)
class Training:
    """How a network is trained. The defaults are the report's baseline.

    On a command line, `network` brings its own recipe as defaults (RECIPES, below).
    """

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
    schedule: ScheduleName = "constant"
    """Learning rate over a training: constant, or after the warm-up down to 0 by a cosine or, in
    one_cycle, by a straight line."""
    warmup: float = 0.0
    """Share of the training in which the learning rate rises to its peak, in [0, 1)."""
    averaging: float = 0.0
    """Share of the training over which weights are averaged, exponentially; the average validates
    and is kept. In [0, 1); 0 keeps the weights themselves."""
    loss: LossName = "cross_entropy"
    """Loss to minimise (docs/training.md)."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over the classes, in [0, 1)."""
    dropout: float = 0.25
    """Dropout rate in [0, 1): after each group of the report's network, whose own is not known;
    before the softmax of ours."""
    l2: float = 0.01
    """L2 penalty on two of the report network's convolutions, on all of another's. The report does
    not give its own."""
    width: float = 1.0
    """Factor on the channels of the convolutions; 1 is the published network."""
    kernel: int = 3
    """Side of the convolutions' kernels, in pixels, odd; 3 is the published network."""
    start: str = NONE
    """Trained network of the same `network`, `width` and `kernel` whose weights this one begins
    with: a train run's id, a model address or a .keras file; none draws them."""
    flip: Switch = False
    """Mirror each training face in every other epoch."""
    shift: int = 0
    """Training faces are moved by up to as many pixels, in each direction."""
    zoom: float = 0.0
    """Training faces are scaled by up to this share, up (a crop) or down, in [0, 0.5]."""
    rotate: float = 0.0
    """Training faces are turned by up to as many degrees, in [0, 45]."""
    erase: int = 0
    """Side of the largest square that is blanked in a training face, in pixels, up to 48."""
    mixup: float = 0.0
    """Training faces are mixed in pairs, by shares from Beta(mixup, mixup); 0 is off."""
    side: int = 48
    """Side of the training faces at the start, in pixels; 48 is their full size."""
    grow_at: float = 0.5
    """Share of the epochs after which faces of a smaller `side` are trained at full size."""
    views: ViewsName = "one"
    """What the kept network averages over: the face, its mirror image too, ten crops, or the face,
    as it is and turned to either side, and the mirror images of the three."""
    recalibrate: Switch = False
    """Measure the batch normalisations' means and variances anew, on training faces, before each
    validation and, in its `views`, for the kept network: training's are of moved and mixed faces,
    and of weights before they were averaged."""
    keep: KeepName = "best"
    """Epoch whose weights are kept: the best by validation accuracy, or the last, for a learning
    rate that falls to 0: then validation chooses nothing, and its accuracy flatters less."""
    patience: int = 10
    """Epochs at full size without a better validation accuracy before training stops; 0, which
    keep=last needs, is off."""
    precision: Precision = "auto"
    """Computation dtype; auto is bfloat16 where the hardware computes in it, else float32."""
    threads: int = 0
    """Threads to compute with; 0 takes one a core."""
    seed: int = 0
    """Seed of initial weights, of `faces`, their order and augmentation, and of dropout."""
    faces: int = 0
    """Training faces to use, drawn at random by class from `seed`; 0 is all. For a quick try."""

    @property
    def small_epochs(self) -> int:
        """Epochs, from the first, whose faces are smaller than full size."""
        return 0 if self.side == SIDE else round(self.grow_at * self.epochs)

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
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "in [0, 1)")
        _require(0 <= self.averaging < 1, "averaging", self.averaging, "in [0, 1)")
        _require(0 <= self.shift <= SIDE // 2, "shift", self.shift, f"from 0 to {SIDE // 2}")
        _require(0 <= self.zoom <= 0.5, "zoom", self.zoom, "in [0, 0.5]")
        _require(0 <= self.rotate <= 45, "rotate", self.rotate, "in [0, 45]")
        _require(0 <= self.erase <= SIDE, "erase", self.erase, f"from 0 to {SIDE}")
        _require(_not_negative(self.mixup), "mixup", self.mixup, "finite, 0 or more")
        _require(16 <= self.side <= SIDE, "side", self.side, f"from 16 to {SIDE}")
        _require(
            self.side == SIDE or self.network != "report",
            "side",
            self.side,
            f"{SIDE} with network=report, whose dense layers need it",
        )
        _require(
            self.views != "ten" or self.network != "report",
            "views",
            self.views,
            "one, flip or turned with network=report, whose dense layers need whole faces",
        )
        _require(0 <= self.grow_at <= 1, "grow_at", self.grow_at, "in [0, 1]")
        _require(self.patience >= 0, "patience", self.patience, "0 (off) or more")
        _require(
            self.keep == "best" or self.patience == 0,
            "patience",
            self.patience,
            "0 with keep=last; keep=best can stop early",
        )
        _require(self.threads >= 0, "threads", self.threads, "0 (one a core) or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        _require(self.faces >= 0, "faces", self.faces, "0 (all) or more")


RECIPES: dict[NetworkName, dict[str, Any]] = {
    "report": {},
    "compact": {
        "epochs": 50,
        "batch_size": 128,
        "lr": 0.004,
        "optimizer": "adamw",
        "weight_decay": 0.03,
        "schedule": "cosine",
        "warmup": 0.1,
        "averaging": 0.06,
        "label_smoothing": 0.1,
        "dropout": 0.2,
        "l2": 0.0,
        "flip": True,
        "shift": 3,
        "zoom": 0.1,
        "rotate": 10.0,
        "side": 32,
        "views": "turned",
        "recalibrate": True,
        "keep": "last",
        "patience": 0,
    },
}
RECIPES["strong"] = RECIPES["compact"] | {
    "epochs": 92,
    "lr": 0.1,
    "optimizer": "momentum",
    "l2": 0.00025,
    "dropout": 0.3,
    "shift": 4,
    "zoom": 0.15,
    "rotate": 15.0,
    "mixup": 0.2,
    "erase": 12,
}
"""What suits a network, where it differs from the defaults above; docs/training.md says why."""


def recipe(settings_class: type[AnyTraining], network: NetworkName) -> AnyTraining:
    """The defaults of `settings_class` for a network."""
    return settings_class(network=network, **RECIPES[network])


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
class PredictSettings:
    """Say what networks read in a few faces."""

    runs: str = "models/compact.keras"
    """What evaluate takes as `run`; several with commas between."""
    faces: str = "sample"
    """sample (a drawn face of each class), or a picture of one face, cut close."""


@dataclass(frozen=True)
class MainSettings(Training):
    """Ingest a source, train on it and evaluate, in one go. `seed` serves all three."""

    source: str = "sample"
    """sample (drawn faces), a CSV (.csv, .gz, .zip), a folder of classes, or kaggle:OWNER/NAME."""
    split: Literal["report", "official"] = "report"
    """report: 81/9/10 % at random. official: Training/PublicTest/PrivateTest as the file says."""


@dataclass(frozen=True)
class SearchSettings:
    """Search for better settings: a study of many trainings, each a child run of the study's run.

    The same command continues a study. Its data, network, width, epochs, faces, space and seed stay
    as they were, so that its trials compare.
    """

    study: str = "emotion"
    """Name of the study; a name that is on record is continued."""
    trials: int = 20
    """Trials of the whole study, those of earlier commands and other workers included."""
    timeout: float = 0.0
    """Seconds after which this command begins no further trial; 0 is no limit."""
    workers: int = 2
    """Trainings at a time; each gets its share of the cores."""
    storage: str = "sqlite:///optuna.db"
    """Database of the study, as an SQLAlchemy address. Workers on other machines give the same."""
    data: str = LATEST
    """A dataset folder, an ingest run's id, or latest: the study's own, else the newest ingest."""
    network: NetworkName = "compact"
    """Network to train, by name (docs/training.md)."""
    width: float = 0.25
    """Factor on the network's channels: 0.25 is quick, on the sample above all; 1 is the whole."""
    epochs: int = 20
    """Most epochs of a trial. The grid's own, up to 75, are scaled to it."""
    faces: int = 0
    """Training faces of a trial, drawn at random by class from `seed`; 0 is all."""
    sampler: SamplerName = "tpe"
    """What proposes settings: tpe learns from the trials before, random does not."""
    pruner: PrunerName = "halving"
    """What ends a hopeless trial early (docs/search.md)."""
    seed: int = 0
    """Seed of the proposals, and of every trial's training."""
    space: SpaceName = "narrow"
    """narrow: batch size, learning rate, optimizer. wide: also the loss, the schedule, the moves of
    the faces, and the network's own (docs/search.md)."""
    no_grid: Switch = False
    """Leave out the report's own settings, which are otherwise tried before any proposal."""
    confirm: int = 3
    """Seeds on which each of the best settings is trained again before one is chosen."""

    def __post_init__(self) -> None:
        _require(self.study.strip() != "", "study", self.study, "a name")
        _require(self.trials >= 1, "trials", self.trials, "1 or more")
        _require(_not_negative(self.timeout), "timeout", self.timeout, "seconds, 0 (off) or more")
        _require(self.workers >= 1, "workers", self.workers, "1 or more")
        _require(
            "://" in self.storage,
            "storage",
            self.storage,
            "an address such as sqlite:///optuna.db or postgresql://host/name",
        )
        _require(0.05 <= self.width <= 8, "width", self.width, "from 0.05 to 8")
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.faces >= 0, "faces", self.faces, "0 (all) or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        _require(self.confirm >= 1, "confirm", self.confirm, "1 or more")


@dataclass(frozen=True)
class GridSettings:
    """Train and evaluate the report's 13 settings and set our figures beside its own."""

    data: str = LATEST
    """A dataset folder, an ingest run's id, or latest (the newest ingest run)."""
    width: float = 1.0
    """Factor on the channels of the report's network; 1 is the published network."""
    epochs_scale: float = 1.0
    """Factor on the report's epochs, for a quick try; at least one epoch is trained."""
    faces: int = 0
    """Training faces to use, drawn at random by class from `seed`; 0 is all."""
    workers: int = 1
    """Trainings at a time; each gets its share of the cores."""
    seed: int = 0
    """Seed of every training."""

    def __post_init__(self) -> None:
        _require(0.05 <= self.width <= 8, "width", self.width, "from 0.05 to 8")
        _require(
            _positive(self.epochs_scale), "epochs_scale", self.epochs_scale, "a number above 0"
        )
        _require(self.faces >= 0, "faces", self.faces, "0 (all) or more")
        _require(self.workers >= 1, "workers", self.workers, "1 or more")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")


@dataclass(frozen=True)
class CompareSettings:
    """Tell which of several networks is better, on the same test faces, and which can't be told."""

    runs: str = NONE
    """Ids of two or more evaluate runs, or evaluated train runs, with commas between."""

    def __post_init__(self) -> None:
        ids = self.ids
        _require(
            len(ids) >= 2 and len(set(ids)) == len(ids),
            "runs",
            self.runs,
            "two or more different run ids, with commas between",
        )

    @property
    def ids(self) -> list[str]:
        return [run.strip() for run in self.runs.split(",") if run.strip() and run != NONE]


def _switch(words: list[str]) -> bool:
    text = words[0].lower() if words else "true"
    if text not in ("true", "false"):
        raise ValueError(f"{words[0]}: expected true or false, or nothing for true")
    return text == "true"


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _not_negative(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _require(met: bool, name: str, value: object, expected: str) -> None:
    if not met:
        raise InputError(f"{name}={value}: expected {expected}")
