"""Re-estimation of batch normalisation's moving statistics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pipeline.networks.compiled import compiled
from pipeline.networks.tta import views

BATCH = 256
"""Views of faces at a time."""


class Recalibration:
    """Re-estimates the batch-norm moving statistics of `model`, from `build`, on given faces.

    The faces are seen as the views of `tta`. The statistics are averaged over batches (Izmailov et
    al. 2018), without dropout, which changes the variance of what follows it.
    """

    def __init__(self, model: keras.Model, tta: str, *, repeated: bool = False) -> None:
        """With `repeated` it is compiled, which pays for several calls."""
        self.model = model
        self.tta = tta
        self.normalisations = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
        self.dropouts = [x for x in model.layers if isinstance(x, layers.Dropout)]
        shape = (None, *model.input_shape[1:])
        self.update = compiled(self._update, shape, ()) if repeated else self._update

    def __call__(self, images: NDArray[np.uint8]) -> None:
        """Re-estimate the statistics on `images` (N, 48, 48, 1)."""
        views_a_face = len(views(ops.convert_to_tensor(images[:1], "float32"), self.tta))
        batches = np.array_split(images, -(-len(images) * views_a_face // BATCH))
        for number, batch in enumerate(batches):
            self.update(ops.convert_to_tensor(batch, "float32"), number / (number + 1))

    def _update(self, images: Any, momentum: Any) -> None:
        """Move the statistics towards those of `images` (n, 48, 48, 1), float32."""
        with self._without_dropout(momentum):
            self.model(ops.concatenate(views(images, self.tta)), training=True)

    @contextmanager
    def _without_dropout(self, momentum: Any) -> Iterator[None]:
        momenta, rates = [x.momentum for x in self.normalisations], [x.rate for x in self.dropouts]
        try:
            for layer in self.normalisations:
                layer.momentum = momentum
            for layer in self.dropouts:
                layer.rate = 0.0
            yield
        finally:
            for layer, own in zip(self.normalisations, momenta, strict=True):
                layer.momentum = own
            for layer, rate in zip(self.dropouts, rates, strict=True):
                layer.rate = rate
