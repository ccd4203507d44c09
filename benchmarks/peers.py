"""Other packages' optimizers for the benchmark of the search (`pip install -e .[peers]`).

Each is called with a benchmark, a start, a seed and what it may spend, and goes on until that is
spent. It begins with the start, by the package's own means where it has some.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from optuna.samplers import BaseSampler

from benchmarks.recorded import Recorded

Point = Mapping[str, Any]

PACKAGES = {"optuna_gp": "torch", "smac": "smac", "dehb": "dehb", "keras_tuner": "keras_tuner"}


class BudgetSpent(Exception):  # noqa: N818  # it is the regular end of a study
    """All epochs are trained."""


class Spent:
    """Epochs that a study has trained, and its best value after each."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.best: list[float] = []

    def epoch(self, value: float) -> None:
        """Count an epoch. Raises BudgetSpent after the last."""
        self.best.append(max(value, self.best[-1] if self.best else -np.inf))
        if len(self.best) >= self.budget:
            raise BudgetSpent


class Method(Protocol):
    def __call__(self, benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None: ...


def missing(method: str) -> str:
    """One line on the package that a method needs and doesn't have; empty if all is there."""
    package = PACKAGES.get(method)
    if package is None or find_spec(package):
        return ""
    return f"{method}: needs the package {package}; pip install -e .[peers]"


def train(benchmark: Recorded, params: Point, spent: Spent, epochs: int | None = None) -> float:
    """The best value of a setting's first epochs, all of them by default."""
    curve = benchmark.curve(params)[:epochs]
    for value in curve:
        spent.epoch(value)
    return float(curve.max())


def gp_sampler(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def smac(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    raise NotImplementedError


def dehb(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    raise NotImplementedError


def keras_tuner(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    raise NotImplementedError
