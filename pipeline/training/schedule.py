"""Learning rate schedules."""

from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.settings import Hyperparameters


def learning_rate_at(settings: Hyperparameters, progress: Any) -> Any:
    """Learning rate at the share `progress` in [0, 1] of a training, a scalar tensor.

    Linear warm-up from 0 over the share `settings.warmup`. Then constant, or decay to 0 by half a
    cosine (Loshchilov & Hutter 2017) or, in one_cycle, linearly (Smith 2018).
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

    def __init__(self, settings: Hyperparameters, steps: int) -> None:
        super().__init__()
        self.settings = settings
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        return learning_rate_at(self.settings, ops.cast(step, "float32") / self.steps)
