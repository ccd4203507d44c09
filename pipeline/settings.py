"""Settings of the pipeline's commands: a frozen dataclass for each command.

A field declares type, default, help, bounds and search range of a setting. The command line, the
checks, the recorded params, the search spaces and docs/settings.md are derived from it.
"""

import math
import textwrap
from collections.abc import Collection
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pipeline import registry
from pipeline.data import SIDE
from pipeline.data.classes import parse_names
from pipeline.errors import InputError

LATEST = "latest"
MAX_SEED = 2**32 - 1
MOST = 10**9
"""Highest value of a whole number that has no limit of its own."""
AnySettings = TypeVar("AnySettings", bound="Settings")
AnyHyperparameters = TypeVar("AnyHyperparameters", bound="Hyperparameters")


@dataclass(frozen=True)
class Range:
    """Search range [low, high]; `log` is a logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Setting:
    """Metadata of a setting.

    Bounds: `low` and `high` are included, `above` and `below` excluded; a float must be finite.
    `known` are the names that it takes; if it is `open`, `package.module:name` is taken too.
    `search` is what the wide search space varies, and `when` the (setting, value) without which
    this one has no effect. With `repeat` an option may be given several times; one that is
    `positional` takes the words without a name, too.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    known: Collection[str] = ()
    open: bool = False
    search: Range | tuple[Any, ...] | None = None
    when: tuple[str, Any] | None = None
    repeat: bool = False
    positional: bool = False


@dataclass(frozen=True)
class Field:
    """A field of a settings class, with its metadata and the class that declares it (its group)."""

    name: str
    kind: Any
    default: Any
    setting: Setting
    group: "type[Settings]"

    @property
    def optional(self) -> bool:
        return type(None) in get_args(self.kind)

    @property
    def plain_type(self) -> type:
        """int, float, bool or str."""
        if get_origin(self.kind) is Literal:
            return str
        return next(t for t in (*get_args(self.kind), self.kind) if t is not type(None))

    @property
    def choices(self) -> tuple[str, ...]:
        """The valid names; empty if other values are valid too."""
        if get_origin(self.kind) is Literal:
            return get_args(self.kind)
        return () if self.setting.open else tuple(self.setting.known)

    @property
    def bounds(self) -> str:
        """The valid values as text; empty if every value of the type is valid."""
        setting = self.setting
        if self.choices or setting.known:
            names = ", ".join(self.choices or setting.known)
            return f"one of {names}" + (", or package.module:name" if setting.open else "")
        if setting.low is not None and (setting.high is not None or setting.below is not None):
            if self.plain_type is int:
                return f"from {setting.low:.10g} to {setting.high:.10g}"
            end = f"{setting.below:g})" if setting.below is not None else f"{setting.high:g}]"
            return f"in [{setting.low:g}, {end}"
        number = "a finite number" if self.plain_type is float else ""
        if setting.above is not None:
            return f"{number} above {setting.above:g}".strip()
        if setting.low is not None:
            return f"{number}, {setting.low:g} or more".removeprefix(", ")
        return number

    def accepts(self, value: Any) -> bool:
        """Whether `value`, of the right type, is within the bounds."""
        setting = self.setting
        if value is None:
            return self.optional
        if isinstance(value, str):
            names = self.choices or setting.known
            return not names or value in names or (setting.open and is_reference(value))
        return not (
            (isinstance(value, float) and not math.isfinite(value))
            or (setting.low is not None and value < setting.low)
            or (setting.high is not None and value > setting.high)
            or (setting.above is not None and value <= setting.above)
            or (setting.below is not None and value >= setting.below)
        )

    def parse(self, text: str) -> Any:
        """Convert `text` to the setting's type. Raises ValueError."""
        if self.optional and text == "None":
            return None
        if self.plain_type is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError(f"{text}: expected true or false, or nothing for true")
            return text.lower() == "true"
        return self.plain_type(text)


