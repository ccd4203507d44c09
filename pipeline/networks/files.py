"""Trained networks: loading .keras files, predicting, copying weights."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.data import CLASSES, SIDE
from pipeline.errors import InputError

PREDICT_BATCH = 256


def load(file: Path) -> keras.Model:
    """Load the network of a .keras file, in Keras' safe mode. Raises InputError if it is none."""
    try:
        model = keras.saving.load_model(file, compile=False)
        inputs, outputs = model.input_shape, model.output_shape
    # KeyError and AttributeError: a zip without the parts of a model, or a model without shapes.
    except (ValueError, TypeError, KeyError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file}: no Keras model ({' '.join(str(error).split())[:150]})"
        ) from error
    if inputs[1:] != (SIDE, SIDE, 1) or outputs[1:] != (len(CLASSES),):
        raise InputError(
            f"{file}: takes {inputs} and returns {outputs}; "
            f"expected (N, {SIDE}, {SIDE}, 1) and (N, {len(CLASSES)})"
        )
    return model


def copy_weights(model: keras.Model, initial: keras.Model, address: str) -> None:
    """Copy the weights of `initial`, a saved network with or without TTA, to `model`, from `build`.

    Raises InputError, naming `address`, if the architectures differ.
    """
    inner = [layer for layer in initial.layers if isinstance(layer, keras.Model)]
    weights = (inner[0] if inner else initial).weights
    if [weight.shape for weight in weights] != [weight.shape for weight in model.weights]:
        raise InputError(
            f"init_from={address}: another network than {model.name} of this width and kernel; "
            "give network=, width= and kernel= as they were in its training"
        )
    set_state(model.weights, get_state(weights))


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, 7) of `images` (N, 48, 48, 1)."""
    return np.asarray(model.predict(images, batch_size=PREDICT_BATCH, verbose=0), np.float32)


def summary(model: keras.Model) -> str:
    """Keras' layer table with output shapes and parameter counts, as text."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append, expand_nested=True)
    return "\n".join(lines) + "\n"


def get_state(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Copies of the variables' values, on the host."""
    return [np.array(variable) for variable in variables]


def set_state(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    """Assign `values`, from `get_state` of variables with the same shapes, to `variables`."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
