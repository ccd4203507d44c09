"""Search spaces: what a search varies, within which bounds and under which conditions.

A space comes from a YAML file in the words of W&B's sweeps, or from a function, and is changed by
`vary` and `fix`:

    parameters:
      lr: {min: 0.0001, max: 0.01, distribution: log_uniform_values}
      batch_size: {values: [32, 64, 128]}
      optimizer: {values: [adam, momentum]}
      momentum: {min: 0.8, max: 0.98, when: {optimizer: momentum}}
      dropout: {value: 0.2}
      rotate:                       # the setting's own range (docs/settings.md)
"""

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline import registry
from pipeline.errors import InputError
from pipeline.registry import NETWORKS
from pipeline.settings import Field, Hyperparameters, Range, is_reference, recipe
from search.methods import SPACES
from search.methods.curve_sampler import recorded_space
from search.methods.unit_cube import contains
from search.settings import SearchSettings

Point = dict[str, Any]
"""Values by the names of `pipeline.settings.Hyperparameters`."""
EPOCHS_RATIO = 5
"""The shortest trial has a fifth of the most epochs; the report's shortest has 30 of its 75."""
WORDS = {"values", "value", "min", "max", "q", "distribution", "when"}
DISTRIBUTIONS = {"constant", "categorical", "uniform", "int_uniform", "q_uniform"}
LOG_DISTRIBUTIONS = {"log_uniform_values", "q_log_uniform_values"}
IN_THE_LOSS = ("loss", "label_smoothing", "l2")
"""Settings that change what a validation loss measures."""
STUDY_SETTINGS = {
    "seed", "threads", "max_train_faces", "network", "keep_epoch", "monitor",
}  # fmt: skip
"""Settings of a training that a study decides for all of its trials."""


@dataclass(frozen=True)
class Space:
    """A search space: bounds by name, conditions as name -> (other name, value), fixed values."""

    bounds: dict[str, BaseDistribution]
    when: dict[str, tuple[str, Any]] = field(default_factory=dict)
    fixed: Point = field(default_factory=dict)

    def applies(self, name: str, point: Mapping[str, Any]) -> bool:
        """Whether `name` has an effect beside the values of `point`."""
        if name not in self.when:
            return True
        other, value = self.when[name]
        given = {**self.fixed, **point}
        return other not in given or given[other] == value

    def contains(self, point: Point) -> bool:
        """Whether `point` gives every parameter that applies, and no other, within its bounds.

        Optuna's enqueue_trial would take a misspelt name, or a value out of bounds, without a word.
        """
        expected = {name for name in self.bounds if self.applies(name, point)}
        return point.keys() == expected and all(
            contains(self.bounds[name], value) for name, value in point.items()
        )

    def contains_value(self, name: str, value: Any) -> bool:
        """Whether `value` is within the bounds of the parameter `name`."""
        return name in self.bounds and contains(self.bounds[name], value)

    def complete(self, point: Point, base: Hyperparameters) -> Point:
        """A point of the whole space: the values of `point`, and beyond them those of `base`.

        A value of `base` outside the bounds becomes the nearest one inside, or the first choice.
        """
        values = {
            name: point.get(name, _nearest(bounds, getattr(base, name)))
            for name, bounds in self.bounds.items()
        }
        return {name: value for name, value in values.items() if self.applies(name, values)}

    def suggest(self, trial: optuna.Trial) -> Point:
        """A value for every parameter that applies: the trial's own, or from the study's sampler.

        A proposal of the sampler has the most epochs. With a constant learning rate a long training
        holds every shorter one, so pruning and the best epoch find the length at no cost
        (DECISIONS.md has what guessing it costs).
        """
        trials = trial.study.get_trials(deepcopy=False)
        own = trials[trial.number].system_attrs.get("fixed_params", {})
        point: Point = {}
        for name, bounds in recorded_space(trials, self.bounds).items():
            if not self.applies(name, point):
                continue
            if name == "epochs" and name not in own and isinstance(bounds, IntDistribution):
                bounds = IntDistribution(bounds.high, bounds.high)
            point[name] = _suggest(trial, name, bounds)
        return point


