"""Trained networks: loading .keras files, predicting, copying weights."""

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.data import CLASSES, SIDE
from pipeline.data.archives import FREE_BYTES, PACKED_AT_MOST
from pipeline.errors import InputError, reason
from pipeline.networks import learnt

PREDICT_BATCH = 256
PREDICT_NUMBERS = 1 << 28
"""Numbers that the largest layer may return for a batch: 1 GiB in float32."""
LARGEST_CONFIG = 8 << 20
"""Bytes of the description of a network in a file."""
WEIGHTS_FOR_A_BYTE = 16
FREE_WEIGHTS = 1_000_000
"""Weights that a file may declare, for each of its bytes and beside these; it holds a quarter for
each byte."""
LARGEST_OUTPUT = 1 << 24
"""Numbers that a layer may return for a face."""


def load(file: Path) -> keras.Model:
    """Load the network of a .keras file, in Keras' safe mode.

    Raises InputError if it is none, if it declares far more weights than the file holds, if a
    weight is not finite, or if its output is not probabilities.
    """
    try:
        _require_plain(file)
        with _at_most(FREE_WEIGHTS + WEIGHTS_FOR_A_BYTE * file.stat().st_size):
            model = keras.saving.load_model(file, compile=False)
        inputs, outputs = model.input_shape, model.output_shape
    # Keras, zipfile and h5py raise a dozen types for a file that is damaged or no model.
    except Exception as error:
        raise InputError(f"{file}: no Keras model ({reason(error, 150)})") from error
    count = len(learnt.classes(file))
    if inputs[1:] != (SIDE, SIDE, 1) or outputs[1:] != (count,):
        raise InputError(
            f"{file}: takes {inputs} and returns {outputs}; "
            f"expected (N, {SIDE}, {SIDE}, 1) and (N, {count})"
        )
    if _largest_output(model) > LARGEST_OUTPUT:
        raise InputError(f"{file}: a layer returns {_largest_output(model):,} numbers for a face")
    if not all(np.isfinite(values).all() for values in get_state(model.weights)):
        raise InputError(f"{file}: a weight is not a finite number; train the network again")
    face = np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE, 1) % 256
    try:
        answer = np.asarray(model(face.astype(np.float32), training=False), np.float32)
    except Exception as error:  # a layer may be made for other types or sizes
        raise InputError(f"{file}: can't compute ({reason(error, 150)})") from error
    if not (np.isfinite(answer).all() and answer.min() >= 0 and abs(answer.sum() - 1) < 0.01):
        raise InputError(
            f"{file}: returns no probabilities; end the network with a softmax over the classes"
        )
    return model


def _require_plain(file: Path) -> None:
    """Raise ValueError for an archive that would fill the memory when it is read."""
    with zipfile.ZipFile(file) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
    if sizes.get("config.json", 0) > LARGEST_CONFIG:
        raise ValueError(f"a description of {sizes['config.json']:,} bytes")
    if sum(sizes.values()) > FREE_BYTES + PACKED_AT_MOST * file.stat().st_size:
        raise ValueError("unpacks to far more than its size")


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Let layers have no more than `count` weights, which are allocated as they are declared."""
    add_weight, left = keras.layers.Layer.add_weight, count

    def add(layer: keras.layers.Layer, shape: Any = None, *args: Any, **options: Any) -> Any:
        nonlocal left
        left -= math.prod(np.atleast_1d(shape if shape is not None else ()).tolist())
        if left < 0:
            raise ValueError(f"it declares more than {count:,} weights, and is too small for them")
        return add_weight(layer, shape, *args, **options)

    keras.layers.Layer.add_weight = add
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def _largest_output(model: keras.Model) -> int:
    """Numbers that the largest layer returns for a face."""
    sizes = [
        _largest_output(layer)
        if isinstance(layer, keras.Model)
        else math.prod(side or SIDE for side in getattr(layer.output, "shape", (1,))[1:])
        for layer in model.layers
    ]
    return max(sizes, default=1)


def copy_weights(
    model: keras.Model,
    initial: keras.Model,
    address: str,
    classes: Sequence[str] = CLASSES,
    initial_classes: Sequence[str] = CLASSES,
) -> None:
    """Copy the weights of `initial`, a saved network with or without TTA, to `model`, from `build`.

    Where their classes differ, the last layer's weights are copied by class, and those of a class
    that `initial` does not have stay as they are. Raises InputError, naming `address`, if the
    architectures differ.
    """
    inner = [layer for layer in initial.layers if isinstance(layer, keras.Model)]
    if len(inner) > 1:
        raise InputError(f"init_from={address}: made of several networks; give one of them")
    values = get_state((inner[0] if inner else initial).weights)
    if classes != initial_classes:
        values = _for_classes(values, model, classes, initial_classes)
    if [value.shape for value in values] != [weight.shape for weight in model.weights]:
        raise InputError(
            f"init_from={address}: another network than {model.name} of this width and kernel; "
            "give network=, width= and kernel= as they were in its training"
        )
    set_state(model.weights, values)


def _for_classes(
    values: list[NDArray[Any]], model: keras.Model, new: Sequence[str], old: Sequence[str]
) -> list[NDArray[Any]]:
    """`values` of a network for the classes `old`, with the last layer's for the classes `new`."""
    last = [weight.path for weight in model.layers[-1].weights]
    common = [name for name in new if name in old]
    to, source = [new.index(name) for name in common], [old.index(name) for name in common]
    changed = list(values)
    for k, (weight, value) in enumerate(zip(model.weights, values, strict=False)):
        if weight.path in last and value.shape[-1:] == (len(old),):
            changed[k] = np.array(weight)
            if changed[k].shape == (*value.shape[:-1], len(new)):
                changed[k][..., to] = value[..., source]
    return changed if last else []


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, classes) of `images` (N, 48, 48, 1)."""
    batch_size = min(PREDICT_BATCH, max(1, PREDICT_NUMBERS // _largest_output(model)))
    return np.asarray(model.predict(images, batch_size=batch_size, verbose=0), np.float32)


def summary(model: keras.Model) -> str:
    """Keras' layer table with output shapes and parameter counts, as text."""
    lines: list[str] = []
    width = os.environ.get("COLUMNS")
    # Rich cuts the table off at the terminal's width, which is 80 where there is no terminal.
    os.environ["COLUMNS"] = "120"
    try:
        model.summary(line_length=100, print_fn=lines.append, expand_nested=True)
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return "\n".join(lines) + "\n"


def get_state(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Copies of the variables' values, on the host."""
    return [np.array(variable) for variable in variables]


def set_state(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    """Assign `values`, from `get_state` of variables with the same shapes, to `variables`."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
