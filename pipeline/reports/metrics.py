"""Classification metrics from labels and predicted probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix

from pipeline.data import CLASSES

CODES = range(len(CLASSES))


@dataclass(frozen=True)
class Metrics:
    """How probabilities (N, 7) fare against labels (N,).

    `confusion` (7, 7) counts faces by true class (row) and predicted class (column). `report` is
    scikit-learn's: precision, recall, f1-score and support by class name, and their averages; a
    class that is never predicted, or absent, counts as 0. `low` and `high` bound the accuracy.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    accuracy: float
    low: float
    high: float
    confusion: NDArray[np.int64]
    report: dict[str, Any]

    @property
    def predictions(self) -> NDArray[np.intp]:
        return self.probabilities.argmax(axis=1)


def compute(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Metrics:
    """Raises ValueError without faces, since nothing can be said of none."""
    if len(labels) == 0:
        raise ValueError("no faces to evaluate")
    predictions = probabilities.argmax(axis=1)
    right = int(np.count_nonzero(predictions == labels))
    low, high = accuracy_interval(right, len(labels))
    report = classification_report(labels, predictions, **_REPORT_OPTIONS, output_dict=True)
    confusion = confusion_matrix(labels, predictions, labels=CODES)
    return Metrics(labels, probabilities, right / len(labels), low, high, confusion, report)


_REPORT_OPTIONS: dict[str, Any] = {"labels": CODES, "target_names": CLASSES, "zero_division": 0}


def accuracy_interval(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval for `right` of `count` (Wilson 1927, "Probable inference")."""
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def report_text(evaluation: Metrics) -> str:
    """scikit-learn's table, with the accuracy's interval below it."""
    table = classification_report(
        evaluation.labels, evaluation.predictions, **_REPORT_OPTIONS, digits=3
    )
    return f"{table}\naccuracy {accuracy_text(evaluation)}\n"


def accuracy_text(evaluation: Metrics) -> str:
    return (
        f"{evaluation.accuracy:.1%} (95 % interval {evaluation.low:.1%} to {evaluation.high:.1%}, "
        f"{len(evaluation.labels):,} faces)"
    )


def confusion_csv(evaluation: Metrics) -> str:
    """The counts, true classes down, predicted classes across."""
    true, predicted = pd.Index(CLASSES, name="true"), pd.Index(CLASSES)
    return pd.DataFrame(evaluation.confusion, index=true, columns=predicted).to_csv()


def predictions_csv(evaluation: Metrics, unseen: NDArray[np.bool_]) -> str:
    """A row a face, in the dataset's order: label, prediction and the seven probabilities.

    `unseen` (N,) says which faces have no copy among those that the network was trained on.
    """
    names = np.array(CLASSES)
    table = pd.DataFrame(evaluation.probabilities, columns=[f"p_{name}" for name in CLASSES])
    table.insert(0, "label", names[evaluation.labels])
    table.insert(1, "predicted", names[evaluation.predictions])
    table.insert(2, "unseen", unseen)
    return table.to_csv(index_label="face", float_format="%.6g")


def metrics(evaluation: Metrics, prefix: str) -> dict[str, float]:
    """Every number under its name in the store, such as test_accuracy for the prefix "test"."""
    report = evaluation.report
    numbers = {
        "accuracy": evaluation.accuracy,
        "accuracy_low": evaluation.low,
        "accuracy_high": evaluation.high,
        "macro_f1": report["macro avg"]["f1-score"],
        "weighted_f1": report["weighted avg"]["f1-score"],
    }
    for name in CLASSES:
        numbers[f"precision_{name}"] = report[name]["precision"]
        numbers[f"recall_{name}"] = report[name]["recall"]
        numbers[f"f1_{name}"] = report[name]["f1-score"]
    return {f"{prefix}_{name}": float(value) for name, value in numbers.items()}


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same faces, given as masks (N,) of the right.

    Returns how many faces only the first has right, how many only the second, and the two-sided p
    that a fair coin would part them so unevenly (McNemar 1947, in its exact binomial form).
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    if only_first + only_second == 0:
        return 0, 0, 1.0
    p = binomtest(only_first, only_first + only_second).pvalue
    return only_first, only_second, float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the order given.

    Testing each against 0.05 keeps the chance of even one false finding below 0.05.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def subset(evaluation: Metrics, rows: ArrayLike) -> Metrics | None:
    """The evaluation of some of its faces, by a mask (N,); None if it selects none."""
    mask = np.asarray(rows, bool)
    if not mask.any():
        return None
    return compute(evaluation.labels[mask], evaluation.probabilities[mask])


def worst_mistakes(evaluation: Metrics, count: int) -> NDArray[np.intp]:
    """Rows of the wrong predictions that the network was surest of, surest first."""
    confidence = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
