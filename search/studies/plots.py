"""Plots of a study and of the report's grid. Each function takes a table and writes one file.

The table of a study is `summary.trials_table`: a row a trial, its parameters in the columns
`param_<name>`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)
from numpy.typing import NDArray

from pipeline.reports.plots import BLUE, DPI, GREY, ORANGE

MARKERS = {"complete": (BLUE, "o"), "pruned": (ORANGE, "v"), "fail": (GREY, "x")}
"""Colour and marker of a trial by its state; the marker is distinct without colour."""
LOGARITHMIC = {"lr", "batch_size", "l2", "weight_decay", "width"}
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


def importance(shares: Mapping[str, float], trials: int, file: Path) -> Path:
    """Parameter importance: share of the variance of validation accuracy, summing to 1."""
    names = sorted(shares, key=lambda name: shares[name])
    figure, axes = _figure(8, 1.2 + 0.45 * len(names))
    axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    for y, name in enumerate(names):
        axes.annotate(
            f"{shares[name]:.0%}", (shares[name], y), (4, 0), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
    axes.set_xlim(0, 1.12 * max(shares.values()))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="share of the variance of validation accuracy")
    axes.set_title(f"Parameter importance (fANOVA over {trials} finished trials)")
    return _save(figure, file)


def slices(table: pd.DataFrame, file: Path) -> Path:
    """Best validation accuracy by parameter value, without failed trials."""
    table = table[table["state"] != "fail"]
    names = _params(table)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for k, axes in enumerate(grid.flat):
        if k >= len(names):
            axes.set_visible(False)
            continue
        _style(axes)
        shown = table.dropna(subset=[PARAM + names[k]])
        _scatter(axes, shown, shown[PARAM + names[k]])
        if names[k] in LOGARITHMIC:
            axes.set_xscale("log")
            powers = LogLocator(base=2) if names[k] == "batch_size" else LogLocator(subs=(1, 2, 5))
            axes.xaxis.set_major_locator(powers)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", labelrotation=30)
        axes.set_xlabel(names[k])
    grid[0, 0].legend(frameon=False, fontsize=8)
    figure.supylabel("best validation accuracy", fontsize=10)
    return _save(figure, file)


def parallel(table: pd.DataFrame, file: Path) -> Path:
    """Parallel coordinates of parameters and accuracy: a line a trial, without failed trials."""
    table = table[table["state"] != "fail"]
    names = [name for name in _params(table) if table[PARAM + name].notna().all()]
    figure, axes = _figure(1.9 * (len(names) + 1) + 1, 4.4)
    heights = [_heights(table[PARAM + name], name in LOGARITHMIC) for name in names]
    accuracy, labels = _heights(table["val_accuracy"], False)
    heights.append((accuracy, {height: f"{float(text):.1%}" for height, text in labels.items()}))
    order = np.argsort(np.nan_to_num(accuracy, nan=-1))
    for row in order:
        path = [values[row] for values, _ in heights]
        pruned = table["state"].iloc[row] != "complete"
        shade = 0.15 + 0.85 * float(np.nan_to_num(accuracy[row]))
        axes.plot(
            range(len(path)), path, color=ORANGE if pruned else BLUE,
            alpha=shade, lw=1 + 1.5 * shade, ls="--" if pruned else "-",
        )  # fmt: skip
    for x, (_, marks) in enumerate(heights):
        axes.axvline(x, color="black", lw=0.8)
        for height, text in marks.items():
            axes.annotate(text, (x, height), (4, 0), textcoords="offset points", fontsize=8)
    axes.set_xticks(range(len(heights)), [*names, "validation\naccuracy"])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set_title("Finished trials, and pruned ones dashed; the darker, the better", fontsize=10)
    return _save(figure, file)


def parallel_page(table: pd.DataFrame, file: Path) -> Path:
    """Interactive parallel coordinates: drag along an axis to filter, drag its name to move it."""
    shown = table[table["state"] != "fail"]
    dimensions = [_dimension(shown[PARAM + name], name) for name in _params(shown)]
    dimensions = [dimension for dimension in dimensions if dimension]
    accuracy = shown["val_accuracy"]
    dimensions.append({"label": "validation accuracy", "values": accuracy, "tickformat": ".1%"})
    line = {"color": accuracy, "colorscale": "Viridis", "showscale": True}
    page = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    page.update_layout(title="Drag along an axis to choose trials", margin={"t": 90})
    page.write_html(file, include_plotlyjs=True)
    return file


def timeline(table: pd.DataFrame, file: Path) -> Path:
    """Timeline of the trials by worker, in minutes from the first."""
    started = table.dropna(subset=["begin"])
    workers = list(started.sort_values("begin")["worker"].unique())[::-1]  # the first on top
    figure, axes = _figure(9, 1.3 + 0.5 * len(workers))
    for row in started.itertuples():
        color, _ = MARKERS[row.state]
        y = workers.index(row.worker)
        minutes = row.seconds / 60
        axes.barh(y, minutes, left=row.begin / 60, color=color, height=0.7, edgecolor="white")
        axes.annotate(
            str(row.number), (row.begin / 60 + minutes / 2, y), ha="center", va="center",
            fontsize=8, color="white",
        )  # fmt: skip
    for state, (color, _) in MARKERS.items():
        if (started["state"] == state).any():
            axes.barh([0], [0], color=color, label=state_name(state))
    axes.set_yticks(range(len(workers)), workers)
    axes.set(xlabel="minutes", title="Workers, and the trials that they trained")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
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


def _params(table: pd.DataFrame) -> list[str]:
    return [name.removeprefix(PARAM) for name in table.columns if name.startswith(PARAM)]


def _heights(values: pd.Series, logarithmic: bool) -> tuple[NDArray[np.float64], dict[float, str]]:
    """Values scaled to [0, 1], and the labels of an axis by their height."""
    if values.dtype.kind not in "iuf":
        words = sorted(values.unique())
        step = 1 / max(len(words) - 1, 1)
        places = {word: k * step for k, word in enumerate(words)}
        return values.map(places).to_numpy(float), {h: str(word) for word, h in places.items()}
    numbers = values.to_numpy(float)
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    scaled = np.log([*numbers, low, high]) if logarithmic else np.array([*numbers, low, high])
    span = (scaled[-1] - scaled[-2]) or 1.0
    return (scaled[:-2] - scaled[-2]) / span, {0.0: f"{low:.3g}", 1.0: f"{high:.3g}"}


def _dimension(values: pd.Series, name: str) -> dict[str, object] | None:
    """An axis of plotly's parallel coordinates; None if some trials lack the parameter."""
    if values.isna().any():
        return None
    if values.dtype.kind not in "iuf":
        words = sorted(values.unique())
        codes = [words.index(value) for value in values]
        return {"label": name, "values": codes, "tickvals": [*range(len(words))], "ticktext": words}
    if name in LOGARITHMIC:
        marks = np.geomspace(values.min(), values.max(), 5)
        texts = [f"{mark:.3g}" for mark in marks]
        return {
            "label": name, "values": np.log10(values), "tickvals": np.log10(marks),
            "ticktext": texts,
        }  # fmt: skip
    return {"label": name, "values": values}
