"""Compilation of a function that changes a network's variables."""

from collections.abc import Callable

import keras

Update = Callable[..., None]


def compiled(update: Update, *shapes: tuple[int | None, ...]) -> Update:
    """`update` of float32 tensors of these shapes; on TensorFlow it is traced once for all calls.

    Keras has no word for it. On other backends it is `update` itself.
    """
    if keras.backend.backend() != "tensorflow":
        return update
    import tensorflow

    signature = [tensorflow.TensorSpec(shape, "float32") for shape in shapes]
    traced: Update = tensorflow.function(update, input_signature=signature, autograph=False)
    return traced
