"""The network of the published report."""

from typing import Any

import keras
from keras import layers

from pipeline.data import SIDE
from pipeline.networks.layers import Normalise, scaled
from pipeline.settings import Hyperparameters


def report(settings: Hyperparameters, normalise: Normalise, classes: int) -> keras.Model:
    """The report's CNN (its "Data Model Summary"): 5,810,183 parameters for 7 classes, 4,992
    not trainable.

    The report does not give dropout rates and L2. Its SGD run ends at a test loss of 9.5, which
    cross-entropy alone does not reach; the defaults, dropout 0.25 and L2 0.01 on the first two
    convolutions of 512 channels, are common in similar code. `width` scales the channels; `kernel`
    is the kernel size of all convolutions but the third, which is larger by 2.
    """
    channels = [scaled(c, settings.width) for c in (32, 64, 128, 512, 512, 512)]
    penalty = keras.regularizers.L2(settings.l2)

    def convolution(group: int, wider: int = 0, **options: Any) -> layers.Layer:
        side = settings.kernel + wider
        return layers.Conv2D(channels[group], side, padding="same", activation="relu", **options)

    def finish_group() -> list[layers.Layer]:
        return [
            normalise(),
            layers.MaxPooling2D(),
            layers.Dropout(settings.dropout),
        ]

    def dense(units: int) -> list[layers.Layer]:
        return [
            layers.Dense(units, activation="relu"),
            normalise(),
            layers.Dropout(settings.dropout),
        ]

    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Rescaling(1 / 255),
            convolution(0),
            convolution(1),
            *finish_group(),
            convolution(2, wider=2),
            *finish_group(),
            convolution(3, kernel_regularizer=penalty),
            *finish_group(),
            convolution(4, kernel_regularizer=penalty),
            *finish_group(),
            convolution(5),
            *finish_group(),
            layers.Flatten(),
            *dense(256),
            *dense(512),
            layers.Dense(classes, activation="softmax", dtype="float32"),
        ],
        name="report",
    )
