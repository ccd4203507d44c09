"""Keras networks by name. All take raw grey levels 0-255, (N, 48, 48, 1), and scale them inside."""

import itertools
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pipeline import InputError, device
from pipeline.dataset import CLASSES, SIDE
from pipeline.settings import Training, ViewsName

Normalise = Callable[[], layers.Layer]

PREDICT_BATCH = 256
CROP_MARGIN = 4
"""Pixels by which the sides of the ten crops are shorter than a face's."""
RECALIBRATION_BATCH = 256
"""Views of faces at a time."""
TURN = 10.0
"""Degrees by which a face is turned, to either side, in the views of that name."""


def build(settings: Training, *, precision: str, to_train: bool = False) -> keras.Model:
    """The network that `settings` ask for, with weights drawn from Keras' global seed.

    `precision` is float32 or bfloat16; in bfloat16 the variables and the softmax stay float32.
    All but `report` take faces of any size. `to_train` takes a quicker batch normalisation, which a
    file for others must not hold; the weights are the same ones in the same order.
    """
    normalise = FusedBatchNormalization if to_train else layers.BatchNormalization
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        return NETWORKS[settings.network](settings, normalise)
    finally:
        keras.config.set_dtype_policy(policy)


def report(settings: Training, normalise: Normalise) -> keras.Model:
    """The report's CNN (its "Data Model Summary"): 5,810,183 parameters, 4,992 not trainable.

    Dropout rates and L2 are not in the report. Its SGD run ends at a test loss of 9.5, which needs
    a penalty beside the cross-entropy; 0.25, and 0.01 on the first two convolutions of 512, are
    what code of this family uses. `width` scales the channels; `kernel` is the side of all
    convolutions but the third, which is 2 wider.
    """
    channels = [_scaled(c, settings.width) for c in (32, 64, 128, 512, 512, 512)]
    penalty = keras.regularizers.L2(settings.l2)

    def convolution(group: int, wider: int = 0, **options: Any) -> layers.Layer:
        side = settings.kernel + wider
        return layers.Conv2D(channels[group], side, padding="same", activation="relu", **options)

    def finish_group() -> list[layers.Layer]:
        return [
            normalise(),
            layers.MaxPooling2D(),
            layers.Dropout(settings.dropout),
        ]

    def dense(units: int) -> list[layers.Layer]:
        return [
            layers.Dense(units, activation="relu"),
            normalise(),
            layers.Dropout(settings.dropout),
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


def compact(settings: Training, normalise: Normalise) -> keras.Model:
    """For a laptop: 0.80M parameters, 63 million multiply-adds a face."""
    return _residual(settings, normalise, stem=32, stages=((64, 0), (128, 1), (192, 1)))


def strong(settings: Training, normalise: Normalise) -> keras.Model:
    """For a GPU or a night: 2.11M parameters, 197 million multiply-adds a face."""
    return _residual(settings, normalise, stem=48, stages=((96, 1), (192, 1), (320, 1)))


def _residual(
    settings: Training, normalise: Normalise, *, stem: int, stages: tuple[tuple[int, int], ...]
) -> keras.Model:
    """A residual network (He et al. 2016) of few, wide convolutions, which a CPU does fastest.

    Each face is normalised by its own mean and deviation: light and contrast say nothing of what
    it feels. The stem halves the sides; each of `stages` is a convolution and a number of residual
    ones, with the sides halved again between two stages.
    """
    penalty = keras.regularizers.L2(settings.l2) if settings.l2 else None

    def convolve(x: Any, channels: int, side: int = settings.kernel, strides: int = 1) -> Any:
        x = layers.Conv2D(
            _scaled(channels, settings.width),
            side,
            strides,
            padding="same",
            use_bias=False,  # the normalisation has one
            kernel_initializer="he_normal",
            kernel_regularizer=penalty,
        )(x)
        return layers.ReLU()(normalise()(x))

    faces = keras.Input((None, None, 1))
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False)(faces)
    x = convolve(x, stem, side=settings.kernel + 2, strides=2)
    for number, (channels, blocks) in enumerate(stages):
        if number:
            x = layers.MaxPooling2D()(x)
        x = convolve(x, channels)
        for _ in range(blocks):
            x = layers.Add()([x, convolve(x, channels)])
    x = layers.Dropout(settings.dropout)(layers.GlobalAveragePooling2D()(x))
    scores = layers.Dense(len(CLASSES), activation="softmax", dtype="float32")(x)
    return keras.Model(faces, scores, name=settings.network)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(width * channels))


