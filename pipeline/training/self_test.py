"""Self-test of the device's arithmetic, run before the first training of a process.

A device that computes wrong numbers trains without an error, to 20 % accuracy (the report, "Key
Challenges"). The self-test detects it within seconds.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pipeline.errors import TrainingError
from pipeline.percent import percent

REMEDY = "reinstall its driver, or hide the GPU with CUDA_VISIBLE_DEVICES=-1"


@cache
def self_test(precision: str) -> None:
    """Raise TrainingError unless a convolution agrees with NumPy and a small batch is overfitted.

    A test that has passed is not repeated in the same process.
    """
    check_convolution(precision, lambda x, k: ops.conv(x, k, padding="valid"))
    check_overfitting(precision)


def check_convolution(precision: str, convolve: Callable[[Any, Any], Any]) -> None:
    """Raise TrainingError unless `convolve` agrees with NumPy.

    `convolve` takes images (n, h, w, c) and kernels (k, k, c, m); padding "valid".
    """
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 12, 12, 8), dtype=np.float32)
    kernels = rng.standard_normal((3, 3, 8, 16), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    expected = np.einsum("nhwcij,ijcm->nhwm", windows, kernels)
    computed = convolve(ops.cast(images, precision), ops.cast(kernels, precision))
    error = np.abs(ops.convert_to_numpy(ops.cast(computed, "float32")) - expected).max()
    # Errors of sums of 72 products of size 1: below 0.05 in float32 (and a GPU's tf32), below 0.5
    # in bfloat16 with its 8 bits. Values reach 30, so wrong results exceed the bound by far.
    bound = 0.5 if precision == "bfloat16" else 0.05
    if not error < bound:
        raise TrainingError(
            f"self-test: a {precision} convolution is off by {error:.3g} (bound {bound}); "
            f"this device computes wrong numbers: {REMEDY}"
        )


def check_overfitting(precision: str, steps: int = 30) -> None:
    """Raise TrainingError unless a small network overfits 16 noise images.

    This needs correct gradients.
    """
    rng = np.random.default_rng(0)
    images = rng.standard_normal((16, 8, 8, 1), dtype=np.float32)
    labels = np.arange(16) % 4
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    model = keras.Sequential(
        [
            layers.Conv2D(16, 3, activation="relu", dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(32, activation="relu", dtype=policy),
            layers.Dense(4, dtype="float32"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    for _ in range(steps):  # half the time of `fit`, which begins an epoch for each
        model.train_on_batch(images, labels)
    accuracy = np.mean(model.predict_on_batch(images).argmax(axis=1) == labels)
    if not accuracy > 0.9:
        raise TrainingError(
            f"self-test: training accuracy on a small batch is {percent(accuracy, 0)}, "
            "expected 100 %; "
            f"this device computes wrong gradients: {REMEDY}"
        )
