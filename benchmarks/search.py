"""Search quality: this project's search, random search, the grid and Optuna's defaults.

    python -m benchmarks.search

A tabular benchmark: benchmarks/curves.csv holds the validation accuracy after each epoch of a full
grid of real trainings (benchmarks/record_curves.py), and a trial reads its curve instead of
training, so a study takes seconds. Learning rate and batch size are rounded to the nearest recorded
value. A trial of e epochs is the first e epochs of its curve, which is exact with a constant
learning rate. The cost is the number of epochs, those of pruned trials included. Every method is
repeated with 20 seeds.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from rich.console import Console
from rich.table import Table

from benchmarks.record_curves import BATCH_SIZES, EPOCHS, FILE, LRS, OPTIMIZERS
from search.methods.samplers import make_pruner, make_sampler, sampler_seed, silence_optuna

Curves = dict[tuple[str, int, float], NDArray[np.float64]]
AFTER = (100, 200, 400)  # epochs; the last is the budget of a study
RANDOM = ("random", "random, full length")
HALF_STEP = 3**0.5  # learning rates are a factor of 3 apart
SHORTEST = EPOCHS // 5


@dataclass(frozen=True)
class Replay:
    repeats: int = 20
    """Seeds for each method."""
    picture: Path = Path("docs/search_quality.png")
    """File of the plot."""


@dataclass(frozen=True)
class Method:
    sampler: Callable[[int, int], BaseSampler]
    """Makes a sampler from the study's seed and the number of its trials."""
    pruner: Callable[[], BasePruner]
    full_length: bool = False
    """Give every trial the largest number of epochs, instead of searching the number."""


METHODS = {
    "ours": Method(
        lambda seed, trials: make_sampler("tpe", sampler_seed(seed, trials), {}),
        lambda: make_pruner("halving", EPOCHS),
        full_length=True,
    ),
    "Optuna's defaults": Method(lambda seed, _: TPESampler(seed=seed), MedianPruner),
    "random": Method(lambda seed, _: RandomSampler(seed=seed), NopPruner),
    "random, full length": Method(
        lambda seed, _: RandomSampler(seed=seed), NopPruner, full_length=True
    ),
    "grid, shuffled": Method(
        lambda seed, _: GridSampler(
            {"lr": LRS, "batch_size": BATCH_SIZES, "optimizer": OPTIMIZERS}, seed=seed
        ),
        NopPruner,
        full_length=True,
    ),
}


def read_curves() -> Curves:
    groups = pd.read_csv(FILE).groupby(["optimizer", "batch_size", "lr"])
    curves = {key: group["val_accuracy"].to_numpy() for key, group in groups}
    wanted = len(OPTIMIZERS) * len(BATCH_SIZES) * len(LRS)
    if len(curves) < wanted:
        raise SystemExit(
            f"{FILE.name} holds {len(curves)} of {wanted} curves; "
            "python -m benchmarks.record_curves records the others"
        )
    return curves


def nearest(value: float, recorded: tuple[float, ...]) -> float:
    return min(recorded, key=lambda x: abs(np.log(x / value)))


def best_by_epoch(method: Method, curves: Curves, seed: int, epochs: int) -> NDArray[np.float64]:
    """The study's best validation accuracy after each trained epoch, (epochs,)."""
    study = optuna.create_study(direction="maximize", pruner=method.pruner())
    best: list[float] = []
    sampler = method.sampler(seed, 0)
    while len(best) < epochs:
        # As in a real study, which creates its sampler for each trial, unlike the other methods.
        own = method is METHODS["ours"]
        study.sampler = method.sampler(seed, len(study.trials)) if own else sampler
        trial = study.ask()
        value = 0.0
        try:
            for accuracy in accuracies(trial, method, curves):
                value = max(value, accuracy)
                best.append(max(value, best[-1] if best else 0))
            study.tell(trial, value)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        if isinstance(sampler, GridSampler) and sampler.is_exhausted(study):
            best += [best[-1]] * (epochs - len(best))
    return np.array(best[:epochs])