@dataclass(frozen=True)
class Settings:
    """Base class of all settings. Raises InputError for a value out of its bounds."""

    def __post_init__(self) -> None:
        for field in self.fields().values():
            value = getattr(self, field.name)
            require(field.accepts(value), field.name, value, field.bounds)
            if isinstance(value, int):
                require(value <= (field.setting.high or MOST), field.name, value, f"at most {MOST}")
        self.check()

    def check(self) -> None:
        """Check settings that depend on each other. Raises InputError."""

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """The fields by name, grouped by base class; those of the class itself come last."""
        cached: dict[str, Field] = _fields(cls)  # type: ignore[arg-type]
        return cached


@cache
def _fields(cls: type[Settings]) -> dict[str, Field]:
    hints = get_type_hints(cls, include_extras=True)
    groups = [base for base in _leaves(cls) if base is not Settings]
    found = {}
    for group in groups:
        for name in group.__annotations__:
            annotated = get_args(hints[name])
            default = next(f.default for f in fields(cls) if f.name == name)
            found[name] = Field(name, annotated[0], default, annotated[1], group)
    return found


def _leaves(cls: type) -> list[type]:
    """Base classes of `cls` that declare fields, in order, and `cls` itself if it does."""
    below = [leaf for base in cls.__bases__ if base is not object for leaf in _leaves(base)]
    return [*dict.fromkeys(below), *([cls] if cls.__annotations__ else [])]


def is_reference(value: str) -> bool:
    """Whether `value` has the form `package.module:name`."""
    return registry.REFERENCE.fullmatch(value) is not None


def require(met: bool, name: str, value: object, expected: str) -> None:
    """Raise InputError, naming the setting and the `expected` values, unless `met`."""
    if not met:
        raise InputError(f"{name}={value}: expected {expected}")


DATA = Annotated[
    str, Setting("A dataset folder, an ingest run's id, or latest (the newest ingest run).")
]
MAX_TRAIN_FACES = Annotated[
    int,
    Setting("Training images to use, stratified by class, drawn with `seed`; 0 is all.", low=0),
]


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """network"""

    network: Annotated[str, Setting("Network to train.", known=registry.NETWORKS, open=True)] = (
        "report"
    )
    width: Annotated[
        float,
        Setting(
            "Factor on the channels of the convolutions; 1 is the size in docs/training.md.",
            low=0.05,
            high=8,
        ),
    ] = 1.0
    kernel: Annotated[
        int,
        Setting(
            "Side of the convolution kernels, in pixels, odd; one convolution of each network has "
            "a kernel larger by 2.",
            low=1,
            high=11,
            search=(3, 5),
        ),
    ] = 3
    dropout: Annotated[
        float,
        Setting(
            "Dropout rate: in `report` after each group of layers (the published report does not "
            "give its rate); in `compact` and `strong` before the softmax layer.",
            low=0,
            below=1,
            search=Range(0, 0.6),
        ),
    ] = 0.25
    init_from: Annotated[
        str | None,
        Setting(
            "Trained network from whose weights the training starts (fine-tuning): a train run's "
            "id, a model address or a .keras file, of the same `network`, `width` and `kernel`."
        ),
    ] = None
    tta: Annotated[
        Literal["none", "flip", "ten_crop", "flip_rotate"],
        Setting(
            "Test-time augmentation, which becomes part of the saved network: the mean over none "
            "(the image alone), flip (2 views: the image and its mirror image), ten_crop (10 "
            "crops) or flip_rotate (6: the image, its rotations by 10 degrees to either side, and "
            "the mirror images of the three). Predicting takes as many times as long."
        ),
    ] = "none"
    recalibrate_bn: Annotated[
        bool,
        Setting(
            "Re-estimate the means and variances of batch normalisation on training images, before "
            "each validation and for the saved network; otherwise they are moving averages."
        ),
    ] = False
    calibrate: Annotated[
        bool,
        Setting(
            "Divide the logits of the saved network by the temperature with the least log-loss on "
            "the validation split (temperature scaling); the predicted classes stay the same."
        ),
    ] = False