def make_space(settings: SearchSettings) -> Space:
    """The space that `settings` ask for: `space`, changed by `vary` and `fix`.

    Raises InputError, naming the file or option and the parameter, for what can't be searched.
    """
    named: dict[str, Any] = {}
    for text in _parts(settings.vary):
        named |= _varied(text)
    lines = _parameters(settings) | named
    lines |= {name: {"value": value} for name, value in parse_values(settings.fix, "fix").items()}
    bounds: dict[str, BaseDistribution] = {}
    when: dict[str, tuple[str, Any]] = {}
    fixed: Point = {}
    for name, line in lines.items():
        if isinstance(line, BaseDistribution):
            bounds[name] = line
            when |= _condition(name, {})
            continue
        line = {} if line is None else line
        found = _distribution(name, line, settings)
        if isinstance(found, BaseDistribution):
            bounds[name] = found
            when |= _condition(name, line)
        elif found is not None:
            fixed[name] = found[0]
        elif name in named:
            raise InputError(
                f"vary={name}: it has no range of its own with network={settings.network}; "
                "give one, or leave it out"
            )
    if not bounds:
        raise InputError(f"space={settings.space}: varies nothing; name at least one parameter")
    bounds = {name: b for name, b in bounds.items() if _has_effect(name, bounds, fixed, when)}
    ordered = sorted(bounds, key=lambda name: name in when)  # a condition's setting comes first
    space = Space({name: bounds[name] for name in ordered}, when, fixed)
    _check_conditions(space)
    longest = _extremes(bounds.get("epochs"), fixed.get("epochs", 0))[1]
    if longest > settings.epochs:
        raise InputError(
            f"space: epochs: {longest} is more than the study's epochs={settings.epochs}; give "
            f"epochs={longest}"
        )
    within = IN_THE_LOSS if settings.objective == "loss" else ()
    if varied := [name for name in (*within, "targets") if name in bounds]:
        raise InputError(
            f"objective={settings.objective}: the space varies {', '.join(varied)}, which changes "
            "what it measures, so trials would not compare; fix it"
        )
    return space


def _parameters(settings: SearchSettings) -> dict[str, Any]:
    """The lines of `space`: from its file, or the distributions that its function returns."""
    name = settings.space
    if is_reference(name):
        return dict(registry.load(name, {}, "space")(settings))
    file = (
        Path(__file__).parent.parent / "spaces" / f"{name}.yaml" if name in SPACES else Path(name)
    )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"space={name}: can't be read ({reason})") from error
    lines = content.get("parameters") if isinstance(content, dict) else None
    if not isinstance(lines, dict):
        raise InputError(f"space={name}: expected a mapping `parameters:` of settings to search")
    return {str(key): line for key, line in lines.items()}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _varied(text: str) -> dict[str, Any]:
    """A line from `vary`: name, name=a,b,c, name=low..high, or name=low..high log."""
    name, _, values = text.partition("=")
    name, values = name.strip(), values.strip()
    if not values:
        return {name: None}
    if bounds := re.fullmatch(r"(\S+?)\.\.(\S+)(\s+log)?", values):
        line = {"min": bounds[1], "max": bounds[2]}
        return {name: line | ({"distribution": "log_uniform_values"} if bounds[3] else {})}
    if re.search(r"\s", values):
        raise InputError(
            f"vary={text}: expected {name}=LOW..HIGH, {name}=LOW..HIGH log or {name}=A,B"
        )
    return {name: {"values": values.split(",")}}


def parse_values(text: str, option: str) -> Point:
    """Values from name=value, with blanks or semicolons between. Raises InputError."""
    found = {}
    try:
        parts = shlex.split(text.replace(";", " "))
    except ValueError as error:
        raise InputError(f"{option}={text}: {error}") from None
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{option}={part}: expected name=value")
        found[name] = _value(_field(name, option), value)
    return found


