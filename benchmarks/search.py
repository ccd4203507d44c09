"""Search quality: our search against today's optimizers, on recorded learning curves.

    python -m benchmarks.search --curves FOLDER --seeds 8
    python -m benchmarks.search --curves FOLDER --methods all --json results.json

A trial looks its curve up instead of training, so a study takes seconds; sampler, pruner and study
are the real ones. `benchmarks/recorded.py` says what the files hold. The first trial of every
method is the benchmark's known good setting, with `--start bad` the median of nine random ones.
The cost is the epochs that were trained, those of pruned trials included, in full trainings. Regret
is scaled: 0 is the best setting, 1 the median random one. Methods are compared in pairs over
benchmark and seed; intervals are bootstrapped over both.

Where a file has the true accuracy beside what a search sees, a study is measured by the true
accuracy of the setting that it saw the best value of, also in points above the known good setting.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import peers, recorded, run
from benchmarks.recorded import Array, Recorded
from pipeline.errors import InputError
from search.methods import samplers
from search.methods.curve_sampler import CurveSampler
from search.methods.samplers import make_pruner, sampler_seed, silence_optuna
from search.methods.space import Space

AFTER = (5, 10, 20)
"""Full trainings after which regret is reported; the last is what a study may spend."""
OURS, BEFORE = "ours", "tpe_halving"
DRAWS = 5000
Values = Mapping[str, list[list[Array]]]
"""By method, benchmark and seed, a value after each trained epoch."""


@dataclass(frozen=True)
class Replay:
    curves: Path
    """Folder of recorded curves, .npz files, or one of them."""
    seeds: int = 8
    """Studies of each method on each benchmark."""
    methods: str = "ours,tpe_halving,random"
    """Methods with commas between, or all."""
    start: Literal["good", "bad"] = "good"
    """What is tried first: the known good setting, or the median of nine random ones."""
    surrogate: str | None = None
    """What gives a curve for every setting; by default each benchmark's own."""
    json: Path | None = None
    """File for the regrets, a list of objects: benchmark, method, seed, regret, points."""


@dataclass(frozen=True)
class OptunaMethod:
    """A sampler and a pruner, in a study of Optuna's."""

    sampler: Callable[[Recorded, peers.Point, int, int], BaseSampler]
    """From the benchmark, the start, the study's seed and the number of its trials."""
    pruner: Callable[[Recorded], BasePruner]
    anew: bool = False
    """Make the sampler anew for each trial, as our study does."""

    def __call__(
        self, benchmark: Recorded, start: peers.Point, seed: int, spent: peers.Spent
    ) -> None:
        space = Space(dict(benchmark.space), dict(benchmark.when))
        study = optuna.create_study(
            study_name=f"{benchmark.name} {seed}",  # Hyperband chooses a trial's bracket by it
            direction="maximize",
            pruner=self.pruner(benchmark),
        )
        study.sampler = self.sampler(benchmark, start, seed, 0)
        study.enqueue_trial(dict(start))
        while True:
            if self.anew:
                study.sampler = self.sampler(
                    benchmark, start, seed, len(study.get_trials(deepcopy=False))
                )
            trial = study.ask()
            best = -np.inf
            for epoch, value in enumerate(spent.train(space.suggest(trial)), start=1):
                best = max(best, value)
                trial.report(value, epoch)
                if epoch < benchmark.epochs and trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, best)


def _ours(benchmark: Recorded, start: peers.Point, seed: int, trials: int) -> BaseSampler:
    return CurveSampler(
        benchmark.space, conditions=benchmark.when, start=start, seed=sampler_seed(seed, trials)
    )


def _halving(benchmark: Recorded) -> BasePruner:
    return make_pruner("halving", benchmark.epochs, benchmark.small_epochs)