NETWORKS = {"report": report, "compact": compact, "strong": strong}


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' layer, whose step of training is one operation of TensorFlow's instead of a dozen."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        is_image = len(inputs.shape) == 4 and mask is None
        if not (training and is_image and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        outputs, mean, variance = device.fused_batch_norm(inputs, gamma, beta, self.epsilon)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


def with_views(model: keras.Model, views: ViewsName) -> keras.Model:
    """`model` for faces (N, 48, 48, 1), its answer averaged over several views of each face."""
    if views == "one" and model.input_shape[1:] == (SIDE, SIDE, 1):
        return model
    face = keras.Input((SIDE, SIDE, 1))
    answers = [model(view) for view in _seen(face, views)]
    average = layers.Average(dtype="float32")(answers) if len(answers) > 1 else answers[0]
    return keras.Model(face, average, name=f"{model.name}_{views}")


def recalibrate(model: keras.Model, images: NDArray[np.uint8], views: ViewsName) -> None:
    """Give the batch normalisations of `model`, from `build`, the means and variances that the
    `views` of `images` (N, 48, 48, 1) have.

    Each is the mean of its batches' (Izmailov et al. 2018 end the averaging of weights so). Without
    dropout, which changes the variance of what follows it.
    """
    normalisations = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    dropouts = [x for x in model.layers if isinstance(x, layers.Dropout)]
    momenta, rates = [x.momentum for x in normalisations], [x.rate for x in dropouts]
    for layer in dropouts:
        layer.rate = 0.0
    views_a_face = len(_seen(ops.convert_to_tensor(images[:1], "float32"), views))
    batches = np.array_split(images, -(-len(images) * views_a_face // RECALIBRATION_BATCH))
    for number, batch in enumerate(batches):
        for layer in normalisations:
            layer.momentum = number / (number + 1)
        seen = _seen(ops.convert_to_tensor(batch, "float32"), views)
        model(ops.concatenate(seen), training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum
    for layer, rate in zip(dropouts, rates, strict=True):
        layer.rate = rate


def _seen(faces: Any, views: ViewsName) -> list[Any]:
    """The views of `faces` (N, 48, 48, 1).

    flip: the face and its mirror image. ten: five crops that leave out CROP_MARGIN rows and
    columns, at the corners and in the middle, and their mirror images (Krizhevsky et al. 2012).
    turned: the face, the face turned by TURN degrees to either side, and their mirror images.
    """
    seen = [faces]
    if views == "ten":
        low, middle, high = 0, CROP_MARGIN // 2, CROP_MARGIN
        corners = itertools.product((low, high), repeat=2)
        seen = [
            layers.Cropping2D(((top, CROP_MARGIN - top), (left, CROP_MARGIN - left)))(faces)
            for top, left in [(middle, middle), *corners]
        ]
    if views == "turned":
        seen += [_turned(faces, degrees) for degrees in (-TURN, TURN)]
    if views != "one":
        seen += [ops.flip(view, axis=2) for view in seen]
    return seen


def _turned(faces: Any, degrees: float) -> Any:
    """`faces` (N, 48, 48, 1) turned clockwise about their middle; borders repeat outwards."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (SIDE - 1) / 2
    across, down = (1 - cosine) * middle - sine * middle, (1 - cosine) * middle + sine * middle
    move = np.array([[cosine, sine, across, -sine, cosine, down, 0, 0]], np.float32)
    each = ops.ones_like(faces[:, 0, 0]) * move  # JAX wants a move for each face
    return ops.image.affine_transform(faces, each, interpolation="bilinear", fill_mode="nearest")


def load(file: Path) -> keras.Model:
    """The network of a .keras file, in Keras' safe mode. Raises InputError if it can't be used."""
    try:
        model = keras.saving.load_model(file, compile=False)
        takes, gives = model.input_shape, model.output_shape
    # A zip without the parts of a model, or a model without shapes, gives the middle two.
    except (ValueError, TypeError, KeyError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file}: no Keras model ({' '.join(str(error).split())[:150]})"
        ) from error
    if takes[1:] != (SIDE, SIDE, 1) or gives[1:] != (len(CLASSES),):
        raise InputError(
            f"{file}: takes {takes} and gives {gives}; "
            f"expected (N, {SIDE}, {SIDE}, 1) and (N, {len(CLASSES)})"
        )
    return model


def begin_with(model: keras.Model, start: keras.Model, address: str) -> None:
    """Give `model`, fresh from `build`, the weights of `start`, a kept network with or without
    views. Raises InputError, naming `address`, where it is another network."""
    inner = [layer for layer in start.layers if isinstance(layer, keras.Model)]
    weights = (inner[0] if inner else start).weights
    if [weight.shape for weight in weights] != [weight.shape for weight in model.weights]:
        raise InputError(
            f"start={address}: another network than {model.name} of this width and kernel; "
            "give network=, width= and kernel= as they were in its training"
        )
    set_state(model.weights, get_state(weights))


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, 7) of `images` (N, 48, 48, 1)."""
    return np.asarray(model.predict(images, batch_size=PREDICT_BATCH, verbose=0), np.float32)


def summary(model: keras.Model) -> str:
    """The layer table with output shapes and parameter counts, as text."""
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append, expand_nested=True)
    return "\n".join(lines) + "\n"


def get_state(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Copies of the variables' values, on the host."""
    return [np.array(variable) for variable in variables]


def set_state(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    """Assign `values`, which must come from `get_state` of the same variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