@dataclass(frozen=True)
class OptimizerSettings(Settings):
    """optimizer"""

    optimizer: Annotated[
        str,
        Setting(
            "Optimizer; momentum is SGD with Nesterov momentum.",
            known=registry.OPTIMIZERS,
            open=True,
            search=("adam", "sgd", "momentum", "adamw", "rmsprop"),
        ),
    ] = "adam"
    lr: Annotated[
        float,
        Setting(
            "Learning rate; its peak where it varies.", above=0, search=Range(5e-5, 0.1, log=True)
        ),
    ] = 0.0001
    momentum: Annotated[
        float,
        Setting(
            "Momentum of optimizer=momentum.",
            low=0,
            below=1,
            search=Range(0.7, 0.98),
            when=("optimizer", "momentum"),
        ),
    ] = 0.9
    weight_decay: Annotated[
        float,
        Setting(
            "Decoupled weight decay of optimizer=adamw (Keras' default).",
            low=0,
            search=Range(1e-5, 0.1, log=True),
            when=("optimizer", "adamw"),
        ),
    ] = 0.004
    batch_size: Annotated[
        int, Setting("Images per step.", low=1, search=Range(8, 128, log=True))
    ] = 64
    ema: Annotated[
        float,
        Setting(
            "Exponential moving average (EMA) of the weights: its window, as a share of the "
            "training; 0 is off. The averaged weights are validated and saved.",
            low=0,
            below=1,
            search=Range(0, 0.1),
        ),
    ] = 0.0


@dataclass(frozen=True)
class ScheduleSettings(Settings):
    """schedule"""

    epochs: Annotated[int, Setting("Passes over the training images, at most.", low=1)] = 30
    schedule: Annotated[
        Literal["constant", "cosine", "one_cycle"],
        Setting(
            "Learning rate after the warm-up: constant, or falling to 0 along half a cosine "
            "(cosine) or a straight line (one_cycle).",
            search=("constant", "cosine", "one_cycle"),
        ),
    ] = "constant"
    warmup: Annotated[
        float,
        Setting(
            "Share of the training in which the learning rate rises linearly from 0 to `lr`.",
            low=0,
            below=1,
            search=Range(0, 0.3),
        ),
    ] = 0.0


@dataclass(frozen=True)
class LossSettings(Settings):
    """loss"""

    targets: Annotated[
        Literal["auto", "votes", "hard"],
        Setting(
            "Targets of training and validation: votes (soft labels: each class's share of an "
            "image's votes; accuracy is against their majority), or hard (the dataset's one label "
            "per image); auto is votes where the dataset has them."
        ),
    ] = "auto"
    loss: Annotated[
        str,
        Setting(
            "Loss to minimise.",
            known=registry.LOSSES,
            open=True,
            search=("cross_entropy", "dice", "focal"),
        ),
    ] = "cross_entropy"
    label_smoothing: Annotated[
        float,
        Setting(
            "Label smoothing: the share of each target that is spread evenly over the classes.",
            low=0,
            below=1,
            search=Range(0, 0.2),
        ),
    ] = 0.0
    l2: Annotated[
        float,
        Setting(
            "L2 penalty on the weights of convolutions: in `report` of the first two with 512 "
            "channels (the published report does not give its penalty), in `compact` and `strong` "
            "of all.",
            low=0,
            search=Range(1e-5, 0.03, log=True),
        ),
    ] = 0.01


@dataclass(frozen=True)
class AugmentationSettings(Settings):
    """augmentation of the training faces"""

    flip: Annotated[
        bool,
        Setting("Mirror each image, left to right, in every other epoch.", search=(False, True)),
    ] = False
    shift: Annotated[
        int,
        Setting(
            "Largest random shift, in pixels, in each direction.",
            low=0,
            high=SIDE // 2,
            search=Range(0, 6),
        ),
    ] = 0
    zoom: Annotated[
        float,
        Setting(
            "Largest random change of scale, as a share: 0.1 is 0.9 to 1.1 times the size.",
            low=0,
            high=0.5,
            search=Range(0, 0.2),
        ),
    ] = 0.0
    rotate: Annotated[
        float, Setting("Largest random rotation, in degrees.", low=0, high=45, search=Range(0, 20))
    ] = 0.0
    cutout: Annotated[
        int,
        Setting(
            "Cutout: the largest side, in pixels, of a random square that is filled with the "
            "image's mean; 0 is off.",
            low=0,
            high=SIDE,
            search=Range(0, 24),
        ),
    ] = 0
    mixup: Annotated[
        float,
        Setting(
            "Mixup: mix images and their targets in pairs, with weights from Beta(mixup, mixup); "
            "0 is off.",
            low=0,
            high=100,
            search=Range(0, 0.6),
        ),
    ] = 0.0
    image_size: Annotated[
        int,
        Setting(
            "Side, in pixels, of the images at the start of a training (progressive resizing: "
            f"smaller images train faster); {SIDE}, full size, turns it off.",
            low=16,
            high=SIDE,
            search=(32, 40, SIDE),
        ),
    ] = SIDE
    resize_at: Annotated[
        float,
        Setting(
            "Share of the epochs, from the first, that are trained at a smaller `image_size`; the "
            "others are at full size.",
            low=0,
            high=1,
            search=Range(0.2, 0.5),
        ),
    ] = 0.5


