"""What a training minimises, by which optimizer, and at which learning rate."""

from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.dataset import CLASSES
from pipeline.settings import Training


def learning_rate_at(settings: Training, progress: Any) -> Any:
    """Learning rate once the share `progress` in [0, 1] of a training is done; a scalar tensor.

    It rises from 0 by a straight line over `settings.warmup`. Then it is constant, or falls to 0 by
    half a cosine (Loshchilov & Hutter 2017) or, in one_cycle, by a straight line (Smith 2018).
    """
    progress = ops.convert_to_tensor(progress, "float32")
    rise = ops.minimum(progress / settings.warmup, 1.0) if settings.warmup else 1.0
    after = ops.clip((progress - settings.warmup) / (1 - settings.warmup), 0.0, 1.0)
    match settings.schedule:
        case "constant":
            return settings.lr * rise
        case "cosine":
            return settings.lr * rise * (1 + ops.cos(np.pi * after)) / 2
        case "one_cycle":
            return settings.lr * rise * (1 - after)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """`learning_rate_at` for a training of `steps` batches."""

    def __init__(self, settings: Training, steps: int) -> None:
        super().__init__()
        self.settings = settings
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        return learning_rate_at(self.settings, ops.cast(step, "float32") / self.steps)


def make_optimizer(settings: Training, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a training of `steps` batches."""
    optimizers = keras.optimizers
    constant = settings.schedule == "constant" and not settings.warmup
    lr = settings.lr if constant else Schedule(settings, steps)
    decay = 1 - 1 / max(1.0, settings.averaging * steps)
    average = {"use_ema": settings.averaging > 0, "ema_momentum": decay}
    match settings.optimizer:
        case "adam":
            return optimizers.Adam(lr, **average)
        case "adamw":
            return optimizers.AdamW(lr, weight_decay=settings.weight_decay, **average)
        case "sgd":
            return optimizers.SGD(lr, **average)
        case "momentum":
            return optimizers.SGD(lr, momentum=settings.momentum, nesterov=True, **average)
        case "rmsprop":
            return optimizers.RMSprop(lr, **average)


def make_loss(settings: Training) -> keras.losses.Loss:
    smoothing = settings.label_smoothing
    match settings.loss:
        case "cross_entropy":
            return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        case "focal":
            # Lin et al. 2017, with their gamma of 2; Keras' alpha of 0.25 scales all classes.
            return keras.losses.CategoricalFocalCrossentropy(label_smoothing=smoothing)
        case "dice":
            return SoftDice(smoothing)


class SoftDice(keras.losses.Loss):
    """1 - 2 Σ p·y / (Σ p + Σ y) for each class over the batch, averaged over the classes present.

    The soft form of the F1 score (Milletari et al. 2016, for segmentation). A class without a face
    in the batch has no overlap to gain, so it is left out of the mean.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(name="dice", reduction="sum")
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, y_pred.dtype)
        present = ops.cast(ops.any(y_true > 0, axis=0), y_pred.dtype)
        smooth = y_true * (1 - self.label_smoothing) + self.label_smoothing / len(CLASSES)
        overlap = ops.sum(smooth * y_pred, axis=0)
        both = ops.sum(smooth, axis=0) + ops.sum(y_pred, axis=0)
        dice = 2 * overlap / (both + keras.config.epsilon())
        return 1 - ops.sum(dice * present) / ops.sum(present)