METHODS: Mapping[str, peers.Method] = {
    OURS: OptunaMethod(_ours, _halving, anew=True),
    BEFORE: OptunaMethod(
        lambda _, __, seed, trials: samplers.tpe(sampler_seed(seed, trials), {}, Space({}), 0),
        _halving,
        anew=True,
    ),
    "random": OptunaMethod(
        lambda _, __, seed, ___: RandomSampler(seed=seed), lambda _: NopPruner()
    ),
    "optuna": OptunaMethod(
        lambda _, __, seed, ___: TPESampler(seed=seed), lambda _: MedianPruner()
    ),
    "tpe_hyperband": OptunaMethod(
        lambda _, __, seed, ___: TPESampler(seed=seed, multivariate=True, n_startup_trials=5),
        lambda benchmark: HyperbandPruner(1, benchmark.epochs, 3),
    ),
    "asha": OptunaMethod(  # Ray Tune's defaults: grace period 1, reduction factor 4
        lambda _, __, seed, ___: RandomSampler(seed=seed),
        lambda _: SuccessiveHalvingPruner(1, 4, 0),
    ),
    "optuna_gp": OptunaMethod(
        lambda _, __, seed, ___: peers.gp_sampler(seed), lambda _: NopPruner()
    ),
    "smac": peers.smac,
    "dehb": peers.dehb,
    "keras_tuner": peers.keras_tuner,
}


def best_by_epoch(
    method: peers.Method, benchmark: Recorded, start: peers.Point, seed: int, trainings: int
) -> Array:
    """The value of a study's best setting after each trained epoch, (trainings * epochs,)."""
    spent = peers.Spent(benchmark, seed, trainings)
    try:
        method(benchmark, start, seed, spent)
    except peers.BudgetSpent:
        return np.array(spent.best)
    raise RuntimeError("the method ended before its budget")


def main(replay: Replay) -> None:
    silence_optuna()
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of TPE's `group`
    benchmarks = recorded.read(replay.curves)
    if replay.surrogate is not None:
        benchmarks = [replace(benchmark, surrogate=replay.surrogate) for benchmark in benchmarks]
    methods = chosen(replay.methods)
    best: dict[str, list[list[Array]]] = {name: [] for name in methods}
    for benchmark in track(benchmarks, "benchmarks", console=Console(stderr=True)):
        for name in methods:
            best[name].append(
                [
                    best_by_epoch(
                        METHODS[name],
                        benchmark,
                        benchmark.bad_start(seed) if replay.start == "bad" else benchmark.start,
                        seed,
                        AFTER[-1],
                    )
                    for seed in range(replay.seeds)
                ]
            )
    regrets = measured(benchmarks, best, Recorded.regret)
    if replay.json is not None:
        replay.json.write_text(json.dumps(records(benchmarks, best, regrets), indent=1) + "\n")
    tables = [summary(regrets)]
    if judged := [k for k, benchmark in enumerate(benchmarks) if benchmark.noise is not None]:
        points = measured(benchmarks, best, points_above_start)
        tables.append(points_summary({m: [points[m][k] for k in judged] for m in methods}))
    Console(width=150).print(
        *tables, f"{len(benchmarks)} benchmarks x {replay.seeds} seeds, start: {replay.start}"
    )


def measured(
    benchmarks: list[Recorded], best: Values, measure: Callable[[Recorded, Array], Array]
) -> dict[str, list[list[Array]]]:
    """A measure of each method's best values, by benchmark and seed."""
    return {
        name: [
            [measure(benchmark, values) for values in by_seed]
            for benchmark, by_seed in zip(benchmarks, by_benchmark, strict=True)
        ]
        for name, by_benchmark in best.items()
    }


def points_above_start(benchmark: Recorded, best: Array) -> Array:
    """Percentage points above the known good setting."""
    return 100 * (best - benchmark.value(benchmark.start))


def chosen(names: str) -> list[str]:
    """The methods of that name, without those that aren't installed if all are wanted."""
    if names == "all":
        missing = {name for name in METHODS if peers.missing(name)}
        for name in sorted(missing):
            print(peers.missing(name))
        return [name for name in METHODS if name not in missing]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in METHODS:
            raise InputError(f"methods={name}: no such method; choose from {', '.join(METHODS)}")
        if message := peers.missing(name):
            raise InputError(f"methods={message}")
    return wanted


