"""Keras networks by name. All take raw grey levels 0-255, (N, 48, 48, 1), and scale them inside."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipeline import InputError
from pipeline.dataset import CLASSES, SIDE

PREDICT_BATCH = 256


def build(name: str, *, precision: str, **shape: Any) -> keras.Model:
    """A new network by name, with weights drawn from Keras' global seed.

    `precision` is float32 or bfloat16; in bfloat16 the variables and the softmax stay float32.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        return NETWORKS[name](**shape)
    finally:
        keras.config.set_dtype_policy(policy)


def report(*, dropout: float, l2: float, width: float, kernel: int) -> keras.Model:
    """The report's CNN (its "Data Model Summary"): 5,810,183 parameters, 4,992 not trainable.

    Dropout rates and L2 are not in the report. Its SGD run ends at a test loss of 9.5, which needs
    a penalty beside the cross-entropy; 0.25, and 0.01 on the first two convolutions of 512, are
    what code of this family uses. `width` scales the channels; `kernel` is the side of all
    convolutions but the third, which is 2 wider.
    """
    channels = [max(1, round(width * c)) for c in (32, 64, 128, 512, 512, 512)]
    penalty = keras.regularizers.L2(l2)

    def convolution(group: int, wider: int = 0, **options: Any) -> layers.Layer:
        side = kernel + wider
        return layers.Conv2D(channels[group], side, padding="same", activation="relu", **options)

    def finish_group() -> list[layers.Layer]:
        return [layers.BatchNormalization(), layers.MaxPooling2D(), layers.Dropout(dropout)]

    def dense(units: int) -> list[layers.Layer]:
        return [
            layers.Dense(units, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
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
            layers.Dense(len(CLASSES), activation="softmax", dtype="float32"),
        ],
        name="report",
    )


NETWORKS = {"report": report}


def load(file: Path) -> keras.Model:
    """The network of a .keras file, in Keras' safe mode. Raises InputError if it can't be used."""
    try:
        model = keras.saving.load_model(file, compile=False)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file}: no Keras model ({' '.join(str(error).split())[:150]})"
        ) from error
    if model.input_shape[1:] != (SIDE, SIDE, 1) or model.output_shape[1:] != (len(CLASSES),):
        raise InputError(
            f"{file}: takes {model.input_shape} and gives {model.output_shape}; "
            f"expected (N, {SIDE}, {SIDE}, 1) and (N, {len(CLASSES)})"
        )
    return model


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, 7) of `images` (N, 48, 48, 1)."""
    return np.asarray(model.predict(images, batch_size=PREDICT_BATCH, verbose=0), np.float32)


def summary(model: keras.Model) -> str:
    """The layer table with output shapes and parameter counts, as text."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append)
    return "\n".join(lines) + "\n"


def get_state(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Copies of the variables' values, on the host."""
    return [np.array(variable) for variable in variables]


def set_state(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    """Assign `values`, which must come from `get_state` of the same variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
