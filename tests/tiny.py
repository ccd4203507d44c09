"""A network as a user would add one: so small that a training costs little but its start."""

from collections.abc import Callable

import keras
from keras import layers

from pipeline.settings import Hyperparameters

TINY = "tests.tiny:network"


def network(
    settings: Hyperparameters, normalise: Callable[[], layers.Layer], classes: int
) -> keras.Model:
    """One convolution and one dense layer, with batch normalisation and dropout between them."""
    images = keras.Input((48, 48, 1))
    filters = max(1, round(32 * settings.width))  # 8 in a study, whose default is a quarter
    x = layers.Conv2D(filters, 5, strides=4, use_bias=False)(layers.Rescaling(1 / 255)(images))
    x = layers.Flatten()(layers.ReLU()(normalise()(x)))
    x = layers.Dropout(settings.dropout)(x)
    return keras.Model(images, layers.Dense(classes, activation="softmax", dtype="float32")(x))
