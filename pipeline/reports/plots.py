"""Plots: each function takes arrays and writes one PNG.

A plot is 7 inches wide at 200 dots an inch: its text is legible in MLflow's frame, about 700 pixels
wide, and sharp on a screen with two dots a pixel. Lines are named where they end.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from pipeline.data import SPLITS
from pipeline.percent import percent
from pipeline.reports.calibration import reliability
from pipeline.reports.metrics import Metrics, accuracy_interval, accuracy_text, worst_mistakes

# Without pyplot, which has a global list of figures and is not thread-safe.
DPI = 200
WIDTH = 7
BLUE, ORANGE, GREY = "#1f6fb4", "#c46a0b", "#777777"  # safe for colour-blind readers
PALE_BLUE = "#8fc1e3"
CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
"""Metrics of every epoch that are drawn as learning curves."""
PARTS = (("train", "train", BLUE), ("val", "validation", ORANGE))


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=DPI, bbox_inches="tight", pad_inches=0.08)
    return file


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def classes(counts: Mapping[str, Sequence[int]], names: Sequence[str], file: Path) -> Path:
    """Bar chart of the faces by class and split; `counts` has a number for each of the classes
    `names`, for each split's name."""
    figure = _figure(4)
    axes = figure.subplots()
    bottom = np.zeros(len(names))
    for split, shade in zip(SPLITS, (BLUE, PALE_BLUE, ORANGE), strict=True):
        axes.bar(
            names,
            counts[split],
            bottom=bottom,
            label=f"{split} ({sum(counts[split]):,})",
            color=shade,
        )
        bottom += counts[split]
    for x, total in enumerate(bottom):
        axes.annotate(
            f"{total:,.0f}\n{percent(total / bottom.sum())}", (x, total), (0, 3),
            textcoords="offset points", ha="center", fontsize=9,
        )  # fmt: skip
    axes.set(ylabel="faces", ylim=(0, 1.2 * bottom.max()), title="Faces by class and split")
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, file)


def faces(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    names: Sequence[str],
    file: Path,
    columns: int = 12,
) -> Path:
    """Sheet of example faces, a row for each of the classes `names`, evenly spaced over them."""
    gap, side = 2, images.shape[1]
    # One image instead of an axes for each face, which takes matplotlib 2 s.
    sheet = np.full((len(names) * (side + gap), columns * (side + gap)), 255, np.uint8)
    for code in range(len(names)):
        found = np.flatnonzero(labels == code)
        for k, row in enumerate(found[np.linspace(0, len(found) - 1, columns).astype(int)]):
            y, x = code * (side + gap), k * (side + gap)
            sheet[y : y + side, x : x + side] = images[row]
    figure = _figure(3.8)
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    _hide_frame(axes)
    axes.set_yticks(np.arange(len(names)) * (side + gap) + side / 2, names)
    axes.tick_params(length=0)
    return _save(figure, file)


def curves(history: Sequence[Mapping[str, float]], best_epoch: int, file: Path) -> Path:
    """Loss and accuracy by epoch on train and validation, with the epoch that is saved, and the
    learning rate below them."""
    epochs = np.arange(1, len(history) + 1)
    figure, panels = _panels(has_strip=True)
    for axes, metric in zip(panels, ("loss", "accuracy"), strict=False):
        ends = []
        for part, _, color in PARTS:
            values = [logs[f"{part}/{metric}"] for logs in history]
            axes.plot(epochs, values, marker="." if len(epochs) < 40 else "", color=color)
            ends.append(values[-1])
        _name_ends(axes, epochs[-1], ends)
        axes.axvline(best_epoch, color=GREY, linestyle=":")
    rates = [logs.get("learning_rate", np.nan) for logs in history]
    panels[2].plot(epochs, rates, color=GREY)
    panels[2].fill_between(epochs, rates, color=GREY, alpha=0.2)
    panels[2].set(ylabel="learning\nrate", ylim=(0, None))
    accuracy = history[best_epoch - 1]["val/accuracy"]
    figure.suptitle(
        f"Validation accuracy {percent(accuracy)} in epoch {best_epoch}, which is saved (dotted)",
        fontsize=11,
    )
    return _save(figure, file)


def band(members: Mapping[str, NDArray[np.float64]], file: Path) -> Path:
    """Loss and accuracy by epoch of a training on several seeds: mean, and standard deviation.

    `members` has the values (seeds, epochs) of each of `CURVES`.
    """
    seeds, count = members[CURVES[0]].shape
    epochs = np.arange(1, count + 1)
    figure, panels = _panels(has_strip=False)
    for axes, metric in zip(panels, ("loss", "accuracy"), strict=True):
        ends = []
        for part, _, color in PARTS:
            values = members[f"{part}/{metric}"]
            mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
            axes.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.2, lw=0)
            axes.plot(epochs, values.T, color=color, lw=0.6, alpha=0.6)
            axes.plot(epochs, mean, color=color, lw=2)
            ends.append(float(mean[-1]))
        _name_ends(axes, epochs[-1], ends)
    figure.suptitle(f"Mean of {seeds} seeds, and one standard deviation to either side")
    return _save(figure, file)


def _panels(*, has_strip: bool) -> tuple[Figure, list[Axes]]:
    """Axes for loss, accuracy and, as a strip, the learning rate, above each other."""
    heights = (3, 3, 1) if has_strip else (1, 1)
    figure = _figure(6.4 if has_strip else 5.4)
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    for axes, name in zip(panels, ("loss", "accuracy"), strict=False):
        axes.set_ylabel(name)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for axes in panels:
        _bare(axes)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure, panels


