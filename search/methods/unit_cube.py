"""A search space as a unit cube: rows of numbers that a model compares and a sampler moves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Array = NDArray[np.float64]
Conditions = Mapping[str, tuple[str, object]]
"""A parameter's name: the other parameter, and the value of it, with which alone it applies."""

CATEGORY = 0.5
"""Coordinate of a chosen category: two categories lie as far apart as 0.7 of a number's range."""


class UnitCube:
    """A search space whose points are rows of d numbers, one a parameter.

    A number stands as its share of its range (of the logarithm's range where the distribution is
    logarithmic), in [0, 1]; a category as its index in the choices. A parameter that does not apply
    has a value in a row too, which `encode` leaves out. A condition on a parameter that is not in
    the space always holds.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], conditions: Conditions) -> None:
        self.space = dict(space)
        self.names = list(space)
        self.sizes = np.array([_size(bounds) for bounds in space.values()], dtype=int)
        """Number of choices of each parameter, 0 for a number."""
        self.free = np.array([not bounds.single() for bounds in space.values()], dtype=bool)
        self._conditions = {
            self.names.index(name): (self.names.index(other), self._needed(other, value))
            for name, (other, value) in conditions.items()
            if name in self.space and other in self.space
        }

    def _needed(self, name: str, value: object) -> float:
        """The coordinate of a condition's value; NaN, which equals nothing, if out of bounds."""
        bounds = self.space[name]
        return to_unit(bounds, value) if contains(bounds, value) else np.nan

    def row(self, params: Mapping[str, Any], default: Array | None = None) -> Array | None:
        """The row of a trial's parameters, or None if one of them lies outside the space.

        What `params` lacks takes the value of `default`, else NaN.
        """
        row = np.full(len(self.names), np.nan) if default is None else default.copy()
        for i, (name, bounds) in enumerate(self.space.items()):
            if name in params:
                if not contains(bounds, params[name]):
                    return None
                row[i] = to_unit(bounds, params[name])
        return row

    def nearest(self, params: Mapping[str, Any]) -> Array:
        """The row nearest to `params`: numbers are clipped, other categories and gaps are NaN."""
        row = np.full(len(self.names), np.nan)
        for i, (name, bounds) in enumerate(self.space.items()):
            value = params.get(name)
            if self.sizes[i] == 0 and value is not None:
                value = min(max(value, bounds.low), bounds.high)  # type: ignore[attr-defined]
            if value is not None and contains(bounds, value):
                row[i] = to_unit(bounds, value)
        return row

    def params(self, row: Array) -> dict[str, Any]:
        """The parameters of a row that apply, as Optuna's trials have them."""
        applies = self.applies(row[None])[0]
        return {
            name: from_unit(bounds, value)
            for (name, bounds), value, used in zip(self.space.items(), row, applies, strict=True)
            if used
        }

    def applies(self, rows: Array) -> NDArray[np.bool_]:
        """Which parameters of each row apply, (n, d)."""
        applies = np.ones(rows.shape, dtype=bool)
        for _ in self._conditions:  # as often as the longest chain of conditions might need
            for i, (other, needed) in self._conditions.items():
                applies[:, i] = applies[:, other] & np.isclose(rows[:, other], needed)
        return applies

    def uniform(self, rng: np.random.Generator, n: int) -> Array:
        """n rows drawn uniformly, (n, d)."""
        rows = rng.random((n, len(self.names)))
        for i in np.flatnonzero(self.sizes):
            rows[:, i] = rng.integers(self.sizes[i], size=n)
        return self.snap(rows)

    def mutate(self, rows: Array, rng: np.random.Generator, step: Array, share: Array) -> Array:
        """`rows` with some values moved: a number by a normal step, a category drawn anew.

        Each row has its own standard deviation of the step, as a share of the range, and its own
        share of parameters that are moved (at least one): step and share are (n,). Values that a
        row lacks (NaN) are drawn uniformly.
        """
        n, d = rows.shape
        drawn = self.uniform(rng, n)
        rows = np.where(np.isnan(rows), drawn, rows)
        moved = rng.random((n, d)) < share[:, None]
        candidates = self.applies(rows) & self.free
        first = np.argmax(rng.random((n, d)) * candidates, axis=1)
        moved[np.arange(n), first] = True
        near = np.abs(rows + rng.normal(size=(n, d)) * step[:, None])
        near = np.clip(np.where(near > 1, 2 - near, near), 0, 1)  # reflected at both bounds
        near[:, self.sizes > 0] = drawn[:, self.sizes > 0]
        return self.snap(np.where(moved, near, rows))

    def snap(self, rows: Array) -> Array:
        """`rows` with the numbers that have a step (integers) at values that exist."""
        for i, bounds in enumerate(self.space.values()):
            if getattr(bounds, "step", None) is not None:
                rows[:, i] = _snapped(bounds, rows[:, i])
        return rows

    def encode(self, rows: Array) -> Array:
        """Coordinates in which the distance of two settings makes sense, (n, columns).

        A number has one column, a category one for each choice; a parameter that does not apply
        stands in the middle, and one that can take a single value is left out.
        """
        applies = self.applies(rows)
        columns = []
        for i in np.flatnonzero(self.free):
            used = applies[:, i, None]
            if self.sizes[i]:
                chosen = rows[:, i, None] == np.arange(self.sizes[i])
                columns.append(CATEGORY * (chosen & used))
            else:
                columns.append(np.where(used & ~np.isnan(rows[:, i, None]), rows[:, i, None], 0.5))
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(rows), 0))

    @property
    def groups(self) -> NDArray[np.int_]:
        """For each column of `encode`, which of the free parameters it belongs to, from 0 on."""
        sizes = np.maximum(self.sizes[self.free], 1)
        return np.repeat(np.arange(len(sizes)), sizes)


