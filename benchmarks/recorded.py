"""Recorded learning curves as a benchmark of searches: a space, a start, a curve for any setting.

A file is NumPy's .npz, in one of three forms:

- `H` (n, 8) settings and `V` (n, evaluations) validation losses: Google's TaskSet with the
  optimizer Adam8p (Metz et al. 2020), whose tasks of text with two classes it is made for;
- `names` (d,), `H` (n, d) settings and `E` (n, epochs) validation errors, such as the convolutional
  networks on CIFAR-10 of Klein et al. (2017). `start` (d,) is a setting known to be good; the
  names of Klein et al. have one here;
- `space`, `settings` (n, d), `setting` (n,), `seen` and `true` (n, epochs): trainings of this
  project, which were judged twice after each epoch (`benchmarks/pack.py` writes them). A search
  sees the true curve with the noise of `seen`, and is measured by the true one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    json_to_distribution,
)

from benchmarks import surrogate
from benchmarks.surrogate import Array, Predict
from pipeline.errors import InputError
from search.methods.unit_cube import Conditions, UnitCube

ADAM8P = {
    "learning_rate": 1e-3,
    "one_minus_beta1": 0.1,
    "one_minus_beta2": 1e-3,
    "epsilon": 1e-8,
    "l1": 0.0,
    "l2": 0.0,
    "linear_decay": 0.0,
    "exponential_decay": 0.0,
}
"""TaskSet's settings in their order, all on a logarithmic scale: Adam's defaults, no penalties, no
decay. TaskSet records the betas themselves, and drew one minus them."""
CNN = {
    "log10_learning_rate": -3.0,
    "batch_size": 128.0,
    "log2_n_units_1": 6.0,
    "log2_n_units_2": 6.0,
    "log2_n_units_3": 6.0,
}
"""Settings of Klein et al.: Adam's learning rate and the middle of the other ranges."""
CHANCE = 0.70
"""Loss that counts as having learnt nothing (ln 2 is 0.69); higher ones are cut. A task in which
hardly any setting gets below takes the median setting's lowest loss instead."""
KEPT = 2
"""Of so many evaluations one is kept: 25 epochs of TaskSet's 50, 20 of CIFAR-10's 40."""

CLIMBS = 50
"""Rounds of mutations of the best settings in search of the best value there is."""
JUDGED_TWICE = "gaussian_process"
"""Surrogate of the trainings of this project (docs/lab/search.md)."""


@dataclass(frozen=True)
class Recorded:
    """A benchmark: what may be varied, and what each setting would come to. Higher is better."""

    name: str
    space: Mapping[str, BaseDistribution]
    start: Mapping[str, Any]
    """A setting that is known to be good."""
    rows: Array = field(repr=False)
    """The recorded settings as rows of the unit cube, (n, d)."""
    curves: Array = field(repr=False)
    """The true value after each epoch, (n, epochs)."""
    setting: NDArray[np.int_] = field(repr=False)
    """Number of the setting of each row, (n,): rows of the same setting have the same."""
    when: Conditions = field(default_factory=dict)
    """Conditions under which parameters apply."""
    noise: Array | None = field(default=None, repr=False)
    """What a search may see in excess of the true values, (m, epochs); it sees any of these, or its
    negative. None: it sees the true values, and only up to where it has trained."""
    small_epochs: int = 0
    """The most epochs at a smaller image size."""
    surrogate: str = "forest"
    """Its name in benchmarks/surrogate.py."""

    @property
    def epochs(self) -> int:
        return self.curves.shape[1]

    @cached_property
    def cube(self) -> UnitCube:
        return UnitCube(self.space, self.when)

    @cached_property
    def _predict(self) -> Predict:
        return surrogate.fit(self.surrogate, self.cube.encode(self.rows), self.curves)

    def predict(self, rows: Array) -> Array:
        """True curves of settings, rows of the unit cube; (n, epochs)."""
        return self._predict(self.cube.encode(rows))

    def curve(self, params: Mapping[str, Any], seed: int = 0) -> Array:
        """What a search sees of a setting after each epoch, trained on this seed."""
        row = self.cube.nearest(params)
        true = self.predict(row[None])[0]
        if self.noise is None:
            return true
        rng = np.random.default_rng([seed, crc32(row.tobytes())])
        return np.clip(true + rng.choice([-1, 1]) * rng.choice(self.noise), 0, 1)

    def value(self, params: Mapping[str, Any]) -> float:
        """The true value of a setting: that of its best epoch."""
        return float(self.predict(self.cube.nearest(params)[None]).max())

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The best value there is, and that of the median random setting; each a best epoch."""
        rng = np.random.default_rng(12345)
        rows = self.cube.uniform(rng, 300)
        random = self.predict(rows).max(axis=1)
        median = float(np.median(random))
        if self.surrogate == "forest":  # has no value above the best that it was given
            return float(max(self.predict(self.rows).max(), random.max())), median
        rows = np.concatenate([self.rows, rows])
        for _ in range(CLIMBS):
            best = rows[np.argsort(-self.predict(rows).max(axis=1))[:50]]
            steps, share = 0.5 * 10 ** (-2 * rng.random(500)), rng.choice([0.05, 0.3], 500)
            near = self.cube.mutate(np.repeat(best, 10, axis=0), rng, steps, share)
            rows = np.concatenate([best, near])
        return float(self.predict(rows).max()), median

    def regret(self, values: Array) -> Array:
        """Scaled regret: 0 at the best value, 1 at that of the median random setting."""
        best, median = self.ends
        return (best - values) / (best - median)

    def bad_start(self, seed: int) -> dict[str, Any]:
        """The median of nine random settings."""
        rows = self.cube.uniform(np.random.default_rng(10_000 + seed), 9)
        return self.cube.params(rows[np.argsort(self.predict(rows).max(axis=1))[4]])


def read(path: Path) -> list[Recorded]:
    """The benchmark of a file, or those of a folder, by name. Raises InputError if it has none."""
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    if not files:
        raise InputError(f"curves={path}: no .npz file there; give a folder of recorded curves")
    return [read_file(file) for file in files]


def read_file(file: Path) -> Recorded:
    """A file of any of the forms. Raises InputError."""
    with np.load(file) as arrays:
        if {"space", "settings", "setting", "seen", "true"} <= set(arrays):
            return _judged_twice(file.stem, arrays)
        if {"H", "V"} <= set(arrays):
            return _taskset(file.stem, arrays["H"], arrays["V"])
        if {"names", "H", "E"} <= set(arrays):
            names = [str(name) for name in arrays["names"]]
            start = dict(zip(names, arrays["start"], strict=True)) if "start" in arrays else CNN
            if missing := set(names) - set(start):
                raise InputError(f"{file}: no start for {', '.join(missing)}; add an array start")
            return _errors(file.stem, names, arrays["H"], arrays["E"], start)
        raise InputError(
            f"{file}: holds {', '.join(arrays)}; wanted H and V; names, H and E; or "
            "space, settings, setting, seen and true"
        )


def _judged_twice(name: str, arrays: Mapping[str, Any]) -> Recorded:
    about = json.loads(str(arrays["space"]))
    space = {key: json_to_distribution(bounds) for key, bounds in about["bounds"].items()}
    when = {key: (other, value) for key, (other, value) in about["when"].items()}
    cube = UnitCube(space, when)
    rows = np.array([cube.nearest(point(space, row)) for row in arrays["settings"].tolist()])
    setting, true = arrays["setting"].astype(int), arrays["true"].astype(float)
    return Recorded(
        name,
        space,
        about["start"],
        rows,
        true,
        setting,
        when,
        excess(setting, arrays["seen"].astype(float), true),
        about["small_epochs"],
        JUDGED_TWICE,
    )


def numbers(space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> list[float]:
    """A setting in numbers: a category's index in the choices, NaN for what does not apply."""
    return [
        np.nan
        if name not in params
        else bounds.choices.index(params[name])
        if isinstance(bounds, CategoricalDistribution)
        else params[name]
        for name, bounds in space.items()
    ]


