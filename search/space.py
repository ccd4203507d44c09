"""What a search may vary, and within which bounds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline import InputError
from pipeline.settings import SIDE, ScheduleName, SearchSettings, Training, recipe

Space = Mapping[str, BaseDistribution]
Point = dict[str, Any]
"""Values by the names of `pipeline.settings.Training`."""

SHORTEST = 5
"""The shortest trial has a fifth of the most epochs; the report's shortest has 30 of its 75."""
NEEDS = {"momentum": ("optimizer", "momentum"), "weight_decay": ("optimizer", "adamw")}
"""Parameters that exist only beside this value of another one."""


def make_space(settings: SearchSettings) -> Space:
    """Bounds of a search, for trials of up to `settings.epochs` epochs.

    The narrow one holds the report's own grid, and the network's recipe. The wide one adds what the
    report wished for, other losses and the convolutions' kernel sizes and channels around
    `settings.width`, and the rest of a recipe: schedule, averaged weights, augmentation, and the
    faces' size where it is free.
    """
    most_epochs, width = settings.epochs, settings.width
    is_wide = settings.space == "wide"
    optimizers = ("adam", "sgd", "momentum", *(("adamw", "rmsprop") if is_wide else ()))
    if (own := recipe(Training, settings.network).optimizer) not in optimizers:
        optimizers += (own,)
    space: dict[str, BaseDistribution] = {
        "epochs": IntDistribution(max(1, most_epochs // SHORTEST), most_epochs),
        "batch_size": IntDistribution(8, 128, log=True),
        "lr": FloatDistribution(5e-5, 0.1, log=True),
        "optimizer": CategoricalDistribution(optimizers),
        "momentum": FloatDistribution(0.7, 0.98),
    }
    if is_wide:
        space |= {
            "weight_decay": FloatDistribution(1e-5, 0.1, log=True),
            "loss": CategoricalDistribution(("cross_entropy", "dice", "focal")),
            "label_smoothing": FloatDistribution(0.0, 0.2),
            "dropout": FloatDistribution(0.0, 0.6),
            "width": FloatDistribution(max(0.05, width / 2), min(8.0, width * 2), log=True),
            "kernel": CategoricalDistribution((3, 5)),
            "schedule": CategoricalDistribution(get_args(ScheduleName)),
            "warmup": FloatDistribution(0.0, 0.3),
            "averaging": FloatDistribution(0.0, 0.1),
            "flip": CategoricalDistribution((False, True)),
            "shift": IntDistribution(0, 6),
            "zoom": FloatDistribution(0.0, 0.2),
            "rotate": FloatDistribution(0.0, 20.0),
            "erase": IntDistribution(0, 24),
            "mixup": FloatDistribution(0.0, 0.6),
        }
    if is_wide and settings.network == "report":
        space["l2"] = FloatDistribution(1e-5, 0.03, log=True)
    elif is_wide:  # a network that takes faces of any size
        space |= {
            "side": CategoricalDistribution((32, 40, 48)),
            "grow_at": FloatDistribution(0.2, 0.5),
        }
    return space


def most_small_epochs(settings: SearchSettings) -> int:
    """The most epochs of small faces that a trial may have, in which validation says little."""
    whole = replace(recipe(Training, settings.network), epochs=settings.epochs)
    grow_at = make_space(settings).get("grow_at")
    if isinstance(grow_at, FloatDistribution):
        whole = replace(whole, side=min(SIDE - 1, whole.side), grow_at=grow_at.high)
    return whole.small_epochs


def suggest(trial: optuna.Trial, space: Space) -> Point:
    """A value for every parameter that applies: the trial's own, or from the study's sampler.

    A proposal of the sampler has the most epochs. With a constant learning rate a long training
    holds every shorter one, so the pruner and the best epoch find the length for nothing
    (DECISIONS.md has what guessing it costs).
    """
    own = trial.study.get_trials(deepcopy=False)[trial.number].system_attrs.get("fixed_params", {})
    point: Point = {}
    for name, bounds in space.items():
        if not _applies(name, point):
            continue
        if name == "epochs" and name not in own and isinstance(bounds, IntDistribution):
            bounds = IntDistribution(bounds.high, bounds.high)
        point[name] = _suggest(trial, name, bounds)
    return point


def complete(point: Point, space: Space, base: Training) -> Point:
    """`point` with what the space varies beyond it, at the values of `base`."""
    wanted = {name: getattr(base, name) for name in space if _applies(name, point)}
    return wanted | point


def check(point: Point, space: Space) -> None:
    """Raise InputError unless `point` gives every parameter that applies, each within its bounds.

    Optuna's enqueue_trial would take a misspelt name, or a value out of bounds, without a word.
    """
    expected = {name for name in space if _applies(name, point)}
    if missing := expected - point.keys():
        raise InputError(f"a point to try lacks {', '.join(sorted(missing))}")
    for name, value in point.items():
        if name not in expected:
            raise InputError(f"{name}={value}: the search does not vary this, beside {point}")
        if not _contains(space[name], value):
            raise InputError(f"{name}={value}: outside the search's bounds, {space[name]}")


def _applies(name: str, point: Point) -> bool:
    other, value = NEEDS.get(name, (None, None))
    return other is None or point.get(other) == value


def _suggest(trial: optuna.Trial, name: str, bounds: BaseDistribution) -> Any:
    match bounds:
        case IntDistribution():
            return trial.suggest_int(name, bounds.low, bounds.high, log=bounds.log)
        case FloatDistribution():
            return trial.suggest_float(name, bounds.low, bounds.high, log=bounds.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, bounds.choices)
    raise TypeError(f"{name}: no bounds that can be drawn from: {bounds}")


def _contains(bounds: BaseDistribution, value: Any) -> bool:
    match bounds:
        case IntDistribution():
            return isinstance(value, int) and bounds.low <= value <= bounds.high
        case FloatDistribution():
            return bounds.low <= value <= bounds.high
        case CategoricalDistribution():
            return value in bounds.choices
    return False