def contains(bounds: BaseDistribution, value: Any) -> bool:
    """Whether a value lies within the bounds."""
    match bounds:
        case CategoricalDistribution():
            return value in bounds.choices
        case FloatDistribution() | IntDistribution():
            is_inside = isinstance(value, int | float) and bounds.low <= value <= bounds.high
            return is_inside and (isinstance(bounds, FloatDistribution) or value == int(value))
    raise TypeError(f"no bounds that can be drawn from: {bounds}")


def to_unit(bounds: BaseDistribution, value: Any) -> float:
    """The coordinate of a value within the bounds."""
    if isinstance(bounds, CategoricalDistribution):
        return float(bounds.choices.index(value))
    low, high = _ends(bounds)
    number = np.log(value) if bounds.log else value  # type: ignore[attr-defined]
    return float((number - low) / (high - low)) if high > low else 0.5


def from_unit(bounds: BaseDistribution, coordinate: float) -> Any:
    """The value at a coordinate, of the type that Optuna's trials have."""
    if isinstance(bounds, CategoricalDistribution):
        return bounds.choices[int(coordinate)]
    value = float(_values(bounds, np.array([coordinate]))[0])
    if isinstance(bounds, IntDistribution):
        return round(value)
    rounded = float(f"{value:.6g}")  # short in commands and tables
    return min(max(rounded, bounds.low), bounds.high)  # type: ignore[attr-defined]


def _size(bounds: BaseDistribution) -> int:
    return len(bounds.choices) if isinstance(bounds, CategoricalDistribution) else 0


def _ends(bounds: Any) -> tuple[float, float]:
    """Ends of the range that the unit interval stands for, as logarithms where that is asked.

    Half a step is added on either side, so that the first and the last value of a range with steps
    are drawn as often as those between.
    """
    half = 0.0 if bounds.step is None or bounds.single() else bounds.step / 2
    low, high = bounds.low - half, bounds.high + half
    return (float(np.log(low)), float(np.log(high))) if bounds.log else (low, high)


def _values(bounds: Any, coordinates: Array) -> Array:
    low, high = _ends(bounds)
    values = low + coordinates * (high - low)
    values = np.exp(values) if bounds.log else values
    if bounds.step is not None:
        values = bounds.low + np.round((values - bounds.low) / bounds.step) * bounds.step
    return np.clip(values, bounds.low, bounds.high)


def _snapped(bounds: Any, coordinates: Array) -> Array:
    values = _values(bounds, coordinates)
    low, high = _ends(bounds)
    values = np.log(values) if bounds.log else values
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
