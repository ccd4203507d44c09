"""Exhibits of a comparison: faces on which two networks disagree, accuracy against minutes."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from mlflow import MlflowClient
from numpy.typing import NDArray
from PIL import Image

from pipeline.percent import percent
from pipeline.runs import queries
from pipeline.steps.evaluate import faces_of
from search.comparisons.paired_tests import Candidate, Pair
from search.pages import charts
from search.pages.charts import Scale

SHOWN = 12
"""Faces that are shown of a pair."""
MOST_PAIRS = 3
ACCURACY = "val/accuracy"
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Face:
    """A face on which two networks disagree: its image as a data address, and three words."""

    image: str
    label: str
    first: str
    second: str


def disagreements(
    candidates: Sequence[Candidate], pairs: Sequence[Pair]
) -> list[tuple[str, str, list[Face]]]:
    """Names of two candidates and faces of which only one of them is right, by pair.

    They are evenly spaced over the split; of a group, those on which most seeds agree come first.
    A pair whose images are gone, or that agrees, is left out.
    """
    found = []
    for pair in pairs[:MOST_PAIRS]:
        first, second = candidates[pair.first], candidates[pair.second]
        rows = _chosen(first.correct - second.correct)
        images = faces_of(first.evaluated[0], first.members[0].faces[rows]) if len(rows) else None
        if images is None:
            continue
        faces = [
            Face(_png(image), first.labels[row], _word(first, row), _word(second, row))
            for image, row in zip(images, rows, strict=True)
        ]
        found.append((first.name, second.name, faces))
    return found


def _chosen(difference: NDArray[np.float64]) -> NDArray[np.intp]:
    largest = np.abs(difference).max(initial=0)
    rows = np.flatnonzero((np.abs(difference) == largest) & (difference != 0))
    if len(rows) <= SHOWN:
        return rows
    chosen: NDArray[np.intp] = rows[np.linspace(0, len(rows) - 1, SHOWN).astype(int)]
    return chosen


def _word(candidate: Candidate, row: int) -> str:
    """The class that most seeds predict."""
    words, counts = np.unique([m.predicted[row] for m in candidate.members], return_counts=True)
    return str(words[counts.argmax()])


def _png(image: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def accuracy_by_minutes(candidates: Sequence[Candidate]) -> Markup | None:
    """Chart of validation accuracy against minutes of training, a line a training."""
    curves = [
        (k, candidate.name, curve)
        for k, candidate in enumerate(candidates)
        for run_id in candidate.trained
        if len(curve := _curve(run_id)) > 1
    ]
    if not curves:
        return None
    x = Scale.of([0, *(minutes for *_, curve in curves for minutes, _ in curve)], margin=0.01)
    values = [value for *_, curve in curves for _, value in curve]
    y = Scale.of(values, text=charts.percent)
    parts = [charts.x_axis(x, "minutes of training", grid=False), charts.y_axis(y)]
    parts.append(
        charts.lines(
            charts.line(k, [(x.at(a), 1 - y.at(b)) for a, b in curve], f"n{k % 6}")
            for k, _, curve in curves
        )
    )
    named: set[str] = set()
    for k, name, curve in curves:
        if name not in named:
            named.add(name)
            minutes, value = curve[-1]
            at = x.at(minutes), 1 - y.at(value)
            parts.append(
                charts.label(name, *at, dx=5, dy=4, anchor="start", style=f"strong n{k % 6}")
            )
    return charts.plot(
        f"validation accuracy by minutes, at last {percent(curves[0][2][-1][1])} of {curves[0][1]}",
        parts, height=260, bottom=38, right=34,
    )  # fmt: skip


def _curve(run_id: str) -> Curve:
    """Minutes since the start and validation accuracy of each epoch.

    A resumed training has the times of its later part alone, so it has no curve.
    """
    run = queries.get(run_id, "train")
    if run.data.params.get("resume", "None") != "None":
        return []
    names = [name for name in (ACCURACY, "val_accuracy") if name in run.data.metrics]
    points = MlflowClient().get_metric_history(run_id, names[0]) if names else []
    start = run.info.start_time
    return [((p.timestamp - start) / 60_000, p.value) for p in sorted(points, key=lambda p: p.step)]
