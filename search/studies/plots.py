"""Plots of a study and of the report's grid. Each function takes a table and writes one file.

The table of a study is `table.trials_table`: a row a trial, its parameters in the columns
`param_<name>`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    MaxNLocator,
    PercentFormatter,
)

from pipeline.reports.plots import BLUE, DPI, GREY, ORANGE

MARKERS = {"complete": (BLUE, "o"), "pruned": (ORANGE, "v"), "fail": (GREY, "x")}
"""Colour and marker of a trial by its state; the marker is distinct without colour."""
PARAM = "param_"


def history(table: pd.DataFrame, file: Path) -> Path:
    """Best validation accuracy by trial, and the best of the finished trials so far."""
    figure, axes = _figure(8, 4.2)
    _scatter(axes, table, table["number"])
    finished = table[table["state"] == "complete"]
    axes.step(
        finished["number"], finished["val_accuracy"].cummax(), where="post", color=BLUE, lw=1.2
    )
    best = finished["val_accuracy"].max()
    axes.set(xlabel="trial", ylabel="best validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"Best finished trial: {best:.1%}" if len(finished) else "No trial finished")
    axes.legend(frameon=False)
    return _save(figure, file)


def curves(
    table: pd.DataFrame, by_trial: Mapping[int, Mapping[int, float]], rungs: Sequence[int],
    file: Path,
) -> Path:  # fmt: skip
    """Validation accuracy by epoch; `by_trial` maps a trial's number to {epoch: accuracy}."""
    figure, axes = _figure(8, 4.6)
    best = table.loc[table["state"] == "complete", "val_accuracy"].max()
    for row in table.itertuples():
        values = by_trial[row.number]
        if not values:
            continue
        color, marker = MARKERS[row.state]
        is_best = row.state == "complete" and row.val_accuracy == best
        epochs, accuracies = list(values), list(values.values())
        axes.plot(epochs, accuracies, color=color, lw=2.4 if is_best else 1, alpha=0.8)
        axes.plot(epochs[-1], accuracies[-1], marker, color=color, ms=5)
    for state, (color, marker) in MARKERS.items():
        if count := int((table["state"] == state).sum()):
            axes.plot([], [], marker, color=color, ls="-", label=f"{state_name(state)} ({count})")
    for k, epoch in enumerate(rungs):
        label = "where trials are compared" if k == 0 else None
        axes.axvline(epoch, color=GREY, ls=":", lw=1, label=label)
    axes.set(xlabel="epoch", ylabel="validation accuracy", title="Learning curves")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9)
    return _save(figure, file)


def report_vs_measured(table: pd.DataFrame, legend: str, file: Path) -> Path:
    """Test accuracy of each setting in the report and here, both with 95 % intervals.

    `legend` describes the trainings here, which may be shorter than the report's.
    """
    figure, axes = _figure(9, 1.4 + 0.42 * len(table))
    rows = np.arange(len(table))
    for prefix, color, shift, name in (
        ("report", GREY, -0.14, "the report"),
        ("measured", BLUE, 0.14, legend),
    ):
        value = table[prefix].to_numpy()
        below, above = value - table[f"{prefix}_low"], table[f"{prefix}_high"] - value
        axes.errorbar(
            value, rows + shift, xerr=[below, above], fmt="o", color=color, ms=5, capsize=2,
            label=name,
        )  # fmt: skip
    stale = table["stale"].to_numpy(bool)
    axes.plot(
        table["report"][stale], rows[stale] - 0.14, "o", mfc="white", mec=GREY, ms=5,
        zorder=3, label="the report, from another model's table",
    )  # fmt: skip
    axes.set_yticks(rows, table["setting"])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="test accuracy, with 95 % interval")
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center"
    )
    return _save(figure, file)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=DPI)
    return file


def _scatter(axes: Axes, table: pd.DataFrame, x: pd.Series) -> None:
    """Trials as points at `x` and their validation accuracy, by state."""
    for state, (color, marker) in MARKERS.items():
        chosen = (table["state"] == state) & table["val_accuracy"].notna()
        if chosen.any():
            axes.plot(
                x[chosen], table["val_accuracy"][chosen], marker, color=color, alpha=0.85,
                label=f"{state_name(state)} ({chosen.sum()})",
            )  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def state_name(state: str) -> str:
    return {"complete": "finished", "fail": "failed"}.get(state, state)