def _field(name: str, where: str) -> Field:
    fields = Hyperparameters.fields()
    if name not in fields or name in STUDY_SETTINGS:
        close = difflib.get_close_matches(name, fields, 1)
        hint = f"; did you mean {close[0]}?" if close and name not in fields else ""
        known = "is decided by the study" if name in fields else "is no setting of a training"
        raise InputError(f"{where}: {name} {known}{hint}")
    return fields[name]


def _value(field: Field, value: Any) -> Any:
    """`value`, from YAML or from text, with the setting's type. Raises InputError."""
    try:
        typed = field.parse(str(value))
    except ValueError as error:
        raise InputError(f"{field.name}={value}: {error}") from None
    if not field.accepts(typed):
        raise InputError(f"{field.name}={value}: expected {field.bounds}")
    return typed


def _distribution(
    name: str, line: Any, settings: SearchSettings
) -> BaseDistribution | tuple[Any] | None:
    """The distribution of a line; (value,) if it is fixed, None if it has no effect here."""
    where = f"space={settings.space}"
    field = _field(name, where)
    if not isinstance(line, Mapping):
        raise InputError(f"{where}: {name}: expected values, value, or min and max, not {line}")
    if unknown := line.keys() - WORDS:
        raise InputError(
            f"{where}: {name}: unknown {', '.join(sorted(map(str, unknown)))}; expected one of "
            f"{', '.join(sorted(WORDS))}"
        )
    if "value" in line:
        return (_value(field, line["value"]),)
    if "values" in line:
        return _categorical(field, line["values"], settings, where)
    if "min" in line or "max" in line:
        return _interval(field, line, settings, where)
    return _own_range(field, settings, where)


def _categorical(
    field: Field, values: Any, settings: SearchSettings, where: str
) -> BaseDistribution:
    if not isinstance(values, list) or not values:
        raise InputError(f"{where}: {field.name}: expected a list of values")
    choices = tuple(dict.fromkeys(_value(field, value) for value in values))
    for value in choices:
        _check_alone(field.name, value, settings.network)
    return CategoricalDistribution(choices)


def _interval(
    field: Field, line: Mapping[str, Any], settings: SearchSettings, where: str
) -> BaseDistribution:
    name, kind = field.name, str(line.get("distribution", "uniform"))
    if kind not in DISTRIBUTIONS | LOG_DISTRIBUTIONS:
        raise InputError(
            f"{where}: {name}: unknown distribution {kind}; expected one of "
            f"{', '.join(sorted(DISTRIBUTIONS | LOG_DISTRIBUTIONS))}"
        )
    if field.plain_type not in (int, float) or not {"min", "max"} <= line.keys():
        raise InputError(f"{where}: {name}: expected values, or min and max of a number")
    low, high = (_value(field, line[end]) for end in ("min", "max"))
    log = kind in LOG_DISTRIBUTIONS
    if low > high:
        raise InputError(f"{where}: {name}: min {low} is above max {high}")
    if log and low <= 0:
        raise InputError(f"{where}: {name}: min {low} of a logarithmic range must be above 0")
    for end in (low, high):
        _check_alone(name, end, settings.network)
    kind_of: Any = IntDistribution if field.plain_type is int else FloatDistribution
    try:
        step: Any = {"step": field.plain_type(line["q"])} if "q" in line and not log else {}
        return kind_of(low, high, log=log, **step)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {name}: q: {error}") from None


