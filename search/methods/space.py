"""Search spaces: the settings that a search varies, and their ranges."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline import registry
from pipeline.data import SIDE
from pipeline.registry import NETWORKS
from pipeline.settings import Hyperparameters, Range, recipe
from search.methods import SPACES
from search.settings import SearchSettings

Space = dict[str, BaseDistribution]
Point = dict[str, Any]
"""Values by the names of `pipeline.settings.Hyperparameters`."""
EPOCHS_RATIO = 5
"""Ratio of the largest to the smallest number of epochs; in the report it is 75 to 30."""
NARROW = ("batch_size", "lr", "optimizer", "momentum")
NARROW_OPTIMIZERS = ("adam", "sgd", "momentum")


def make_space(settings: SearchSettings) -> Space:
    """Search space of `settings`, by the settings' names, for trials of up to `epochs` epochs."""
    return dict(registry.load(settings.space, SPACES, "space")(settings))


def narrow(settings: SearchSettings) -> Space:
    """Batch size, learning rate, optimizer and epochs; it contains the report's grid."""
    ranges = {name: Hyperparameters.fields()[name].setting.search for name in NARROW}
    return _epochs(settings) | _space(settings, ranges | {"optimizer": NARROW_OPTIMIZERS})


def wide(settings: SearchSettings) -> Space:
    """Every setting that has a search range, with the network's width around `settings.width`.

    L2 is varied only for the report's network, since weight decay has the same effect for others;
    the image size only for networks that take images of any size.
    """
    ranges = {name: field.setting.search for name, field in Hyperparameters.fields().items()}
    any_size = settings.network in NETWORKS and NETWORKS[settings.network].any_size
    for name in ("l2",) if any_size else ("image_size", "resize_at"):
        del ranges[name]
    width = Range(max(0.05, settings.width / 2), min(8.0, settings.width * 2), log=True)
    return _epochs(settings) | _space(settings, ranges | {"width": width})


def _epochs(settings: SearchSettings) -> Space:
    return {"epochs": IntDistribution(max(1, settings.epochs // EPOCHS_RATIO), settings.epochs)}


def _space(settings: SearchSettings, ranges: Mapping[str, Range | tuple[Any, ...] | None]) -> Space:
    """Optuna's distributions of `ranges`, without None, and with the recipe's optimizer."""
    space: Space = {}
    own = recipe(Hyperparameters, settings.network).optimizer
    for name, values in ranges.items():
        if isinstance(values, Range):
            is_integer = Hyperparameters.fields()[name].plain_type is int
            kind: Any = IntDistribution if is_integer else FloatDistribution
            space[name] = kind(values.low, values.high, log=values.log)
        elif values:
            added = (own,) if name == "optimizer" and own not in values else ()
            space[name] = CategoricalDistribution((*values, *added))
    return space


def max_small_epochs(settings: SearchSettings) -> int:
    """Largest number of epochs at a smaller image size of any trial."""
    longest = replace(recipe(Hyperparameters, settings.network), epochs=settings.epochs)
    resize_at = make_space(settings).get("resize_at")
    if isinstance(resize_at, FloatDistribution):
        image_size = min(SIDE - 1, longest.image_size)
        longest = replace(longest, image_size=image_size, resize_at=resize_at.high)
    return longest.small_epochs


def suggest(trial: optuna.Trial, space: Space) -> Point:
    """Values of all parameters that apply: those enqueued with the trial, or from the sampler.

    The sampler does not vary the epochs, which are the largest number. With a constant learning
    rate a long training contains every shorter one, so pruning and the best epoch determine the
    length without further trials (measured in DECISIONS.md).
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


def complete(point: Point, space: Space, base: Hyperparameters) -> Point:
    """`point` with all parameters of `space` that apply; missing values come from `base`."""
    values = {name: point.get(name, getattr(base, name)) for name in space}
    return {name: value for name, value in values.items() if _applies(name, values)}


def is_inside(point: Point, space: Space) -> bool:
    """Whether `point` has exactly the parameters that apply, each within its bounds.

    Optuna's enqueue_trial accepts unknown names and values out of bounds without an error.
    """
    expected = {name for name in space if _applies(name, point)}
    return point.keys() == expected and all(_contains(space[n], v) for n, v in point.items())


def _applies(name: str, point: Point) -> bool:
    """Whether a setting has an effect with the other values of `point` (`Setting.when`)."""
    field = Hyperparameters.fields().get(name)
    when = field.setting.when if field else None
    return when is None or when[0] not in point or point[when[0]] == when[1]


def _suggest(trial: optuna.Trial, name: str, bounds: BaseDistribution) -> Any:
    match bounds:
        case IntDistribution():
            return trial.suggest_int(name, bounds.low, bounds.high, log=bounds.log)
        case FloatDistribution():
            return trial.suggest_float(name, bounds.low, bounds.high, log=bounds.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, bounds.choices)
    raise TypeError(f"{name}: unknown distribution {bounds}")


def _contains(bounds: BaseDistribution, value: Any) -> bool:
    match bounds:
        case IntDistribution():
            return isinstance(value, int) and bounds.low <= value <= bounds.high
        case FloatDistribution():
            return bounds.low <= value <= bounds.high
        case CategoricalDistribution():
            return value in bounds.choices
    return False
