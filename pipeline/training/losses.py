"""Losses by name or `package.module:function`."""

from typing import Any

import keras
from keras import ops

from pipeline import registry
from pipeline.settings import Hyperparameters


def make_loss(settings: Hyperparameters) -> keras.losses.Loss:
    """The loss of `settings`, for targets, one-hot or shares, and probabilities (b, classes)."""
    return registry.load(settings.loss, registry.LOSSES, "loss")(settings)


def cross_entropy(settings: Hyperparameters) -> keras.losses.Loss:
    return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)


def focal(settings: Hyperparameters) -> keras.losses.Loss:
    """Focal loss (Lin et al. 2017), gamma 2; Keras' alpha of 0.25 scales all classes."""
    return keras.losses.CategoricalFocalCrossentropy(label_smoothing=settings.label_smoothing)


class SoftDice(keras.losses.Loss):
    """Dice loss: 1 - 2 Σ p·y / (Σ p + Σ y) over the batch, averaged over the classes present.

    A differentiable form of the F1 score (Milletari et al. 2016, for segmentation). Classes without
    a face in the batch are left out of the mean.
    """

    def __init__(self, settings: Hyperparameters) -> None:
        super().__init__(name="dice", reduction="sum")
        self.label_smoothing = settings.label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, y_pred.dtype)
        present = ops.cast(ops.any(y_true > 0, axis=0), y_pred.dtype)
        smooth = y_true * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[-1]
        overlap = ops.sum(smooth * y_pred, axis=0)
        both = ops.sum(smooth, axis=0) + ops.sum(y_pred, axis=0)
        dice = 2 * overlap / (both + keras.config.epsilon())
        return 1 - ops.sum(dice * present) / ops.sum(present)