def _name_ends(axes: Axes, x: float, ends: Sequence[float]) -> None:
    """The names of `PARTS` beside the ends of their lines, moved apart where they would touch."""
    low, high = axes.get_ylim()
    close = abs(ends[0] - ends[1]) < 0.09 * (high - low)
    for (_, name, color), y in zip(PARTS, ends, strict=True):
        shift = (7 if y == max(ends) else -7) if close else 0
        axes.annotate(
            name, (x, y), (6, shift), textcoords="offset points", va="center", color=color,
            annotation_clip=False,
        )  # fmt: skip


def confusion_matrix(evaluation: Metrics, split: str, file: Path) -> Path:
    """Confusion matrix with counts; the colour is the share of the true class."""
    confusion = evaluation.confusion
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = _figure(6.6)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(confusion):
        color = "white" if shares[i, j] > 0.55 else "black"
        text = f"{count:,}\n{percent(shares[i, j], 0)}" if count else ""
        axes.text(j, i, text, ha="center", va="center", color=color, fontsize=9)
    names = evaluation.classes
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{split} split: {accuracy_text(evaluation)}", fontsize=10)
    return _save(figure, file)


def class_figures(evaluation: Metrics, split: str, file: Path) -> Path:
    """Recall and precision of each class, with Wilson's 95 % intervals."""
    confusion = evaluation.confusion
    figure = _figure(4.2)
    axes = figure.subplots()
    _bare(axes)
    rows = np.arange(len(evaluation.classes))
    for shift, name, color, marker, counts in (
        (-0.14, "recall", BLUE, "o", confusion.sum(axis=1)),
        (0.14, "precision", ORANGE, "s", confusion.sum(axis=0)),
    ):
        for row, count in enumerate(counts):
            if count == 0:  # no face of the class, or none was taken for one: not defined
                continue
            low, high = accuracy_interval(int(confusion[row, row]), int(count))
            axes.plot([low, high], [row + shift] * 2, color=color, lw=1.5)
            axes.plot(confusion[row, row] / count, row + shift, marker, color=color, ms=6)
        axes.plot([], [], marker=marker, color=color, label=name)
    faces = confusion.sum(axis=1)
    named = zip(evaluation.classes, faces, strict=True)
    axes.set_yticks(rows, [f"{name} ({count:,})" for name, count in named])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), title=f"{split} split: recall and precision, with 95 % intervals")
    axes.title.set_fontsize(10)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2
    )
    return _save(figure, file)


def reliability_diagram(evaluation: Metrics, split: str, file: Path) -> Path:
    """Accuracy by confidence, in the bins of the expected calibration error, over their sizes."""
    found = reliability(evaluation.labels, evaluation.probabilities)
    figure = _figure(5.6)
    axes, sizes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    width = 1 / len(found.counts)
    filled = found.counts > 0
    axes.plot([0, 1], [0, 1], color=GREY, ls=":")
    axes.annotate("confidence = accuracy", (0.01, 0.12), color=GREY, fontsize=8)
    axes.bar(
        found.centres[filled], found.accuracy[filled], 0.92 * width, color=PALE_BLUE, edgecolor=BLUE
    )
    axes.plot(found.confidence[filled], found.confidence[filled], "_", color=ORANGE, ms=14, mew=2)
    if filled.any():
        last = found.confidence[filled][-1]
        axes.annotate(
            "mean confidence", (last, last), (-14, 8), textcoords="offset points", ha="right",
            color=ORANGE, fontsize=9,
        )  # fmt: skip
    sizes.bar(found.centres, found.counts, 0.92 * width, color=GREY)
    axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    sizes.set(xlabel="confidence: the highest probability", ylabel="faces")
    for panel in (axes, sizes):
        _bare(panel)
    for axis in (axes.yaxis, sizes.xaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_title(f"{split} split: expected calibration error {percent(found.error)}", fontsize=10)
    return _save(figure, file)


def mistakes(
    evaluation: Metrics, images: NDArray[np.uint8], file: Path, rows: int = 4, columns: int = 6
) -> Path:
    """Wrongly classified faces with the highest probability; `images` is (N, 48, 48, 1)."""
    chosen = worst_mistakes(evaluation, rows * columns)
    captions = []
    for row in chosen:
        predicted = int(evaluation.predictions[row])
        share = percent(evaluation.probabilities[row, predicted], 0)
        label = evaluation.classes[evaluation.labels[row]]
        captions.append(f"labelled {label}\n{evaluation.classes[predicted]} {share}")
    title = "Most confident errors: label above, prediction below"
    return captioned(images[chosen, ..., 0], captions, title, file, columns)


def captioned(
    images: NDArray[np.uint8], captions: Sequence[str], title: str, file: Path, columns: int = 6
) -> Path:
    """Sheet of faces (n, 48, 48), each with its caption of the same number of lines above it."""
    rows = max(1, -(-len(images) // columns))
    lines = captions[0].count("\n") + 1 if captions else 0
    figure = _figure(rows * (1.2 + 0.15 * lines) + 0.4)
    for k, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        _hide_frame(axes)
        if k < len(images):
            axes.imshow(images[k], cmap="gray", vmin=0, vmax=255)
            axes.set_title(captions[k], fontsize=8)
    figure.suptitle(title, fontsize=10)
    return _save(figure, file)


def _hide_frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