@dataclass(frozen=True)
class StoppingSettings(Settings):
    """early stopping and the epoch that is saved"""

    patience: Annotated[
        int,
        Setting(
            "Early stopping: epochs at full image size without a better value of `monitor` after "
            "which training ends; 0 turns it off, and keep_epoch=last needs that.",
            low=0,
        ),
    ] = 10
    monitor: Annotated[
        Literal["accuracy", "macro_f1", "balanced_accuracy", "loss"],
        Setting("Validation metric by which keep_epoch=best and `patience` compare epochs."),
    ] = "accuracy"
    keep_epoch: Annotated[
        Literal["best", "last"],
        Setting(
            "Epoch whose weights are saved: best (by `monitor`), or last, which suits a learning "
            "rate that falls to 0. Choosing the best makes its validation accuracy optimistic."
        ),
    ] = "best"


@dataclass(frozen=True)
class RunSettings(Settings):
    """run"""

    seed: Annotated[
        int,
        Setting(
            "Seed of initial weights, of the choice, order and augmentation of images, and of "
            "dropout.",
            low=0,
            high=MAX_SEED,
        ),
    ] = 0
    max_train_faces: MAX_TRAIN_FACES = 0
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Setting(
            "Computation dtype; auto is bfloat16 where the hardware computes in it, else float32. "
            "The saved network is float32."
        ),
    ] = "auto"
    threads: Annotated[
        int, Setting("Threads to compute with; 0 is one per core.", low=0, high=1024)
    ] = 0


@dataclass(frozen=True)
class Hyperparameters(
    NetworkSettings, OptimizerSettings, ScheduleSettings, LossSettings, AugmentationSettings,
    StoppingSettings, RunSettings,
):  # fmt: skip
    """Hyperparameters of a training. The defaults are the report's baseline.

    On a command line the recipe of `network` (pipeline/registry.py) replaces the defaults.
    """

    @property
    def small_epochs(self) -> int:
        """Number of epochs, from the first, at a smaller image size."""
        return 0 if self.image_size == SIDE else round(self.resize_at * self.epochs)

    def check(self) -> None:
        fixed_size = (
            self.network in registry.NETWORKS and not registry.NETWORKS[self.network].any_size
        )
        require(self.kernel % 2 == 1, "kernel", self.kernel, "odd, from 1 to 11")
        require(
            self.image_size == SIDE or not fixed_size,
            "image_size",
            self.image_size,
            f"{SIDE} with network={self.network}, whose dense layers need it",
        )
        require(
            self.tta != "ten_crop" or not fixed_size,
            "tta",
            self.tta,
            f"none, flip or flip_rotate with network={self.network}, whose dense layers need whole "
            "faces",
        )
        require(
            self.keep_epoch == "best" or self.patience == 0,
            "patience",
            self.patience,
            "0 with keep_epoch=last; keep_epoch=best can stop early",
        )


def recipe(settings_class: type[AnyHyperparameters], network: str) -> AnyHyperparameters:
    """Settings with the defaults and the recipe of a network."""
    return settings_class(network=network, **registry.recipe(network))


