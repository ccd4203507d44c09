"""Batches of a split, in the order and with the augmentation of an epoch."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.data import SIDE, TRAIN, augmentation, votes
from pipeline.data.dataset import Dataset
from pipeline.settings import Hyperparameters

WORKERS = 2
"""Batches that TensorFlow prepares at a time."""


class Batches(keras.utils.PyDataset):
    """One split, as it is: images (b, 48, 48, 1) uint8 and targets (b, classes) float32.

    The targets are the shares of the votes; without votes they are one-hot labels.
    """

    def __init__(self, dataset: Dataset, split: int, batch_size: int) -> None:
        # One worker: what more of them fetch ahead to build the network would come into the first
        # epoch (Keras 3.15).
        super().__init__(workers=1)
        self.images, labels = dataset.part(split)
        if dataset.votes is None:
            self.targets = np.eye(len(dataset.classes), dtype=np.float32)[labels]
        else:
            self.targets = votes.shares(dataset.votes[dataset.split == split])
        self.batch_size = batch_size
        self.order = np.arange(len(self.images))

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        rows = self.rows(index)
        return self.images[rows], self.targets[rows]

    def rows(self, index: int) -> NDArray[np.intp]:
        return self.order[index * self.batch_size : (index + 1) * self.batch_size]


class TrainBatches(Batches):
    """The train split, in a new order each epoch and augmented as the settings say.

    What a batch holds depends on seed, epoch and the batch's number alone, so a training that goes
    on after an interruption sees the same faces. Smaller faces come as (b, side, side, 1).
    """

    def __init__(self, dataset: Dataset, settings: Hyperparameters) -> None:
        super().__init__(dataset, TRAIN, settings.batch_size)
        self.settings = settings
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Make epoch `epoch` (the first is 0) the one that is shown. Keras' own on_epoch_end can't
        do it: it is also called before the first epoch (3.15)."""
        self.epoch = epoch
        self.side = side_at(self.settings, epoch)
        rng = np.random.default_rng([self.settings.seed, 0, epoch])
        self.order = rng.permutation(len(self.images))

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        images, targets = super().__getitem__(index)
        if augmentation.is_plain(self.settings, self.side):
            return images, targets
        rng = np.random.default_rng([self.settings.seed, 1, self.epoch, index])
        # Every other epoch mirrors a face, so that any two in a row show both sides (Jordan 2024).
        mirrored = (self.rows(index) + self.epoch) % 2 == 1
        return augmentation.augment(
            images, targets, mirrored & self.settings.flip, self.settings, self.side, rng
        )


def side_at(settings: Hyperparameters, epoch: int) -> int:
    """Side in pixels of the training faces in `epoch` (the first is 0)."""
    return settings.image_size if epoch < settings.small_epochs else SIDE


def for_fit(batches: Batches, *, any_size: bool = False) -> Any:
    """`batches` as Keras' `fit` takes them; with `any_size` the images' sides may change.

    On TensorFlow this is a tf.data.Dataset. From a PyDataset Keras (3.15) would take the shapes of
    the first batches, refuse other sides and trace its steps anew for them.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow

    sides = (None, None) if any_size else (SIDE, SIDE)

    @tensorflow.autograph.experimental.do_not_convert
    def fetch(number: Any) -> tuple[Any, Any]:
        images, targets = tensorflow.numpy_function(
            lambda number: batches[int(number)], [number], (tensorflow.uint8, tensorflow.float32)
        )
        images.set_shape((None, *sides, 1))
        targets.set_shape((None, batches.targets.shape[1]))
        return images, targets

    stream = tensorflow.data.Dataset.range(len(batches))
    stream = stream.map(fetch, num_parallel_calls=WORKERS).prefetch(WORKERS)
    options = tensorflow.data.Options()
    options.autotune.enabled = False  # its thread keeps the end of an epoch waiting for seconds
    options.threading.private_threadpool_size = WORKERS
    return stream.with_options(options)
