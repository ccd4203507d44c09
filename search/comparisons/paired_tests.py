"""Paired tests between networks, or groups of seeds, that predicted the same faces.

Two trainings are compared by McNemar's test: its result holds for these two networks. Where one of
the two is a group, `component_test` asks whether the difference holds for other seeds and other
faces, too.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pipeline.errors import InputError
from pipeline.reports import metrics

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Predictions:
    """Predictions of an evaluate run: class names (N,), in the order of the dataset's faces.

    `unseen` (N,) marks the faces that have no copy among the network's training faces, `faces` (N,)
    are their places in the split.
    """

    labels: NDArray[np.str_]
    predicted: NDArray[np.str_]
    unseen: NDArray[np.bool_]
    faces: NDArray[np.intp]

    @property
    def correct(self) -> NDArray[np.bool_]:
        return self.labels == self.predicted

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the accuracy."""
        return metrics.accuracy_interval(int(self.correct.sum()), len(self.correct))


@dataclass(frozen=True)
class Candidate:
    """A network or a group that is compared: its letter, its settings, its seeds' predictions.

    `run` is the id that the user gave, `trained` has the ids of the train runs where known.
    `digest` identifies the faces of the evaluation, whatever the split of the rest of the dataset.
    `all_known`: whether all faces that the network was trained on are known.
    """

    name: str
    settings: dict[str, str]
    run: str
    digest: str
    split: str
    all_known: bool
    members: tuple[Predictions, ...]
    evaluated: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()

    @property
    def labels(self) -> NDArray[np.str_]:
        return self.members[0].labels

    @property
    def correct(self) -> NDArray[np.float64]:
        """Share of the seeds that classify each face correctly, (N,)."""
        found: NDArray[np.float64] = np.mean([m.correct for m in self.members], axis=0)
        return found

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy: Wilson's, or of a group over seeds and faces."""
        if len(self.members) == 1:
            return self.members[0].interval
        low, high, _ = component_test([member.correct for member in self.members], [])
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True)
class Pair:
    """A paired test of candidates `first` and `second` (indices).

    `difference` is the accuracy of the first less that of the second, with its 95 % interval `low`
    to `high`. Between two single networks `only` counts the faces that only the first, and only
    the second classifies correctly. `corrected` is p with Holm's correction.
    """

    first: int
    second: int
    difference: float
    low: float
    high: float
    only: tuple[int, int] | None
    p: float
    corrected: float

    @property
    def significant(self) -> bool:
        return self.corrected < SIGNIFICANT

    @property
    def better(self) -> int:
        """Index of the candidate that classifies more faces correctly."""
        return self.first if self.difference > 0 else self.second


def every_pair(candidates: Sequence[Candidate]) -> list[Pair]:
    """The test of every pair, with Holm's correction for their number."""
    found = []
    for i, j in combinations(range(len(candidates)), 2):
        masks = [[m.correct for m in candidates[k].members] for k in (i, j)]
        low, high, p = component_test(*masks)
        only = None
        if len(masks[0]) == len(masks[1]) == 1:
            *counts, p = metrics.mcnemar(masks[0][0], masks[1][0])
            only = (int(counts[0]), int(counts[1]))
        difference = candidates[i].accuracy - candidates[j].accuracy
        found.append((i, j, difference, low, high, only, p))
    corrected = metrics.holm([test[-1] for test in found])
    return [Pair(*test, corrected=p) for test, p in zip(found, corrected, strict=True)]


def component_test(
    first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]]
) -> tuple[float, float, float]:
    """95 % interval of a difference of mean accuracies over seeds and faces, and its p value.

    `first` and `second` have a mask (N,) of correct faces for each seed. The variance of the
    difference is that between seeds (one for both sides, since there are few) plus that between
    faces; its degrees of freedom are Satterthwaite's. As in the analysis of readers and cases
    (Obuchowski and Rockette 1995, with seeds as readers), both count what seeds and faces do
    together, so the test errs to the careful side. With one seed on each side only faces vary.
    Without a `second` side it is the interval of the first one's accuracy.
    """
    sides = [np.asarray(side, np.float64) for side in (first, second) if len(side)]
    faces = sides[0].mean(axis=0) - (sides[1].mean(axis=0) if len(sides) > 1 else 0)
    spare = sum(len(side) - 1 for side in sides)
    # A side of one seed has no spread of its own: it is taken to have that of the other.
    squares = sum(float(np.sum((side.mean(axis=1) - side.mean()) ** 2)) for side in sides)
    seeds = squares / spare * sum(1 / len(side) for side in sides) if spare else 0.0
    cases = float(faces.var(ddof=1)) / len(faces) if len(faces) > 1 else 0.0
    variance = seeds + cases
    if variance < 1e-18:  # one difference on all faces, but for rounding: then the sign test
        same = float(faces.mean())
        return same, same, min(1.0, 2.0 ** (1 - len(faces))) if same else 1.0
    freedom = variance**2 / (
        (seeds**2 / spare if spare else 0.0) + cases**2 / max(len(faces) - 1, 1)
    )
    t = stats.t(freedom)
    half = float(t.ppf(0.975)) * variance**0.5
    middle = float(faces.mean())
    return middle - half, middle + half, float(2 * t.sf(abs(middle) / variance**0.5))


def common_faces(predictions: Sequence[Predictions]) -> list[Predictions]:
    """The same predictions, restricted to faces that treat all networks equally.

    These are all faces if every network was trained on copies of the same ones, otherwise the
    faces that no network was trained on. Raises InputError if there are none.
    """
    unseen = np.array([p.unseen for p in predictions])
    if (unseen == unseen[0]).all():
        return list(predictions)
    rows = unseen.all(axis=0)
    if not rows.any():
        raise InputError("each of these test faces is one that a network was trained on")
    return [
        Predictions(p.labels[rows], p.predicted[rows], p.unseen[rows], p.faces[rows])
        for p in predictions
    ]


def require_same_faces(candidates: Sequence[Candidate]) -> None:
    """Raise InputError unless all were measured on the same faces."""
    first = candidates[0]
    for other in candidates[1:]:
        if other.digest != first.digest:
            raise InputError(
                f"runs={first.run},{other.run}: measured on different faces "
                f"({first.split} of {first.digest}, {other.split} of {other.digest}); evaluate "
                "both on one dataset with -e evaluate -P data= and give the evaluate runs' ids"
            )


def classes_of(evaluate_run: str) -> list[str]:
    """The classes of an evaluate run, by their codes."""
    columns = _predictions_csv(evaluate_run).partition("\n")[0].split(",")
    return [name.removeprefix("p_") for name in columns if name.startswith("p_")]


def _predictions_csv(evaluate_run: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{evaluate_run}/predictions.csv")


def read_predictions(evaluate_run: str) -> Predictions:
    """The predictions.csv of an evaluate run."""
    text = _predictions_csv(evaluate_run)
    table = pd.read_csv(io.StringIO(text), dtype={"label": str, "predicted": str})
    if "unseen" not in table:  # a run of a version without this column
        table["unseen"] = True
    columns = [table[name].to_numpy() for name in ("label", "predicted", "unseen", "face")]
    return Predictions(*columns)