def accuracies(trial: optuna.Trial, method: Method, curves: Curves) -> Iterator[float]:
    """Yield the validation accuracy of each epoch of a trial. Raises TrialPruned."""
    shortest = EPOCHS if method.full_length else SHORTEST
    epochs = trial.suggest_int("epochs", shortest, EPOCHS)
    if method is METHODS["grid, shuffled"]:
        point = (
            trial.suggest_categorical("optimizer", OPTIMIZERS),
            trial.suggest_categorical("batch_size", BATCH_SIZES),
            trial.suggest_categorical("lr", LRS),
        )
    else:
        batch_size = trial.suggest_int("batch_size", min(BATCH_SIZES), max(BATCH_SIZES), log=True)
        lr = trial.suggest_float("lr", min(LRS) / HALF_STEP, max(LRS) * HALF_STEP, log=True)
        optimizer = trial.suggest_categorical("optimizer", OPTIMIZERS)
        point = (optimizer, int(nearest(batch_size, BATCH_SIZES)), nearest(lr, LRS))
    for epoch, accuracy in enumerate(curves[point][:epochs], start=1):
        trial.report(accuracy, epoch)
        yield accuracy
        if epoch < epochs and trial.should_prune():
            raise optuna.TrialPruned


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (10_000, len(values))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main(replay: Replay) -> None:
    silence_optuna()
    curves = read_curves()
    results = {
        name: np.stack([best_by_epoch(m, curves, s, max(AFTER)) for s in range(replay.repeats)])
        for name, m in METHODS.items()
    }
    grid_best = max(curve.max() for curve in curves.values())
    grid_epochs = len(curves) * EPOCHS
    table = Table(
        "method", "epochs to within 1 point of the grid's best (median)", "epochs to it exactly",
        *(f"best after {e}" for e in AFTER),
        *(f"minus {name} after 200 (95 %)" for name in RANDOM),
        title=f"the whole grid: best {grid_best:.3f} in {grid_epochs:,} epochs",
    )  # fmt: skip
    for name, best in results.items():
        table.add_row(
            name,
            median_epochs(best, grid_best - 0.01),
            median_epochs(best, grid_best),
            *(f"{best[:, e - 1].mean():.3f}" for e in AFTER),
            *(
                "" if name == other else mean_text(best[:, 199] - results[other][:, 199])
                for other in RANDOM
            ),
        )
    Console(width=170).print(table, f"{replay.repeats} repeats")
    draw(results, grid_best, replay.picture)


def mean_text(difference: NDArray[np.float64]) -> str:
    low, high = interval(difference)
    return f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def median_epochs(best: NDArray[np.float64], wanted: float) -> str:
    """Median over the repeats of the first epoch at which `wanted` is reached."""
    first = [int(np.argmax(row >= wanted)) + 1 if row[-1] >= wanted else np.inf for row in best]
    median = statistics.median(first)
    return f"{median:.0f}" if np.isfinite(median) else f"not in {best.shape[1]}"


def draw(results: dict[str, NDArray[np.float64]], grid_best: float, file: Path) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    colors = ("#1f6fb4", "#d9822b", "#aaaaaa", "#555555", "#3a923a")
    for (name, best), color in zip(results.items(), colors, strict=True):
        epochs = np.arange(1, best.shape[1] + 1)
        bounds = np.array([interval(column) for column in best.T[::10]]).T
        axes.plot(epochs, best.mean(axis=0), label=name, color=color)
        axes.fill_between(epochs[::10], *bounds, color=color, alpha=0.15)
    axes.axhline(grid_best, color="black", linestyle=":", label="best of the whole grid")
    low = min(best.mean(axis=0)[9] for best in results.values())
    axes.set(xlabel="epochs trained", ylabel="best validation accuracy", ylim=(low, None))
    axes.set_title("Mean over the repeats with its 95 % interval", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Replay))
