"""Tests of the metrics, against hand-computed and published values."""

import io

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from pipeline.data import CLASSES
from pipeline.reports import metrics


def probabilities(predicted: list[int], confidence: float = 0.9) -> np.ndarray:
    out = np.full((len(predicted), 7), (1 - confidence) / 6, np.float32)
    out[np.arange(len(predicted)), predicted] = confidence
    return out


LABELS = np.array([0, 0, 1, 3, 3, 3, 6, 4], np.uint8)
PREDICTED = [0, 4, 0, 3, 3, 6, 6, 4]


def test_accuracy_f1_and_confusion_are_scikit_learns() -> None:
    result = metrics.compute(LABELS, probabilities(PREDICTED))
    assert result.accuracy == 5 / 8
    assert result.confusion[3].tolist() == [0, 0, 0, 2, 0, 0, 1]
    numbers = metrics.metrics(result, "test")
    assert numbers["test/macro_f1"] == pytest.approx(
        f1_score(LABELS, PREDICTED, average="macro", labels=range(7), zero_division=0)
    )
    assert numbers["test_by_class/recall_happy"] == pytest.approx(2 / 3)
    assert numbers["test_by_class/precision_sad"] == 0.5
    assert numbers["test_by_class/recall_disgust"] == 0
    assert len(numbers) == 7 + 3 * 7


def test_class_names_follow_fer2013s_codes() -> None:
    assert CLASSES == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    for code, name in enumerate(CLASSES):
        labels = np.array([code] * 3 + [(code + 1) % 7], np.uint8)
        result = metrics.compute(labels, probabilities([code] * 4))
        assert result.by_class[name]["support"] == 3
        assert metrics.metrics(result, "test")[f"test_by_class/recall_{name}"] == 1


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Wilson's interval: 81 of 263 is Newcombe's example (1998, Statistics in Medicine 17, table I).
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)],
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    assert metrics.accuracy_interval(right, count) == pytest.approx((low, high), abs=1e-4)


def test_no_faces_are_no_evaluation() -> None:
    with pytest.raises(ValueError, match="no faces"):
        metrics.compute(np.array([], np.uint8), np.empty((0, 7), np.float32))


def test_a_subset_is_evaluated_alone() -> None:
    result = metrics.compute(LABELS, probabilities(PREDICTED))
    happy = metrics.subset(result, LABELS == 3)
    assert happy is not None
    assert happy.accuracy == pytest.approx(2 / 3)
    assert metrics.subset(result, LABELS == 5) is None


def test_the_surest_mistakes_come_first() -> None:
    given = probabilities(PREDICTED)
    given[2] = probabilities([0], 0.99)[0]
    result = metrics.compute(LABELS, given)
    assert metrics.worst_mistakes(result, 2).tolist() == [2, 1]


def test_the_tables_can_be_read_back() -> None:
    result = metrics.compute(LABELS, probabilities(PREDICTED))
    confusion = pd.read_csv(io.StringIO(metrics.confusion_csv(result)), index_col="true")
    assert confusion.loc["happy", "neutral"] == 1
    unseen = LABELS != 3
    written = metrics.predictions_csv(result, unseen)
    predictions = pd.read_csv(io.StringIO(written), index_col="face")
    assert predictions["unseen"].tolist() == unseen.tolist()
    assert predictions["label"].tolist() == [CLASSES[code] for code in LABELS]
    assert predictions["p_happy"].iloc[3] == pytest.approx(0.9)
    assert "accuracy 62.5 % (95 % interval" in metrics.classification_text(result)