@dataclass(frozen=True)
class SourceSettings(Settings):
    """data"""

    source: Annotated[
        str,
        Setting(
            "sample (drawn faces), a CSV (.csv, .csv.gz), a folder of classes, an archive (.zip, "
            ".tar.gz) of either, kaggle:OWNER/NAME, or package.module:function. Several with "
            "commas between are joined, each image once."
        ),
    ] = "sample"
    names: Annotated[
        str | None,
        Setting(
            "Classes of class folders that have other names, such as 1:surprise,2:fear, or of a "
            "CSV's codes from 7. For several sources one list for all, or one for each with "
            "semicolons between."
        ),
    ] = None
    drop: Annotated[
        str | None, Setting("Classes, or class folders, to leave out, with commas between.")
    ] = None
    labels: Annotated[
        str | None,
        Setting(
            "A CSV of votes in the form of FER+ (fer2013new.csv), whose rows are the source's "
            "faces in the source's order."
        ),
    ] = None
    split: Annotated[
        Literal["report", "official", "final"],
        Setting(
            "report: 81/9/10 % at random. official: Training/PublicTest/PrivateTest as the "
            "file says. final: PublicTest is trained on too, when nothing is left to choose; "
            "PrivateTest is test."
        ),
    ] = "report"
    validation: Annotated[
        float,
        Setting(
            "Share of the faces not for testing that is held out for validation; with "
            "split=official only where the source has no validation split of its own.",
            low=0.01,
            high=0.5,
        ),
    ] = 0.1

    def check(self) -> None:
        expected = "sample, a file, a folder or kaggle:OWNER/NAME"
        require("" not in map(str.strip, self.source.split(",")), "source", self.source, expected)
        parse_names(self.names)
        alone = self.drop is None or self.labels is None
        require(
            alone, "labels", self.labels, "no drop= beside it: its rows are all of the source's"
        )


@dataclass(frozen=True)
class IngestSettings(SourceSettings):
    """Read faces from a source, split them and record them as a dataset."""

    seed: Annotated[
        int,
        Setting("Seed of the random split, and of the drawn faces.", low=0, high=MAX_SEED),
    ] = 0


@dataclass(frozen=True)
class TrainSettings(Hyperparameters):
    """Train a network on a dataset's training split. The defaults are the report's baseline."""

    data: DATA = LATEST
    resume: Annotated[
        str | None,
        Setting(
            "Id of an interrupted train run to continue from its last finished epoch, in the same "
            "folder. Its settings are taken over."
        ),
    ] = None
    seeds: Annotated[
        str | None,
        Setting(
            "Several seeds instead of `seed`, with commas between: a group of trainings, one for "
            "each seed, with mean and standard deviation. The same command continues an "
            "interrupted group."
        ),
    ] = None

    def check(self) -> None:
        super().check()
        if self.seeds is not None:
            expected = f"two or more different seeds from 0 to {MAX_SEED}, with commas between"
            given = [seed.strip() for seed in self.seeds.split(",")]
            whole = all(seed.isdecimal() and int(seed) <= MAX_SEED for seed in given)
            several = len(given) > 1 and len({*given}) == len(given)
            require(whole and several, "seeds", self.seeds, expected)
            require(self.resume is None, "resume", self.resume, "no seeds= beside it")

    @property
    def seed_list(self) -> list[int]:
        """The seeds of a group; the one seed where `seeds` is not given."""
        return [int(seed) for seed in self.seeds.split(",")] if self.seeds else [self.seed]


@dataclass(frozen=True)
class MainSettings(Hyperparameters, SourceSettings):
    """Ingest a source, train on it and evaluate, in sequence. `seed` is used by all three."""

    def check(self) -> None:
        Hyperparameters.check(self)
        SourceSettings.check(self)
        expected = "report or official, since a final split may leave no test faces to evaluate on"
        require(self.split != "final", "split", self.split, expected)


@dataclass(frozen=True)
class EvaluateSettings(Settings):
    """Evaluate a trained network on a split of a dataset, usually test."""

    run: Annotated[
        str,
        Setting(
            "A train run's or a group's id, latest, a model address (models:/emotion@champion), or "
            "a .keras or .onnx file."
        ),
    ] = LATEST
    data: Annotated[
        str | None,
        Setting(
            "A dataset folder or an ingest run's id; left out, it is the dataset that the run "
            "was trained on."
        ),
    ] = None
    split: Annotated[
        Literal["train", "validation", "test"],
        Setting(
            "Split to evaluate on. Compare and choose networks on validation; test is for the end, "
            "since choosing by it makes its accuracy optimistic."
        ),
    ] = "test"


