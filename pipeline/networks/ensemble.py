"""Ensemble: a network that answers with the mean of several networks' probabilities."""

import re
from collections.abc import Sequence

import keras
from keras import layers

from pipeline.data import SIDE

NAME = "ensemble"
NUMBERED = re.compile(r"^member_\d+_")
"""What the names of members begin with."""


def mean(networks: Sequence[keras.Model]) -> keras.Model:
    """The mean of two or more `networks`, each for faces (N, 48, 48, 1), with their own
    augmentation."""
    face = keras.Input((SIDE, SIDE, 1))
    # In a network no two layers have the same name, and members may be of the same kind.
    named = [
        keras.Model(member.inputs[0], member.outputs[0], name=f"member_{number}_{own_name(member)}")
        for number, member in enumerate(networks)
    ]
    answers = [member(face) for member in named]
    return keras.Model(face, layers.Average(dtype="float32")(answers), name=NAME)


def members(model: keras.Model) -> list[keras.Model]:
    """The networks of whose answers `model` is the mean; none if it is no ensemble."""
    *found, last = model.layers[1:] or [None]
    numbered = all(isinstance(one, keras.Model) and NUMBERED.match(one.name) for one in found)
    return found if numbered and isinstance(last, layers.Average) else []


def own_name(model: keras.Model) -> str:
    """The name of `model` outside of an ensemble."""
    return NUMBERED.sub("", model.name, count=1)
