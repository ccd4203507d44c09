"""Test-time augmentation (TTA): probabilities averaged over transformed copies of a face."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pipeline.data import SIDE

CROP_MARGIN = 4
"""Difference in pixels between the sides of a face and of the ten crops."""
Rotate = Callable[[Any, float], Any]
ROTATION = 10.0
"""Rotation of flip_rotate in degrees, in both directions."""


def with_tta(model: keras.Model, tta: str) -> keras.Model:
    """`model` with test-time augmentation `tta`, for faces (N, 48, 48, 1)."""
    if tta == "none" and model.input_shape[1:] == (SIDE, SIDE, 1):
        return model
    face = keras.Input((SIDE, SIDE, 1))
    outputs = [model(view) for view in views(face, tta)]
    average = layers.Average(dtype="float32")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(face, average, name=f"{model.name}_{tta}")


def views(faces: Any, tta: str, rotate: Rotate | None = None) -> list[Any]:
    """Transformed copies of `faces` (N, 48, 48, 1) over which `tta` averages.

    none: the face. flip: the face and its mirror image. ten_crop: five crops, smaller by
    CROP_MARGIN, at the corners and in the centre, and their mirror images (Krizhevsky et al. 2012).
    flip_rotate: the face, the face rotated by ±ROTATION degrees, and their mirror images.
    `rotate` is used instead of `rotated`.
    """
    found = [faces]
    if tta == "ten_crop":
        low, middle, high = 0, CROP_MARGIN // 2, CROP_MARGIN
        corners = itertools.product((low, high), repeat=2)
        found = [
            layers.Cropping2D(((top, CROP_MARGIN - top), (left, CROP_MARGIN - left)))(faces)
            for top, left in [(middle, middle), *corners]
        ]
    if tta == "flip_rotate":
        found += [(rotate or rotated)(faces, degrees) for degrees in (-ROTATION, ROTATION)]
    if tta != "none":
        found += [ops.flip(view, axis=2) for view in found]
    return found


def rotated(faces: Any, degrees: float) -> Any:
    """`faces` (N, 48, 48, 1) rotated clockwise about their centre; borders repeat outwards."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (SIDE - 1) / 2
    across, down = (1 - cosine) * middle - sine * middle, (1 - cosine) * middle + sine * middle
    move = np.array([[cosine, sine, across, -sine, cosine, down, 0, 0]], np.float32)
    each = ops.ones_like(faces[:, 0, 0]) * move  # JAX needs a transform for each face
    return ops.image.affine_transform(faces, each, interpolation="bilinear", fill_mode="nearest")
