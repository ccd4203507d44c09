"""Registry of names in the settings; a setting also takes `package.module:name`.

Functions are registered by reference and imported on use, so that this module does not import
Keras. Modules of the user are found from the working folder.

Signatures of the functions:

network    (settings: Hyperparameters, normalise: Normalise, classes: int) -> keras.Model. Its
           input are grey levels 0-255, (N, 48, 48, 1) or (N, None, None, 1), its output
           probabilities, (N, classes), in float32. `normalise()` creates a batch normalisation
           layer; a function without the parameter `classes` is for seven. It may have an attribute
           `recipe`, a dict of settings that differ from the defaults.
loss       (settings: Hyperparameters) -> keras.losses.Loss, for targets (one-hot labels, or
           shares of votes) and probabilities, (b, classes).
optimizer  (learning_rate, settings: Hyperparameters) -> keras.optimizers.Optimizer. Known names are
           those of `keras.optimizers.get`, and momentum, which is SGD with Nesterov momentum.
source     (seed: int) -> pipeline.data.dataset.Faces.
"""

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, reason


@dataclass(frozen=True)
class Network:
    """A network: the reference of its function, and its recipe (settings other than defaults)."""

    function: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    any_size: bool = True
    """Whether its input may be images of any size."""


COMPACT = {
    "epochs": 50,
    "batch_size": 128,
    "lr": 0.004,
    "optimizer": "adamw",
    "weight_decay": 0.03,
    "schedule": "cosine",
    "warmup": 0.1,
    "ema": 0.06,
    "label_smoothing": 0.1,
    "dropout": 0.2,
    "l2": 0.0,
    "flip": True,
    "shift": 3,
    "zoom": 0.1,
    "rotate": 10.0,
    "image_size": 32,
    "tta": "flip_rotate",
    "recalibrate_bn": True,
    "keep_epoch": "last",
    "patience": 0,
}
STRONG = COMPACT | {
    "epochs": 92,
    "lr": 0.1,
    "optimizer": "momentum",
    "l2": 0.00025,
    "dropout": 0.3,
    "shift": 4,
    "zoom": 0.15,
    "rotate": 15.0,
    "mixup": 0.2,
    "cutout": 12,
}
NETWORKS = {
    "report": Network("pipeline.networks.report:report", any_size=False),
    "compact": Network("pipeline.networks.residual:compact", COMPACT),
    "strong": Network("pipeline.networks.residual:strong", STRONG),
}
"""Networks by name. The experiments behind the recipes are in docs/lab/recipes.md."""
LOSSES = {
    "cross_entropy": "pipeline.training.losses:cross_entropy",
    "dice": "pipeline.training.losses:SoftDice",
    "focal": "pipeline.training.losses:focal",
}
OPTIMIZERS = (
    "adam", "sgd", "momentum", "adamw", "rmsprop", "adadelta", "adafactor", "adagrad", "adamax",
    "ftrl", "lion", "muon", "nadam", "schedulefreeadamw",
)  # fmt: skip
"""momentum, and the names that `keras.optimizers.get` knows in Keras 3.15."""
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""`package.module:name`."""


def load(value: str, known: Mapping[str, str], setting: str) -> Any:
    """Import the object of `value`, a known name or `package.module:name`.

    Raises InputError, naming `setting`, if the module or the name in it can't be imported.
    """
    module, _, name = known.get(value, value).partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's module can raise any error
        raise InputError(
            f"{setting}={value}: can't be imported from the working folder or the environment "
            f"({type(error).__name__}: {reason(error)})"
        ) from error


def recipe(network: str) -> Mapping[str, Any]:
    """Recipe of a network, by name or `module:function`: its settings other than defaults."""
    if network in NETWORKS:
        return NETWORKS[network].recipe
    return getattr(load(network, {}, "network"), "recipe", {}) if ":" in network else {}