@dataclass(frozen=True)
class AuditSettings(Settings):
    """List the training images whose labels are most doubtful to networks not trained on them."""

    data: DATA = LATEST
    folds: Annotated[
        int,
        Setting(
            "Folds of the train split (cross-validation); the labels of each are judged by a "
            "network that is trained on the others.",
            low=2,
            high=20,
        ),
    ] = 3
    network: Annotated[
        str, Setting("Network to train, by its recipe.", known=registry.NETWORKS, open=True)
    ] = "compact"
    width: Annotated[
        float,
        Setting(
            "Factor on the network's channels; 1 is the size in docs/training.md.", low=0.05, high=8
        ),
    ] = 0.5
    epochs: Annotated[int, Setting("Passes over the training images, for each fold.", low=1)] = 8
    faces: Annotated[
        int, Setting("Images on doubts.png, the most doubtful first.", low=1, high=600)
    ] = 60
    seed: Annotated[
        int, Setting("Seed of the folds and of the trainings.", low=0, high=MAX_SEED)
    ] = 0
    threads: Annotated[
        int, Setting("Threads to compute with; 0 is one per core.", low=0, high=1024)
    ] = 0


@dataclass(frozen=True)
class PredictSettings(Settings):
    """Find the faces in pictures and videos, and predict the expression of each."""

    images: Annotated[
        str,
        Setting(
            "Pictures, folders or archives of pictures, and videos, also without `--images` before "
            "them, or with semicolons between; sample is a drawn face of each class.",
            repeat=True,
            positional=True,
        ),
    ] = "sample"
    runs: Annotated[
        str,
        Setting(
            "Networks: .onnx files, which need no Keras, or what evaluate takes as `run`; several "
            "with commas between. Of a run, its exported float32 file is used if it has one."
        ),
    ] = "models/compact-votes-int8.onnx"
    find: Annotated[
        bool,
        Setting(
            "Find the faces in each picture; false takes each picture as one face, cut close. "
            "Needs requirements-faces.txt."
        ),
    ] = True
    unsure: Annotated[
        float,
        Setting(
            "A prediction of a lower probability is marked as unsure (docs/predict.md says how "
            "often such predictions are right).",
            low=0,
            high=1,
        ),
    ] = 0.5
    every: Annotated[
        float, Setting("Seconds of a video between the frames that are read.", above=0, high=3600)
    ] = 1.0
    format: Annotated[
        Literal["table", "csv", "json"], Setting("What is printed, or written to `out`.")
    ] = "table"
    out: Annotated[str | None, Setting("File to write in place of printing.")] = None
    annotate: Annotated[
        str | None,
        Setting(
            "Folder for copies of the pictures with boxes and the first network's predictions."
        ),
    ] = None