def after(values: Array, trainings: float) -> float:
    """The value after the cost of so many full trainings, of AFTER's last in all."""
    return float(values[round(len(values) * trainings / AFTER[-1]) - 1])


def records(benchmarks: list[Recorded], best: Values, regrets: Values) -> list[dict[str, object]]:
    """What each study reached; points above the known good setting where the truth is known."""
    found = []
    for method, by_benchmark in regrets.items():
        for k, benchmark in enumerate(benchmarks):
            for seed, regret in enumerate(by_benchmark[k]):
                record: dict[str, object] = {
                    "benchmark": benchmark.name,
                    "method": method,
                    "seed": seed,
                    "regret": {str(n): round(after(regret, n), 5) for n in AFTER},
                }
                if benchmark.noise is not None:
                    points = points_above_start(benchmark, best[method][k][seed])
                    record["points"] = {str(n): round(after(points, n), 3) for n in AFTER}
                found.append(record)
    return found


def at_trainings(values: Values) -> dict[str, Array]:
    """Of each method the values at AFTER, (benchmarks, seeds, AFTER)."""
    return {
        name: np.array([[[after(v, n) for n in AFTER] for v in seeds] for seeds in by_benchmark])
        for name, by_benchmark in values.items()
    }


def summary(regrets: Values) -> Table:
    """A row a method: mean regret, and how ours compares with it."""
    at = at_trainings(regrets)
    table = Table("method", *(f"after {n}" for n in AFTER))
    if OURS in at:
        table.add_column(f"ours minus it after {AFTER[-1]} (95 %)")
        table.add_column("ours better on")
    if BEFORE in at:
        table.add_column(f"trainings to what {BEFORE} has after {AFTER[-1]}")
    for name, regret in sorted(at.items(), key=lambda item: item[1][..., -1].mean()):
        row = [name, *(f"{mean:.3f}" for mean in regret.mean(axis=(0, 1)))]
        if OURS in at:
            row += ["", ""] if name == OURS else compared(at[OURS][..., -1] - regret[..., -1])
        if BEFORE in at:
            row.append(trainings_to(at[BEFORE][..., -1].mean(), regrets[name]))
        table.add_row(*row)
    return table


def points_summary(points: Values) -> Table:
    """A row a method: mean points above the known good setting, and how ours compares with it."""
    at = at_trainings(points)
    title = "points of true accuracy above the known good setting"
    table = Table("method", *(f"after {n}" for n in AFTER), title=title)
    table.add_column(f"ours minus it after {AFTER[-1]} (95 %)")
    for name, values in sorted(at.items(), key=lambda item: -item[1][..., -1].mean()):
        row = [name, *(f"{mean:+.2f}" for mean in values.mean(axis=(0, 1)))]
        if OURS in at and name != OURS:
            row += compared(at[OURS][..., -1] - values[..., -1])[:1]
        table.add_row(*row)
    return table


def compared(difference: Array) -> list[str]:
    """The mean of (benchmarks, seeds) with its interval, and on how many benchmarks it is < 0."""
    low, high = interval(difference)
    better = int((difference.mean(axis=1) < 0).sum())
    return [
        f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})",
        f"{better} of {len(difference)}",
    ]


def interval(difference: Array) -> tuple[float, float]:
    """95 % interval of the mean of (benchmarks, seeds), drawing benchmarks, then seeds in each."""
    rng = np.random.default_rng(0)
    n, seeds = difference.shape
    drawn = rng.integers(n, size=(DRAWS, n, 1)), rng.integers(seeds, size=(DRAWS, n, seeds))
    low, high = np.quantile(difference[drawn].mean(axis=(1, 2)), [0.025, 0.975])
    return float(low), float(high)


def trainings_to(wanted: float, regrets: list[list[Array]]) -> str:
    """Full trainings after which the mean regret is at most `wanted`, in steps of a quarter."""
    for n in np.arange(0.25, AFTER[-1] + 0.25, 0.25):
        if np.mean([after(regret, n) for seeds in regrets for regret in seeds]) <= wanted:
            return f"{n:g}"
    return f"not in {AFTER[-1]}"


if __name__ == "__main__":
    run(main, Replay)
