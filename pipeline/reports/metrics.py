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
from pipeline.percent import interval, percent
from pipeline.reports import calibration


@dataclass(frozen=True)
class Metrics:
    """Classification metrics of probabilities (N, classes) against labels (N,).

    `low` and `high` are the accuracy's 95 % interval. `confusion` (classes, classes) counts faces
    by true class (row) and predicted class (column). `by_class` is scikit-learn's classification
    report: precision, recall, f1-score and support by class name, and their averages; a class that
    is never predicted, or absent, counts as 0. `against` says what the labels are where a dataset
    has others too.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    accuracy: float
    low: float
    high: float
    confusion: NDArray[np.int64]
    by_class: dict[str, Any]
    classes: tuple[str, ...] = CLASSES
    against: str = ""

    @property
    def predictions(self) -> NDArray[np.intp]:
        return self.probabilities.argmax(axis=1)


def compute(
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    classes: tuple[str, ...] = CLASSES,
    against: str = "",
) -> Metrics:
    """Metrics of probabilities (N, classes) and labels (N,). Raises ValueError if N is 0."""
    if len(labels) == 0:
        raise ValueError("no faces to evaluate")
    predictions = probabilities.argmax(axis=1)
    correct = int(np.count_nonzero(predictions == labels))
    low, high = accuracy_interval(correct, len(labels))
    by_class = classification_report(labels, predictions, **_options(classes), output_dict=True)
    confusion = confusion_matrix(labels, predictions, labels=range(len(classes)))
    accuracy = correct / len(labels)
    return Metrics(
        labels, probabilities, accuracy, low, high, confusion, by_class, classes, against
    )


def _options(classes: Sequence[str]) -> dict[str, Any]:
    return {"labels": range(len(classes)), "target_names": classes, "zero_division": 0}


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval for `correct` of `count` (Wilson 1927, "Probable inference")."""
    wilson = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return float(wilson.low), float(wilson.high)


def classification_text(evaluation: Metrics, more: str = "") -> str:
    """scikit-learn's classification report; below it the accuracy's interval, and `more`."""
    options = _options(evaluation.classes)
    table = classification_report(evaluation.labels, evaluation.predictions, **options, digits=3)
    return "\n".join(filter(None, [f"{table}\naccuracy {accuracy_text(evaluation)}", more])) + "\n"


def accuracy_text(evaluation: Metrics) -> str:
    """The accuracy with its interval, the number of faces and what it is against."""
    return (
        f"{percent(evaluation.accuracy)} ({interval(evaluation.low, evaluation.high)}, "
        f"{len(evaluation.labels):,} faces){against(evaluation)}"
    )


def against(evaluation: Metrics) -> str:
    """ ", against the votes' majority"; empty where there is one kind of label only."""
    return f", against {evaluation.against}" if evaluation.against else ""


def confusion_csv(evaluation: Metrics) -> str:
    """Confusion matrix as CSV: true classes in rows, predicted classes in columns."""
    names = evaluation.classes
    true, predicted = pd.Index(names, name="true"), pd.Index(names)
    return pd.DataFrame(evaluation.confusion, index=true, columns=predicted).to_csv()


def predictions_csv(evaluation: Metrics, unseen: NDArray[np.bool_]) -> str:
    """CSV with a row a face, in the dataset's order: label, prediction and probabilities.

    `unseen` (N,) marks the faces that have no copy among the network's training faces.
    """
    names = np.array(evaluation.classes)
    table = pd.DataFrame(evaluation.probabilities, columns=[f"p_{name}" for name in names])
    table.insert(0, "label", names[evaluation.labels])
    table.insert(1, "predicted", names[evaluation.predictions])
    table.insert(2, "unseen", unseen)
    return table.to_csv(index_label="face", float_format="%.6g")


def metrics(evaluation: Metrics, split: str) -> dict[str, float]:
    """Metrics by their name in the store, such as test/accuracy for the split test."""
    by_class = evaluation.by_class
    numbers = {
        f"{split}/accuracy": evaluation.accuracy,
        f"{split}/accuracy_low": evaluation.low,
        f"{split}/accuracy_high": evaluation.high,
        f"{split}/macro_f1": by_class["macro avg"]["f1-score"],
        f"{split}/weighted_f1": by_class["weighted avg"]["f1-score"],
        **calibration_metrics(evaluation, split),
    }
    for name in evaluation.classes:
        numbers[f"{split}_by_class/precision_{name}"] = by_class[name]["precision"]
        numbers[f"{split}_by_class/recall_{name}"] = by_class[name]["recall"]
        numbers[f"{split}_by_class/f1_{name}"] = by_class[name]["f1-score"]
    return {name: float(value) for name, value in numbers.items()}


def calibration_metrics(evaluation: Metrics, split: str) -> dict[str, float]:
    """Log-loss and expected calibration error, by their names in the store."""
    labels, probabilities = evaluation.labels, evaluation.probabilities
    return {
        f"{split}/log_loss": calibration.log_loss(labels, probabilities),
        f"{split}/calibration_error": calibration.reliability(labels, probabilities).error,
    }


def mcnemar(first_correct: ArrayLike, second_correct: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same faces, from masks (N,) of correct ones.

    Returns the numbers of faces that only the first and only the second classifies correctly, and
    the two-sided binomial p value of these numbers at equal probability (McNemar 1947).
    """
    first, second = np.asarray(first_correct, bool), np.asarray(second_correct, bool)
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    if only_first + only_second == 0:
        return 0, 0, 1.0
    p = binomtest(only_first, only_first + only_second).pvalue
    return only_first, only_second, float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple testing (Holm 1979), in the given order.

    Comparing each with 0.05 keeps the family-wise error rate below 0.05.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def of(
    evaluation: Metrics, labels: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> Metrics:
    """Metrics of other labels or probabilities of the same kind."""
    return compute(labels, probabilities, evaluation.classes, evaluation.against)


def subset(evaluation: Metrics, rows: ArrayLike) -> Metrics | None:
    """Metrics of the faces that the mask `rows` (N,) selects; None if it selects none."""
    mask = np.asarray(rows, bool)
    if not mask.any():
        return None
    return of(evaluation, evaluation.labels[mask], evaluation.probabilities[mask])


def worst_mistakes(evaluation: Metrics, count: int) -> NDArray[np.intp]:
    """Rows of the `count` wrong predictions with the highest probability, highest first."""
    confidence = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(evaluation.predictions != evaluation.labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