@dataclass(frozen=True)
class EnsembleSettings(Settings):
    """Write one network that answers with the mean of several trained ones."""

    run: Annotated[
        str,
        Setting(
            "Two networks or more, with commas between: train runs' ids, groups' ids (all their "
            "trainings), model addresses or .keras files; must be given."
        ),
    ] = ""
    data: Annotated[
        str | None,
        Setting(
            "A dataset folder or an ingest run's id, whose validation faces compare the ensemble "
            "with its members; left out, it is the dataset that the first run was trained on."
        ),
    ] = None
    file: Annotated[str, Setting("File to write; its run keeps a copy.")] = "ensemble.keras"

    def check(self) -> None:
        require(bool(self.run.strip()), "run", self.run, "addresses with commas between")
        require(self.file.endswith(".keras"), "file", self.file, "a name that ends with .keras")


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Write a trained network as ONNX files, which ONNX Runtime computes without Keras."""

    run: Annotated[
        str,
        Setting("A train run's id, latest, a model address, or a .keras file."),
    ] = LATEST
    tta: Annotated[
        Literal["own", "none", "flip", "ten_crop", "flip_rotate"],
        Setting(
            "Test-time augmentation of the files: the network's own, none (1 view, the fastest), "
            "flip (2 views), ten_crop (10) or flip_rotate (6)."
        ),
    ] = "own"
    precision: Annotated[
        Literal["both", "float32", "int8"],
        Setting(
            "Files to write: float32, int8 (8-bit integers: a quarter of the size, nearly the same "
            "predictions; the command says how near) or both."
        ),
    ] = "both"
    data: Annotated[
        str | None,
        Setting(
            "A dataset folder or an ingest run's id, whose training faces calibrate int8 and whose "
            "validation faces compare the files with Keras; left out, it is the dataset that the "
            "run was trained on."
        ),
    ] = None
    folder: Annotated[str, Setting("Folder for the files; the model's run keeps copies.")] = (
        "exported"
    )


@dataclass(frozen=True)
class PageSettings(Settings):
    """Serve a page that reads expressions in the browser, or write its files for a web server."""

    networks: Annotated[
        str | None,
        Setting(
            ".onnx files with commas between, the first of which is chosen at the start; left out, "
            "models/compact-votes-int8.onnx and the ten newest files that export has recorded."
        ),
    ] = None
    out: Annotated[
        str | None, Setting("Folder for the files; left out, they are served on this computer.")
    ] = None
    port: Annotated[int, Setting("Port on 127.0.0.1; 0 takes a free one.", low=0, high=65535)] = (
        8000
    )


@dataclass(frozen=True)
class ReportSettings(Settings):
    """Write the tables and plots of the published report, from recorded runs, as one HTML page.

    The newest study follows them. Nothing is trained: what is missing is named with the command
    that adds it.
    """

    data: DATA = LATEST
    file: Annotated[str, Setting("File to write; the run keeps a copy.")] = "report.html"


COLUMNS = ("setting", "default", "values", "searched", "what it is")
"""Of the tables in docs/settings.md."""
Row = tuple[str, str, str, str, str]
"""A setting's cells, by COLUMNS."""


def markdown(*classes: type[Settings]) -> str:
    """Content of docs/settings.md: a section for each class, a table row for each setting.

    A class whose rows all stand above gets a sentence that names their sections. A table has no
    empty column.
    """
    parts = []
    above: dict[str, dict[str, Row]] = {}  # rows by section and setting
    for cls in classes:
        title = cls.__name__.removesuffix("Settings").lower()
        rows = {field.name: _row(field) for field in cls.fields().values()}
        about = " ".join((cls.__doc__ or "").split())
        columns = [
            column for column in zip(COLUMNS, *rows.values(), strict=True) if any(column[1:])
        ]
        head, *lines = (f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))
        body = "\n".join([head, f"|{'---|' * len(columns)}", *lines])
        if places := _sections(rows, above):
            links = " and ".join(f"[{place}](#{place})" for place in places)
            others = {name: None for place in places for name in above[place] if name not in rows}
            without = ", ".join(f"`{name}`" for name in others)
            body = f"It has the settings of {links}" + (f", without {without}." if others else ".")
        parts.append(f"## {title}\n\n{textwrap.fill(about, 100)}\n\n{body}\n")
        above[title] = rows
    return "\n".join(parts)


def _sections(rows: dict[str, Row], above: dict[str, dict[str, Row]]) -> list[str]:
    """The sections of `above` that have all of `rows`; empty if they lack one."""
    places = [place for place, known in above.items() if rows.items() & known.items()]
    found = {item for place in places for item in above[place].items()}
    return places if rows.items() <= found else []


def _row(field: Field) -> Row:
    default = "" if field.default in (None, "", MISSING) else f"`{field.default}`"
    search = field.setting.search
    searched = ""
    if isinstance(search, Range):
        searched = f"{search.low:g} to {search.high:g}{', log' if search.log else ''}"
    elif search:
        searched = ", ".join(map(str, search))
    if field.setting.when and searched:
        searched += " with {}={}".format(*field.setting.when)
    return f"`{field.name}`", default, field.bounds, searched, field.setting.help