def _own_range(field: Field, settings: SearchSettings, where: str) -> BaseDistribution | None:
    """The range of a setting's line; None where the setting has no effect on the network."""
    name, most, search = field.name, settings.epochs, field.setting.search
    any_size = settings.network in NETWORKS and NETWORKS[settings.network].any_size
    if name == "epochs":
        return IntDistribution(max(1, most // EPOCHS_RATIO), most)
    if name == "width":
        low, high = max(0.05, settings.width / 2), min(8.0, settings.width * 2)
        return FloatDistribution(low, high, log=True)
    if name in (("l2",) if any_size else ("image_size", "resize_at")):
        return None
    if isinstance(search, Range):
        kind: Any = IntDistribution if field.plain_type is int else FloatDistribution
        return kind(search.low, search.high, log=search.log)
    if not search:
        raise InputError(f"{where}: {name} has no range of its own; give values, or min and max")
    own = recipe(Hyperparameters, settings.network).optimizer
    added = (own,) if name == "optimizer" and own not in search else ()
    return CategoricalDistribution((*search, *added))


def _check_alone(name: str, value: Any, network: str) -> None:
    """Check a value against the settings that depend on it, beside the defaults."""
    Hyperparameters(network=network, **{name: value})


def _condition(name: str, line: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The condition of a line, or the setting's own."""
    if "when" not in line:
        own = Hyperparameters.fields()[name].setting.when
        return {name: own} if own else {}
    when = line["when"]
    if not isinstance(when, Mapping) or len(when) != 1:
        raise InputError(f"space: {name}: when: expected one setting and its value, not {when}")
    [(other, value)] = when.items()
    return {name: (str(other), _value(_field(str(other), f"space: {name}: when"), value))}


def _has_effect(
    name: str,
    bounds: Mapping[str, BaseDistribution],
    fixed: Mapping[str, Any],
    when: Mapping[str, tuple[str, Any]],
) -> bool:
    """Whether a parameter's own condition can be met: momentum needs its optimizer."""
    other, value = when.get(name, (None, None))
    if other is None or when[name] != Hyperparameters.fields()[name].setting.when:
        return True
    if other in fixed:
        return bool(fixed[other] == value)
    return other not in bounds or contains(bounds[other], value)


def _check_conditions(space: Space) -> None:
    for name, (other, value) in space.when.items():
        if other in space.when:
            raise InputError(f"space: {name}: when: {other} has a condition itself")
        bounds = space.bounds.get(other)
        if name in space.bounds and bounds is not None and not contains(bounds, value):
            raise InputError(f"space: {name}: when: {other} is never {value} in this space")


def max_small_epochs(settings: SearchSettings, space: Space, base: Hyperparameters) -> int:
    """The most epochs at a smaller image size that a trial may have."""
    smallest, _ = _extremes(space.bounds.get("image_size"), base.image_size)
    _, share = _extremes(space.bounds.get("resize_at"), base.resize_at)
    whole = replace(base, epochs=settings.epochs, image_size=smallest, resize_at=share)
    return whole.small_epochs


def _extremes(bounds: BaseDistribution | None, value: Any) -> tuple[Any, Any]:
    """The lowest and the highest value within bounds of numbers; `value` without any."""
    match bounds:
        case CategoricalDistribution():
            return min(bounds.choices), max(bounds.choices)  # type: ignore[type-var]
        case IntDistribution() | FloatDistribution():
            return bounds.low, bounds.high
    return value, value


def _suggest(trial: optuna.Trial, name: str, bounds: BaseDistribution) -> Any:
    match bounds:
        case IntDistribution():
            return trial.suggest_int(
                name, bounds.low, bounds.high, step=bounds.step, log=bounds.log
            )
        case FloatDistribution():
            return trial.suggest_float(
                name, bounds.low, bounds.high, step=bounds.step, log=bounds.log
            )
        case CategoricalDistribution():
            return trial.suggest_categorical(name, bounds.choices)
    raise TypeError(f"{name}: no bounds that can be drawn from: {bounds}")


def _nearest(bounds: BaseDistribution, value: Any) -> Any:
    """`value`, or the nearest one within the bounds."""
    if isinstance(bounds, CategoricalDistribution):
        return value if value in bounds.choices else bounds.choices[0]
    if isinstance(bounds, IntDistribution | FloatDistribution):
        return min(max(value, bounds.low), bounds.high)
    return value
