"""Figures of the same training on several seeds: mean, standard deviation, interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BOUNDS = ("_low", "_high")


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (n - 1) and Student's 95 % interval of the mean over seeds."""

    mean: float
    std: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Spread of two or more values. The seeds are taken as a normal sample (Student 1908)."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * std / len(values) ** 0.5
    return Spread(mean, std, mean - half, mean + half)


def summarise(members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Figures of a group by name, from those of its members: NAME is the mean, then NAME_std,
    NAME_low and NAME_high. A figure that is a bound of a member's interval is left out."""
    found = {}
    for name in sorted(set.intersection(*(set(member) for member in members))):
        if not name.endswith(BOUNDS):
            one = spread([member[name] for member in members])
            found[name] = one.mean
            found[f"{name}_std"] = one.std
            found[f"{name}_low"], found[f"{name}_high"] = one.low, one.high
    return found
