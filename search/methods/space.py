"""Search spaces: what a search may vary, and within which bounds."""

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
SHORTEST = 5
"""The shortest trial has a fifth of the most epochs; the report's shortest has 30 of its 75."""
NARROW = ("batch_size", "lr", "optimizer", "momentum")
NARROW_OPTIMIZERS = ("adam", "sgd", "momentum")


def make_space(settings: SearchSettings) -> Space:
    """Bounds of a search by the settings' names, for trials of up to `settings.epochs` epochs."""
    return dict(registry.load(settings.space, SPACES, "space")(settings))


def narrow(settings: SearchSettings) -> Space:
    """Batch size, learning rate, optimizer and epochs, with the report's grid inside."""
    lines = {name: Hyperparameters.fields()[name].setting.search for name in NARROW}
    return _epochs(settings) | _space(settings, lines | {"optimizer": NARROW_OPTIMIZERS})


def wide(settings: SearchSettings) -> Space:
    """Every setting that has a search range, with the network's width around `settings.width`.

    L2 is for the report's network alone, since weight decay does the same elsewhere; the image size
    is for networks that take any.
    """
    lines = {name: field.setting.search for name, field in Hyperparameters.fields().items()}
    any_size = settings.network in NETWORKS and NETWORKS[settings.network].any_size
    for name in ("l2",) if any_size else ("image_size", "resize_at"):
        del lines[name]
    width = Range(max(0.05, settings.width / 2), min(8.0, settings.width * 2), log=True)
    return _epochs(settings) | _space(settings, lines | {"width": width})


def _epochs(settings: SearchSettings) -> Space:
    return {"epochs": IntDistribution(max(1, settings.epochs // SHORTEST), settings.epochs)}


def _space(settings: SearchSettings, lines: Mapping[str, Range | tuple[Any, ...] | None]) -> Space:
    """Optuna's distributions of the `lines` that have a range, with the recipe's optimizer."""
    space: Space = {}
    own = recipe(Hyperparameters, settings.network).optimizer
    for name, line in lines.items():
        if isinstance(line, Range):
            is_whole = Hyperparameters.fields()[name].plain_type is int
            kind: Any = IntDistribution if is_whole else FloatDistribution
            space[name] = kind(line.low, line.high, log=line.log)
        elif line:
            added = (own,) if name == "optimizer" and own not in line else ()
            space[name] = CategoricalDistribution((*line, *added))
    return space


def most_small_epochs(settings: SearchSettings) -> int:
    """The most epochs at a smaller image size that a trial may have."""
    whole = replace(recipe(Hyperparameters, settings.network), epochs=settings.epochs)
    resize_at = make_space(settings).get("resize_at")
    if isinstance(resize_at, FloatDistribution):
        whole = replace(whole, image_size=min(SIDE - 1, whole.image_size), resize_at=resize_at.high)
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


def complete(point: Point, space: Space, base: Hyperparameters) -> Point:
    """A point of the whole space: the values of `point`, and beyond them those of `base`."""
    values = {name: point.get(name, getattr(base, name)) for name in space}
    return {name: value for name, value in values.items() if _applies(name, values)}


def is_inside(point: Point, space: Space) -> bool:
    """Whether `point` gives every parameter that applies, and no other, each within its bounds.

    Optuna's enqueue_trial would take a misspelt name, or a value out of bounds, without a word.
    """
    expected = {name for name in space if _applies(name, point)}
    return point.keys() == expected and all(_contains(space[n], v) for n, v in point.items())


def _applies(name: str, point: Point) -> bool:
    """Whether a setting has an effect beside the values of `point` (`when` of its line)."""
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
