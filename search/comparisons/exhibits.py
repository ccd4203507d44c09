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

from pipeline.data.classes import in_order
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

    They are evenly spaced over the split. A group predicts what most of its seeds predict. A pair
    whose images are gone, or that agrees, is left out.
    """
    found = []
    for pair in pairs[:MOST_PAIRS]:
        first, second = candidates[pair.first], candidates[pair.second]
        words = [_majority(candidate) for candidate in (first, second)]
        rows = np.flatnonzero((words[0] == first.labels) != (words[1] == first.labels))
        if len(rows) > SHOWN:
            rows = rows[np.linspace(0, len(rows) - 1, SHOWN).astype(int)]
        images = faces_of(first.evaluated[0], first.members[0].faces[rows]) if len(rows) else None
        if images is None:
            continue
        faces = [
            Face(_png(image), first.labels[row], words[0][row], words[1][row])
            for image, row in zip(images, rows, strict=True)
        ]
        found.append((first.name, second.name, faces))
    return found


def _majority(candidate: Candidate) -> NDArray[np.str_]:
    """The class that most seeds predict, of each face (N,)."""
    names = in_order(name for member in candidate.members for name in member.predicted.tolist())
    votes = [
        np.sum([member.predicted == name for member in candidate.members], axis=0) for name in names
    ]
    chosen: NDArray[np.str_] = np.array(names)[np.argmax(votes, axis=0)]
    return chosen


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
    """Minutes since the first epoch began, and validation accuracy, of each epoch.

    A resumed training has the times of its later part alone, so it has no curve.
    """
    run = queries.get(run_id, "train")
    names = [name for name in (ACCURACY, "val_accuracy") if name in run.data.metrics]
    if not names or run.data.params.get("resume", "None") != "None":
        return []
    points = MlflowClient().get_metric_history(run_id, names[0])
    points.sort(key=lambda point: point.step)
    ends = np.array([point.timestamp for point in points]) / 60_000
    first = (ends[-1] - ends[0]) / max(len(ends) - 1, 1)  # its own begin is not on record
    return [
        (float(end - ends[0] + first), point.value) for end, point in zip(ends, points, strict=True)
    ]
