"""Construction of a network by name or `package.module:function`."""

import inspect
from typing import Any

import keras
from keras import layers

from pipeline import registry
from pipeline.data import CLASSES, SIDE
from pipeline.errors import InputError
from pipeline.networks.layers import FusedBatchNormalization
from pipeline.settings import Hyperparameters


def build(
    settings: Hyperparameters,
    *,
    precision: str,
    classes: int = len(CLASSES),
    to_train: bool = False,
) -> keras.Model:
    """Build the network of `settings`, with weights drawn from Keras' global seed.

    Input: grey levels 0-255, (N, 48, 48, 1) or images of any size; output: probabilities
    (N, classes). `precision` is float32 or bfloat16; in bfloat16 the variables and the softmax stay
    float32. `to_train` uses a faster batch normalisation, a custom layer that must not be saved; it
    has the same weights in the same order. Raises InputError for a user's network with wrong
    shapes.
    """
    known = {name: network.function for name, network in registry.NETWORKS.items()}
    function = registry.load(settings.network, known, "network")
    normalise = FusedBatchNormalization if to_train else layers.BatchNormalization
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        takes_classes = "classes" in inspect.signature(function).parameters
        model = function(settings, normalise, **({"classes": classes} if takes_classes else {}))
    finally:
        keras.config.set_dtype_policy(policy)
    if settings.network not in registry.NETWORKS:
        _check_contract(model, settings, classes)
    return model


def _check_contract(model: Any, settings: Hyperparameters, classes: int) -> None:
    name = settings.network
    if not isinstance(model, keras.Model):
        raise InputError(f"network={name}: returned a {type(model).__name__}, not a keras.Model")
    inputs, outputs = model.input_shape[1:], model.output_shape[1:]
    if inputs not in ((SIDE, SIDE, 1), (None, None, 1)) or outputs != (classes,):
        raise InputError(
            f"network={name}: takes (N, {', '.join(map(str, inputs))}) and returns "
            f"(N, {', '.join(map(str, outputs))}); expected (N, {SIDE}, {SIDE}, 1) or "
            f"(N, None, None, 1), and (N, {classes}), the number of classes, which a "
            "parameter `classes` gives"
        )
    if settings.image_size != SIDE and inputs[0] is not None:
        raise InputError(
            f"image_size={settings.image_size}: expected {SIDE}, since network={name} takes no "
            "other size"
        )
