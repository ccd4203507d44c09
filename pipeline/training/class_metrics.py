"""Metrics of an epoch that weigh every class alike: macro F1 and balanced accuracy."""

from typing import Any

import keras
from keras import ops


class _ClassMetric(keras.metrics.Metric):
    """A metric of the confusion matrix, of targets, one-hot or soft, and probabilities."""

    def __init__(self, classes: int, name: str) -> None:
        super().__init__(name=name)
        self.confusion = self.add_weight(
            shape=(classes, classes), initializer="zeros", name="confusion"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        n = self.confusion.shape[0]
        true = ops.one_hot(ops.argmax(y_true, axis=-1), n, dtype="float32")
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), n, dtype="float32")
        self.confusion.assign_add(ops.matmul(ops.transpose(true), predicted))

    def _mean_of_present(self, values: Any) -> Any:
        present = ops.cast(ops.sum(self.confusion, axis=1) > 0, "float32")
        return ops.sum(values * present) / ops.maximum(ops.sum(present), 1)


class MacroF1(_ClassMetric):
    """Mean of the classes' F1 scores, over the classes that occur."""

    def result(self) -> Any:
        right = ops.diagonal(self.confusion)
        both = ops.sum(self.confusion, axis=0) + ops.sum(self.confusion, axis=1)
        return self._mean_of_present(2 * right / ops.maximum(both, 1))


class BalancedAccuracy(_ClassMetric):
    """Mean of the classes' recalls, over the classes that occur."""

    def result(self) -> Any:
        right = ops.diagonal(self.confusion)
        return self._mean_of_present(right / ops.maximum(ops.sum(self.confusion, axis=1), 1))
