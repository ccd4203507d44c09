"""Residual networks: `compact` for a laptop, `strong` for a GPU."""

from typing import Any

import keras
from keras import layers

from pipeline.networks.layers import Normalise, scaled
from pipeline.settings import Hyperparameters


def compact(settings: Hyperparameters, normalise: Normalise, classes: int) -> keras.Model:
    """Network for a laptop: 0.80M parameters, 63 million multiply-adds a face."""
    return _residual(settings, normalise, classes, stem=32, stages=((64, 0), (128, 1), (192, 1)))


def strong(settings: Hyperparameters, normalise: Normalise, classes: int) -> keras.Model:
    """Network for a GPU or a long training: 2.11M parameters, 197 million multiply-adds a face."""
    return _residual(settings, normalise, classes, stem=48, stages=((96, 1), (192, 1), (320, 1)))


def _residual(
    settings: Hyperparameters,
    normalise: Normalise,
    classes: int,
    *,
    stem: int,
    stages: tuple[tuple[int, int], ...],
) -> keras.Model:
    """A residual network (He et al. 2016) of few, wide convolutions, which are fastest on a CPU.

    Each face is normalised by its own mean and standard deviation, which removes brightness and
    contrast. The stem halves height and width; each of `stages` is (channels, blocks): a
    convolution and that many residual ones. Between stages height and width are halved.
    """
    penalty = keras.regularizers.L2(settings.l2) if settings.l2 else None

    def convolve(x: Any, channels: int, side: int = settings.kernel, strides: int = 1) -> Any:
        x = layers.Conv2D(
            scaled(channels, settings.width),
            side,
            strides,
            padding="same",
            use_bias=False,  # batch normalisation adds one
            kernel_initializer="he_normal",
            kernel_regularizer=penalty,
        )(x)
        return layers.ReLU()(normalise()(x))

    faces = keras.Input((None, None, 1))
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False)(faces)
    x = convolve(x, stem, side=settings.kernel + 2, strides=2)
    for number, (channels, blocks) in enumerate(stages):
        if number:
            x = layers.MaxPooling2D()(x)
        x = convolve(x, channels)
        for _ in range(blocks):
            x = layers.Add()([x, convolve(x, channels)])
    x = layers.Dropout(settings.dropout)(layers.GlobalAveragePooling2D()(x))
    scores = layers.Dense(classes, activation="softmax", dtype="float32")(x)
    return keras.Model(faces, scores, name=settings.network)
