"""Temperature scaling as a part of a network."""

import keras
from keras import ops

SUFFIX = "_calibrated"
"""What is added to the name of a network with temperature scaling."""
LEAST = 1e-7
"""Smallest probability in a logarithm, as in Keras."""


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """`model` with its logits, the logarithms of its probabilities, divided by `temperature`.

    Above 1 the probabilities come nearer to each other, below 1 they move away; the order stays.
    """
    faces = keras.Input(model.input_shape[1:])
    logits = ops.log(ops.maximum(model(faces), LEAST)) / temperature
    return keras.Model(faces, ops.softmax(logits), name=f"{model.name}{SUFFIX}")
