"""Other packages' optimizers for the benchmark of the search (`pip install -e .[peers]`).

Each is called with a benchmark, a start, a seed and what it may spend, and goes on until that is
spent. It begins with the start, by the package's own means where it has some.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
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
        first = TrialInfo(Configuration(space, dict(start)), seed=0)
        optimizer.tell(first, TrialValue(-train(benchmark, start, spent)))
        while True:
            info = optimizer.ask()
            optimizer.tell(info, TrialValue(-train(benchmark, dict(info.config), spent)))


def dehb(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    """DEHB with a ninth, a third and all of the epochs; it can't be told of the start."""
    from dehb import DEHB

    train(benchmark, start, spent)
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
            reached = train(benchmark, dict(job["config"]), spent, epochs)
            optimizer.tell(job, {"fitness": -reached, "cost": float(epochs)})


def keras_tuner(benchmark: Recorded, start: Point, seed: int, spent: Spent) -> None:
    """KerasTuner's Bayesian optimization, every training at full length.

    It has 5 random trials first: with its own default, three a parameter, it would be random search
    to the end.
    """
    import keras_tuner as kt

    values = kt.HyperParameters()
    for name, bounds in benchmark.space.items():
        sampling = "log" if bounds.log else "linear"
        values.Float(name, bounds.low, bounds.high, sampling=sampling)
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
            reached = train(benchmark, trial.hyperparameters.values, spent)
            oracle.update_trial(trial.trial_id, {"value": reached})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def configuration_space(benchmark: Recorded, seed: int) -> Any:
    """The space in the words of ConfigSpace, which SMAC and DEHB share."""
    from ConfigSpace import ConfigurationSpace, Float

    space = ConfigurationSpace(seed=seed)
    for name, bounds in benchmark.space.items():
        space.add(Float(name, (bounds.low, bounds.high), log=bounds.log))
    return space
