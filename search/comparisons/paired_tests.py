"""Paired tests between networks that predicted the same faces."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.reports import metrics

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Predictions:
    """Predictions of an evaluate run: class names (N,), in the order of the dataset's faces.

    `unseen` (N,) marks the faces that have no copy among the network's training faces.
    """

    labels: NDArray[np.str_]
    predicted: NDArray[np.str_]
    unseen: NDArray[np.bool_]

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
    """A network that is compared: its letter, its training's settings and its predictions.

    `digest` identifies the faces of the evaluation, whatever the split of the rest of the dataset.
    `all_known`: whether all faces that the network was trained on are known.
    """

    name: str
    settings: dict[str, str]
    run: str
    digest: str
    split: str
    all_known: bool
    predictions: Predictions


@dataclass(frozen=True)
class Pair:
    """A paired test of candidates `first` and `second` (indices).

    `only_first` and `only_second` count the faces that only one of them classifies correctly; `p`
    is McNemar's, `corrected` is p with Holm's correction.
    """

    first: int
    second: int
    only_first: int
    only_second: int
    p: float
    corrected: float

    @property
    def significant(self) -> bool:
        return self.corrected < SIGNIFICANT

    @property
    def better(self) -> int:
        """Index of the candidate that classifies more faces correctly."""
        return self.first if self.only_first > self.only_second else self.second


def every_pair(predictions: Sequence[Predictions]) -> list[Pair]:
    """McNemar's test of every pair, with Holm's correction for their number."""
    found = [
        (i, j, *metrics.mcnemar(predictions[i].correct, predictions[j].correct))
        for i, j in combinations(range(len(predictions)), 2)
    ]
    corrected = metrics.holm([p for *_, p in found])
    return [Pair(*test, corrected=p) for test, p in zip(found, corrected, strict=True)]


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
    return [Predictions(p.labels[rows], p.predicted[rows], p.unseen[rows]) for p in predictions]


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


def read_predictions(evaluate_run: str) -> Predictions:
    """The predictions.csv of an evaluate run."""
    text = mlflow.artifacts.load_text(f"runs:/{evaluate_run}/predictions.csv")
    table = pd.read_csv(io.StringIO(text), dtype={"label": str, "predicted": str})
    if "unseen" not in table:  # a run of a version without this column
        table["unseen"] = True
    columns = [table[name].to_numpy() for name in ("label", "predicted", "unseen")]
    return Predictions(*columns)
