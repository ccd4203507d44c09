"""Networks as graphs that ONNX can express, with any test-time augmentation."""

import math
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.data import SIDE
from pipeline.errors import InputError, reason
from pipeline.networks import ensemble, temperature, tta
from pipeline.quiet import held_back_stderr

EARLIER_NAMES = {"turned": "flip_rotate", "ten": "ten_crop"}
"""Names of test-time augmentations in the files of earlier versions."""
MIXED = "mixed"
"""Augmentation of an ensemble whose members have different ones, each its own."""
AUGMENTATIONS = ("flip", "ten_crop", "flip_rotate", *EARLIER_NAMES)


def exportable(model: keras.Model, wanted: str) -> keras.Model:
    """`model`, from a .keras file, with test-time augmentation `wanted` in place of its own.

    It shares its weights. All views go through the network as one batch, and rotation is written as
    a weighted sum of four pixels, since ONNX has no operation for Keras' affine_transform.
    """
    if members := ensemble.members(model):
        own = wanted == MIXED
        return ensemble.mean(
            [exportable(one, augmentation(one) if own else wanted) for one in members]
        )
    inner = _inner(model)
    if inner is not None and ensemble.own_name(model) == f"{inner.name}{temperature.SUFFIX}":
        replaced = exportable(inner, wanted)
        return keras.models.clone_model(
            model,
            clone_function=lambda layer: layer,
            call_function=lambda layer, *args, **options: (replaced if layer is inner else layer)(
                *args, **options
            ),
        )
    network = inner if inner is not None and augmentation(model) != "none" else model
    return _with_views(network, wanted)


def augmentation(model: keras.Model) -> str:
    """The test-time augmentation that a saved network averages over, by the name of its graph."""
    if found := {augmentation(one) for one in ensemble.members(model)}:
        return found.pop() if len(found) == 1 else MIXED
    inner = _inner(model)
    if inner is None:
        return "none"
    name = ensemble.own_name(model)
    if name == f"{inner.name}{temperature.SUFFIX}":
        return augmentation(inner)
    name = name.removeprefix(f"{inner.name}_")
    return EARLIER_NAMES.get(name, name) if name in AUGMENTATIONS else "none"


def _inner(model: keras.Model) -> keras.Model | None:
    """The one network within `model`, if there is just one."""
    found = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return found[0] if len(found) == 1 else None


def _with_views(network: keras.Model, wanted: str) -> keras.Model:
    if wanted == "none" and network.input_shape[1:] == (SIDE, SIDE, 1):
        return network
    faces = keras.Input((SIDE, SIDE, 1))
    views = tta.views(faces, wanted, rotated)
    answers = network(ops.concatenate(views))
    each = ops.reshape(answers, (len(views), -1, network.output_shape[-1]))
    return keras.Model(faces, ops.mean(each, axis=0), name=f"{network.name}_{wanted}")


def rotated(faces: Any, degrees: float) -> Any:
    """What `tta.rotated` returns, to 1e-3 grey levels, from four pixels for each pixel."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down, across = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    x = np.clip(cosine * across + sine * down + (SIDE - 1) / 2, 0, SIDE - 1)
    y = np.clip(cosine * down - sine * across + (SIDE - 1) / 2, 0, SIDE - 1)
    left, top = np.minimum(x, SIDE - 2).astype(int), np.minimum(y, SIDE - 2).astype(int)
    pixels = ops.reshape(faces, (-1, SIDE * SIDE))
    corners = []
    for right in (0, 1):
        for below in (0, 1):
            weight = (1 - abs(left + right - x)) * (1 - abs(top + below - y))
            index = (top + below) * SIDE + left + right
            taken = ops.take(pixels, index.ravel().astype(np.int32), axis=1)
            corners.append(taken * weight.ravel().astype(np.float32))
    return ops.reshape(sum(corners), (-1, SIDE, SIDE, 1))


def write_onnx(model: keras.Model, file: Path) -> None:
    """Write `model`, from `exportable`, to an ONNX file. Raises InputError if it can't be written.

    Keras only logs an operation that ONNX does not have: the file must be loaded to know.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError("export needs KERAS_BACKEND=tensorflow, whose graphs ONNX can express")
    model(np.zeros((1, SIDE, SIDE, 1), np.float32))  # Keras refuses a network that never ran
    try:
        with warnings.catch_warnings(action="ignore"), held_back_stderr():
            model.export(file, format="onnx", verbose=False)
    except Exception as error:  # of TensorFlow and tf2onnx, for an operation that they do not know
        raise InputError(f"{model.name} can't be written as ONNX ({reason(error)})") from error
