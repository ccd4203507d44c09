"""Plot of the report's grid: its accuracies and ours."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.reports.plots import BLUE, DPI, GREY, WIDTH


def report_vs_measured(table: pd.DataFrame, legend: str, file: Path) -> Path:
    """Test accuracy of each setting in the report and here, both with 95 % intervals.

    `legend` describes the trainings here, which may be shorter than the report's.
    """
    figure = Figure(figsize=(WIDTH, 1.4 + 0.42 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
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
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set(xlabel="test accuracy, with 95 % interval")
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, ncols=1, loc="outside upper left"
    )
    figure.savefig(file, dpi=DPI)
    return file
