"""Other packages' optimizers for the benchmark of the search (`pip install -e .[peers]`).

Each is called with a benchmark, a start, a seed and what it may spend, and goes on until that is
spent. It begins with the start, by the package's own means where it has some.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler

from benchmarks.recorded import Recorded

Point = Mapping[str, Any]

PACKAGES = {"optuna_gp": "torch", "smac": "smac", "dehb": "dehb", "keras_tuner": "keras_tuner"}


class BudgetSpent(Exception):  # noqa: N818  # it is the regular end of a study
    """All epochs are trained."""


class Spent:
    """What a study has trained, and the value of its best setting after each epoch."""

    def __init__(self, benchmark: Recorded, seed: int, trainings: int) -> None:
        self.benchmark, self.seed = benchmark, seed
        self.budget = trainings * benchmark.epochs
        self.best: list[float] = []
        """The value that the search sees; the true value of the setting where it sees another."""
        self._highest = -np.inf

    def train(self, params: Point, epochs: int | None = None) -> Iterator[float]:
        """What the search sees after each of a setting's first epochs, all of them by default.

        Raises BudgetSpent when the study has trained its last.
        """
        benchmark = self.benchmark
        true = None if benchmark.noise is None else benchmark.value(params)
        for value in benchmark.curve(params, self.seed)[:epochs].tolist():
            better = value > self._highest
            self._highest = max(value, self._highest)
            self.best.append((value if true is None else true) if better else self.best[-1])
            if len(self.best) >= self.budget:
                raise BudgetSpent
            yield value


class Method(Protocol):
    def __call__(self, benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None: ...


def missing(method: str) -> str:
    """One line on the package that a method needs and doesn't have; empty if all is there."""
    package = PACKAGES.get(method)
    if package is None or find_spec(package):
        return ""
    return f"{method}: needs the package {package}; pip install -e .[peers]"


def gp_sampler(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def smac(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    """SMAC's facade for hyperparameters (a random forest), every training at full length."""
    from ConfigSpace import Configuration
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.runhistory.dataclasses import TrialInfo, TrialValue

    space = configuration_space(benchmark, seed)
    with TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            deterministic=True,
            n_trials=spent.budget // benchmark.epochs,
            seed=seed,
            output_directory=Path(folder),
        )
        optimizer = HyperparameterOptimizationFacade(
            scenario, lambda config, seed: 0.0, overwrite=True, logging_level=False
        )
        first = TrialInfo(Configuration(space, _inside(benchmark.space, start)), seed=0)
        optimizer.tell(first, TrialValue(-max(spent.train(start))))
        while True:
            info = optimizer.ask()
            optimizer.tell(info, TrialValue(-max(spent.train(dict(info.config)))))


def dehb(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    """DEHB with a ninth, a third and all of the epochs; it can't be told of the start."""
    from dehb import DEHB

    max(spent.train(start))
    with TemporaryDirectory() as folder:
        optimizer = DEHB(
            cs=configuration_space(benchmark, seed),
            min_fidelity=benchmark.epochs / 9,
            max_fidelity=benchmark.epochs,
            n_workers=1,
            seed=seed,
            output_path=folder,
            log_level="ERROR",
        )
        while True:
            job = optimizer.ask()
            epochs = max(1, round(job["fidelity"]))
            reached = max(spent.train(dict(job["config"]), epochs))
            optimizer.tell(job, {"fitness": -reached, "cost": float(epochs)})


def keras_tuner(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    """KerasTuner's Bayesian optimization, every training at full length.

    It has 5 random trials first: with its own default, three a parameter, it would be random search
    to the end.
    """
    import keras_tuner as kt

    values = kt.HyperParameters()
    for name, bounds in benchmark.space.items():
        other, value = benchmark.when.get(name, (None, None))
        with values.conditional_scope(other, value) if other else nullcontext():
            match bounds:
                case CategoricalDistribution():
                    values.Choice(name, list(bounds.choices))
                case IntDistribution():
                    values.Int(name, bounds.low, bounds.high, sampling=_sampling(bounds))
                case FloatDistribution():
                    values.Float(name, bounds.low, bounds.high, sampling=_sampling(bounds))
    oracle = kt.oracles.BayesianOptimizationOracle(
        kt.Objective("value", "max"),
        max_trials=10 * spent.budget,
        num_initial_points=5,
        seed=seed,
        hyperparameters=values,
    )
    oracle.verbose = 0
    with TemporaryDirectory() as folder:
        oracle._set_project_dir(folder, "replay")
        while True:
            trial = oracle.create_trial("tuner")
            if not oracle.end_order:
                trial.hyperparameters.values = dict(start)
            reached = max(spent.train(trial.hyperparameters.values))
            oracle.update_trial(trial.trial_id, {"value": reached})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def _sampling(bounds: IntDistribution | FloatDistribution) -> str:
    return "log" if bounds.log else "linear"


def _inside(space: Mapping[str, BaseDistribution], point: Point) -> dict[str, Any]:
    """A setting off the ends of ranges of floats by a millionth: ConfigSpace refuses the ends."""
    moved = dict(point)
    for name, bounds in space.items():
        if isinstance(bounds, FloatDistribution) and name in point:
            gap = 1e-6 * (bounds.low if bounds.log else bounds.high - bounds.low)
            moved[name] = float(np.clip(point[name], bounds.low + gap, bounds.high - gap))
    return moved


def configuration_space(benchmark: Recorded, seed: int) -> Any:
    """The space in the words of ConfigSpace, which SMAC and DEHB share."""
    from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float, Integer

    space = ConfigurationSpace(seed=seed)
    for name, bounds in benchmark.space.items():
        match bounds:
            case CategoricalDistribution():
                space.add(Categorical(name, bounds.choices))
            case IntDistribution():
                space.add(Integer(name, (bounds.low, bounds.high), log=bounds.log))
            case FloatDistribution():
                space.add(Float(name, (bounds.low, bounds.high), log=bounds.log))
    for name, (other, value) in benchmark.when.items():
        space.add(EqualsCondition(space[name], space[other], value))
    return space
