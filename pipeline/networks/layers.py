"""Layers and helpers shared by the networks."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

Normalise = Callable[[], layers.Layer]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least one."""
    return max(1, round(width * channels))


def set_momentum(model: keras.Model, steps: int) -> None:
    """Set batch normalisation's momentum to 1 - 2 / `steps` of an epoch, in [0.9, 0.99].

    The moving statistics are then those of the last half epoch. Keras' own 0.99 is that of 100
    steps: half an epoch or less of FER2013, but several epochs where faces are few, whose
    validation would use the statistics of outdated weights (docs/lab/sample.md).
    """
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = min(max(0.9, 1 - 2 / steps), 0.99)


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation that trains with TensorFlow's fused operation instead of a dozen."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        is_image = len(inputs.shape) == 4 and mask is None
        if not (training and is_image and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        outputs, mean, variance = fused_batch_norm(inputs, gamma, beta, self.epsilon)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


def fused_batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Batch-normalised x (n, h, w, c), and the mean and variance of its channels, (c,) each.

    TensorFlow backend only. The variance is unbiased, as in cuDNN.
    """
    import tensorflow  # not installed with every backend

    none = ops.zeros(0)
    y, mean, variance, *_ = tensorflow.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=none, variance=none, epsilon=epsilon, is_training=True
    )
    return y, mean, variance
