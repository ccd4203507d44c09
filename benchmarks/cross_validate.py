"""Quality of the surrogates that replay recorded curves.

    python -m benchmarks.cross_validate --curves FOLDER

prints for each file and each surrogate Spearman's rank correlation of what it predicts with the
settings that were recorded, none of which it was given (cross-validated; repeats of a setting stay
together): of the best epoch, of the last and of the mean over epochs, and of the best epoch among
the better half alone. The noise is the standard deviation of what a search sees after the last
epoch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.model_selection import GroupKFold

from benchmarks import recorded, run
from benchmarks.recorded import Array, Recorded
from benchmarks.surrogate import MODELS, fit

FOLDS = 10


@dataclass(frozen=True)
class Check:
    curves: Path
    """Folder of recorded curves, .npz files, or one of them."""
    surrogates: str = ",".join(MODELS)
    """Surrogates with commas between."""


def main(check: Check) -> None:
    table = Table(
        "file", "surrogate", "settings", "noise", "best epoch", "last", "mean", "better half"
    )
    for benchmark in recorded.read(check.curves):
        noise = "" if benchmark.noise is None else f"{benchmark.noise[:, -1].std():.4f}"
        for surrogate in check.surrogates.split(","):
            true, predicted = held_out(benchmark, surrogate)
            correlations = [f"{value:.2f}" for value in rank_correlations(true, predicted)]
            table.add_row(benchmark.name, surrogate, str(len(true)), noise, *correlations)
    Console(width=150).print(table)


def held_out(benchmark: Recorded, surrogate: str) -> tuple[Array, Array]:
    """Mean recorded curves of the settings, and those predicted from others; (n, epochs) each."""
    settings = benchmark.cube.encode(benchmark.rows)
    group = benchmark.setting
    predicted = np.empty_like(benchmark.curves)
    folds = GroupKFold(min(FOLDS, len(np.unique(group))), shuffle=True, random_state=0)
    for known, other in folds.split(settings, groups=group):
        predict = fit(surrogate, settings[known], benchmark.curves[known])
        predicted[other] = predict(settings[other])
    rows = [group == number for number in np.unique(group)]
    return (
        np.array([benchmark.curves[row].mean(axis=0) for row in rows]),
        np.array([predicted[row].mean(axis=0) for row in rows]),
    )


def rank_correlations(true: Array, predicted: Array) -> list[float]:
    """Of the best epoch, the last, the mean over epochs, and of the better half's best epoch."""
    best = true.max(axis=1)
    better = best >= np.median(best)
    pairs = [
        (best, predicted.max(axis=1)),
        (true[:, -1], predicted[:, -1]),
        (true.mean(axis=1), predicted.mean(axis=1)),
        (best[better], predicted.max(axis=1)[better]),
    ]
    return [float(spearmanr(a, b).statistic) for a, b in pairs]


if __name__ == "__main__":
    run(main, Check)
