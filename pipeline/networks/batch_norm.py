"""Re-estimation of batch normalisation's moving statistics."""

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pipeline.networks.tta import views

BATCH = 256
"""Views of faces at a time."""


def recalibrate(model: keras.Model, images: NDArray[np.uint8], tta: str) -> None:
    """Re-estimate the batch-norm moving statistics of `model`, from `build`, on `images`.

    `images` (N, 48, 48, 1) are seen as the views of `tta`. The statistics are averaged over batches
    (Izmailov et al. 2018), without dropout, which changes the variance of what follows it.
    """
    normalisations = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    dropouts = [x for x in model.layers if isinstance(x, layers.Dropout)]
    momenta, rates = [x.momentum for x in normalisations], [x.rate for x in dropouts]
    for layer in dropouts:
        layer.rate = 0.0
    views_a_face = len(views(ops.convert_to_tensor(images[:1], "float32"), tta))
    batches = np.array_split(images, -(-len(images) * views_a_face // BATCH))
    for number, batch in enumerate(batches):
        for layer in normalisations:
            layer.momentum = number / (number + 1)
        model(ops.concatenate(views(ops.convert_to_tensor(batch, "float32"), tta)), training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum
    for layer, rate in zip(dropouts, rates, strict=True):
        layer.rate = rate
