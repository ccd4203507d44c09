"""Plots: each function takes arrays and writes one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.data import CLASSES, SPLITS
from pipeline.reports.metrics import Metrics, accuracy_text, worst_mistakes

# Without pyplot, which has a global list of figures and is not thread-safe.
DPI = 110
BLUE, ORANGE, GREY = "#1f6fb4", "#d9822b", "#777777"  # safe for colour-blind readers


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=DPI)
    return file


def classes(counts: Mapping[str, Sequence[int]], file: Path) -> Path:
    """Bar chart of the faces by class and split; `counts` has 7 numbers for each split's name."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(CLASSES))
    for split, shade in zip(SPLITS, (BLUE, "#8fc1e3", ORANGE), strict=True):
        axes.bar(
            CLASSES,
            counts[split],
            bottom=bottom,
            label=f"{split} ({sum(counts[split]):,})",
            color=shade,
        )
        bottom += counts[split]
    for x, total in enumerate(bottom):
        axes.annotate(
            f"{total:,.0f}\n{total / bottom.sum():.1%}", (x, total), (0, 3),
            textcoords="offset points", ha="center", fontsize=9,
        )  # fmt: skip
    axes.set(ylabel="faces", ylim=(0, 1.2 * bottom.max()), title="Faces by class and split")
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, file)


def faces(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], file: Path, columns: int = 12
) -> Path:
    """Sheet of example faces, a row for each class, evenly spaced over the dataset."""
    gap, side = 2, images.shape[1]
    # One image instead of an axes for each face, which takes matplotlib 2 s.
    sheet = np.full((len(CLASSES) * (side + gap), columns * (side + gap)), 255, np.uint8)
    for code in range(len(CLASSES)):
        found = np.flatnonzero(labels == code)
        for k, row in enumerate(found[np.linspace(0, len(found) - 1, columns).astype(int)]):
            y, x = code * (side + gap), k * (side + gap)
            sheet[y : y + side, x : x + side] = images[row]
    figure = Figure(figsize=(columns * 0.8 + 1, len(CLASSES) * 0.82), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    _hide_frame(axes)
    axes.set_yticks(np.arange(len(CLASSES)) * (side + gap) + side / 2, CLASSES)
    axes.tick_params(length=0)
    return _save(figure, file)


def curves(history: Sequence[Mapping[str, float]], best_epoch: int, file: Path) -> Path:
    """Loss and accuracy by epoch on train and validation, with the epoch that is saved."""
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, name, color in (("train", "train", BLUE), ("val", "validation", ORANGE)):
            values = [logs[f"{part}/{metric}"] for logs in history]
            axes.plot(epochs, values, marker=".", color=color, label=name)
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"saved: epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel=metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    accuracy = history[best_epoch - 1]["val/accuracy"]
    figure.suptitle(f"Validation accuracy {accuracy:.1%} in epoch {best_epoch}, which is saved")
    return _save(figure, file)


def confusion_matrix(evaluation: Metrics, split: str, file: Path) -> Path:
    """Confusion matrix with counts; the colour is the share of the true class."""
    confusion = evaluation.confusion
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6.6, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(confusion):
        color = "white" if shares[i, j] > 0.55 else "black"
        axes.text(
            j,
            i,
            f"{count:,}\n{shares[i, j]:.0%}",
            ha="center",
            va="center",
            color=color,
            fontsize=9,
        )
    axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=30, ha="right")
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{split} split: {accuracy_text(evaluation)}", fontsize=10)
    return _save(figure, file)


def mistakes(
    evaluation: Metrics, images: NDArray[np.uint8], file: Path, rows: int = 4, columns: int = 8
) -> Path:
    """Wrongly classified faces with the highest probability; `images` is (N, 48, 48, 1)."""
    chosen = worst_mistakes(evaluation, rows * columns)
    rows = max(1, -(-len(chosen) // columns))
    figure = Figure(figsize=(columns * 1.3, rows * 1.6 + 0.4), layout="constrained")
    for k, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        _hide_frame(axes)
        if k < len(chosen):
            row = chosen[k]
            predicted = int(evaluation.predictions[row])
            axes.imshow(images[row, ..., 0], cmap="gray", vmin=0, vmax=255)
            axes.set_title(
                f"labelled {CLASSES[evaluation.labels[row]]}\n"
                f"{CLASSES[predicted]} {evaluation.probabilities[row, predicted]:.0%}",
                fontsize=8,
            )
    figure.suptitle("Most confident errors: label above, prediction below", fontsize=10)
    return _save(figure, file)


def _hide_frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