def point(space: Mapping[str, BaseDistribution], row: list[float]) -> dict[str, Any]:
    """The setting of such numbers."""
    return {
        name: bounds.choices[int(value)] if isinstance(bounds, CategoricalDistribution) else value
        for (name, bounds), value in zip(space.items(), row, strict=True)
        if not np.isnan(value)
    }


def excess(setting: NDArray[np.int_], seen: Array, true: Array) -> Array:
    """What a search saw in excess of a setting's mean true curve, (m, epochs), of mean 0.

    It is taken from the settings that were trained on several seeds, if there are any: beside the
    chance of the faces that the search sees, it has the chance of a training in it then.
    """
    groups = [np.flatnonzero(setting == k) for k in np.unique(setting)]
    repeated = [rows for rows in groups if len(rows) > 1] or groups
    curves = np.concatenate([seen[rows] - true[rows].mean(axis=0) for rows in repeated])
    return curves - curves.mean(axis=0)


def _taskset(name: str, settings: Array, losses: Array) -> Recorded:
    lowest = np.where(np.isfinite(losses), losses, np.inf).min(axis=1)
    chance = CHANCE if (lowest < CHANCE).mean() > 0.1 else float(np.median(lowest))
    losses = np.where(np.isfinite(losses), np.minimum(losses, chance), chance)
    settings = settings.copy()
    settings[:, 1:3] = np.maximum(1e-6, 1 - settings[:, 1:3])
    space = {
        key: FloatDistribution(column.min(), column.max(), log=True)
        for key, column in zip(ADAM8P, settings.T, strict=True)
    }
    # The first evaluation comes before any training.
    return _benchmark(name, space, settings, chance - losses[:, KEPT::KEPT], ADAM8P)


def _errors(
    name: str, names: list[str], settings: Array, errors: Array, start: Mapping[str, float]
) -> Recorded:
    space = {
        key: FloatDistribution(column.min(), column.max())
        for key, column in zip(names, settings.T, strict=True)
    }
    values = 1 - np.where(np.isfinite(errors), np.minimum(errors, 1), 1).astype(float)
    return _benchmark(name, space, settings, values[:, KEPT - 1 :: KEPT], start)


def _benchmark(
    name: str,
    space: Mapping[str, FloatDistribution],
    settings: Array,
    curves: Array,
    start: Mapping[str, float],
) -> Recorded:
    cube = UnitCube(space, {})
    rows = np.array([cube.nearest(dict(zip(space, row, strict=True))) for row in settings.tolist()])
    nearest = cube.params(cube.nearest({key: start[key] for key in space}))
    return Recorded(name, space, nearest, rows, curves, np.arange(len(rows)))
