"""fit: a dataset and settings to a trained network and its history. Knows nothing of MLflow.

What the same seed, data and thread count give is the same to the last bit on the same kind of CPU,
also when a training was interrupted and went on from its checkpoint.
"""

import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline import InputError, TrainingError, lifetime, networks
from pipeline.batches import Batches, TrainBatches
from pipeline.dataset import TRAIN, VALIDATION, Dataset
from pipeline.optimization import make_loss, make_optimizer
from pipeline.settings import KeepName, Training, TrainSettings

OnEpoch = Callable[[int, dict[str, float]], None]
"""Called after epoch `epoch` (the first is 1) with its metrics; what it raises ends training."""
OnBatch = Callable[[int, int, int], None]
"""Called after a batch with the epoch's number, the batch's (from 1), and the batches an epoch."""
RECALIBRATION_FACES = 2048
"""Training faces, at most, that means and variances are measured on: enough, in some seconds."""
VALIDATION_RECALIBRATION_FACES = 512
"""As many before each validation, in a second."""


@dataclass
class Fitted:
    """A training's result: `model` has the kept epoch's weights and computes in float32.

    `history` has the metrics of each epoch; `best_epoch` is the one that is kept, the best or the
    last by `settings.keep`. `model` is None if not even one epoch was finished.
    """

    model: keras.Model | None
    history: list[dict[str, float]]
    best_epoch: int
    interrupted: bool

    @property
    def best_val_accuracy(self) -> float:
        return self.history[self.best_epoch - 1]["val_accuracy"]


@dataclass
class Reached:
    """What a training knows between two epochs; with the variables' values, its checkpoint."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[NDArray[Any]] = field(default_factory=list)

    def record(self, logs: dict[str, float], weights: list[NDArray[Any]], keep: KeepName) -> None:
        self.history.append(logs)
        best = self.history[self.best_epoch - 1]["val_accuracy"] if self.best_epoch else -1.0
        if keep == "last" or logs["val_accuracy"] > best:
            self.best_epoch, self.best_weights = len(self.history), weights


def fit(
    settings: TrainSettings,
    dataset: Dataset,
    *,
    precision: str,
    start: keras.Model | None = None,
    on_epoch: Sequence[OnEpoch] = (),
    on_batch: OnBatch = lambda epoch, batch, batches: None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train `settings.network` on the train split; `settings.keep` says which epoch is kept.

    It begins with the weights of `start`, which `settings.start` names, or with drawn ones.
    Goes on from `checkpoint` if that file exists, telling `on_epoch` of its epochs first, and
    writes it after every epoch. Ctrl-C (KeyboardInterrupt) gives back what was reached. Raises
    TrainingError if the training or the validation loss is not finite.
    """
    reached = Reached()
    interrupted = False
    try:
        _train(settings, dataset, precision, start, reached, on_epoch, on_batch, checkpoint)
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        interrupted = True
    weights = reached.best_weights
    model = kept_network(settings, dataset, weights) if weights else None
    return Fitted(model, reached.history, reached.best_epoch, interrupted)


def _train(
    settings: TrainSettings,
    dataset: Dataset,
    precision: str,
    start: keras.Model | None,
    reached: Reached,
    on_epoch: Sequence[OnEpoch],
    on_batch: OnBatch,
    checkpoint: Path | None,
) -> None:
    """Build the network and train it to its end; `reached` says at any time how far that came."""
    keras.utils.set_random_seed(settings.seed)
    train = TrainBatches(dataset, settings)
    validation = Batches(dataset, VALIDATION, networks.PREDICT_BATCH)
    model = networks.build(settings, precision=precision, to_train=True)
    if start is not None:
        networks.begin_with(model, start, settings.start)
    model.compile(
        optimizer=make_optimizer(settings, steps=settings.epochs * len(train)),
        loss=make_loss(settings),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    if checkpoint and checkpoint.exists():
        load_checkpoint(checkpoint, variables, reached)

    for epoch, logs in enumerate(reached.history, start=1):
        for call in on_epoch:
            call(epoch, logs)

    def finish_epoch(logs: dict[str, float], validated: list[NDArray[Any]]) -> bool:
        """Record an epoch and the weights that were validated; True says that it was the last."""
        epoch = len(reached.history) + 1
        _check_finite(epoch, logs, settings)
        reached.record(logs, validated, settings.keep)
        if checkpoint:
            save_checkpoint(checkpoint, reached, variables)
        for call in on_epoch:
            call(epoch, logs)
        return is_out_of_patience(epoch, reached.best_epoch, settings)

    epoch_end = _EpochEnd(train, finish_epoch, on_batch)
    before_validation = _before_validation(settings, dataset, model)
    for last_epoch in _stages(settings, reached):
        train.start_epoch(len(reached.history))
        model.fit(
            train,
            validation_data=validation,
            initial_epoch=len(reached.history),
            epochs=last_epoch,
            callbacks=[epoch_end, *before_validation],
            shuffle=False,  # `TrainBatches` does it
            verbose=0,
        )
        # With averages, `fit` ends by putting them in the place of the weights.
        networks.set_state(model.trainable_variables, epoch_end.trained)


def _before_validation(
    settings: TrainSettings, dataset: Dataset, model: keras.Model
) -> list[keras.callbacks.Callback]:
    """What makes of the network in training the one that validates, in its order."""
    callbacks: list[keras.callbacks.Callback] = []
    if settings.averaging:
        callbacks.append(keras.callbacks.SwapEMAWeights())
    if settings.recalibrate:
        images = _some_faces(settings, dataset, VALIDATION_RECALIBRATION_FACES)
        recalibrate = keras.callbacks.LambdaCallback(
            on_test_begin=lambda logs: networks.recalibrate(model, images, "one")
        )
        callbacks.append(recalibrate)
    return callbacks


def _check_finite(epoch: int, logs: dict[str, float], settings: Training) -> None:
    for name, loss in (("training", logs["train_loss"]), ("validation", logs["val_loss"])):
        if not np.isfinite(loss):
            raise TrainingError(f"epoch {epoch}: the {name} loss is {loss}; lower lr={settings.lr}")


def _is_interrupt(error: BaseException) -> bool:
    """Whether `error` is Ctrl-C, or what Keras (3.15) made of it: while it traces a step it gives
    "None values not supported", and in a step on JAX its clean-up fails."""
    return (
        isinstance(error, KeyboardInterrupt)
        or isinstance(error.__context__, KeyboardInterrupt)
        or lifetime.was_interrupted()
    )


def is_out_of_patience(epoch: int, best_epoch: int, settings: Training) -> bool:
    """Whether `patience` epochs (0: no limit) went by since the best one.

    While faces are small, validation at full size says little: these epochs don't count.
    """
    return 0 < settings.patience <= epoch - max(best_epoch, settings.small_epochs)


def _stages(settings: TrainSettings, reached: Reached) -> Iterator[int]:
    """The last epoch of each `fit` that is still to do, for one takes faces of one size."""
    for last_epoch in (settings.small_epochs, settings.epochs):
        epochs = len(reached.history)
        if epochs < last_epoch and not is_out_of_patience(epochs, reached.best_epoch, settings):
            yield last_epoch


def save_checkpoint(file: Path, reached: Reached, variables: Sequence[Any]) -> None:
    """Write `file` whole or not at all: a kill in the middle leaves the one before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"history": reached.history, "best_epoch": reached.best_epoch})
    arrays = {f"now_{i}": value for i, value in enumerate(networks.get_state(variables))}
    arrays |= {f"best_{i}": value for i, value in enumerate(reached.best_weights)}
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as out:
        np.savez(out, allow_pickle=False, about=np.array(about), **arrays)
        os.fsync(out.fileno())  # so that a power cut can't leave the name without the content
    unfinished.replace(file)


def load_checkpoint(file: Path, variables: Sequence[Any], reached: Reached) -> None:
    """Set `variables` and `reached` to what `file` holds."""
    with _open_checkpoint(file) as arrays:
        about = json.loads(str(arrays["about"]))
        networks.set_state(variables, [arrays[f"now_{i}"] for i in range(len(variables))])
        best_count = sum(name.startswith("best_") for name in arrays)
        reached.best_weights = [arrays[f"best_{i}"] for i in range(best_count)]
    reached.history, reached.best_epoch = about["history"], about["best_epoch"]


def _open_checkpoint(file: Path) -> Any:
    try:
        return np.load(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: no checkpoint that can be read ({error}); train anew") from error


class _EpochEnd(keras.callbacks.Callback):
    """Turns Keras' logs into ours, times the training half of an epoch, and stops when told to."""

    def __init__(
        self,
        train: TrainBatches,
        finish_epoch: Callable[[dict[str, float], list[NDArray[Any]]], bool],
        on_batch: OnBatch,
    ) -> None:
        super().__init__()
        self.train = train
        self.finish_epoch = finish_epoch
        self.call_on_batch = on_batch
        self.epoch = 0
        self.started = self.seconds = 0.0
        self.validated: list[NDArray[Any]] = []
        self.trained: list[NDArray[Any]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch + 1
        self.train.start_epoch(epoch)
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.call_on_batch(self.epoch, batch + 1, len(self.train))
        if lifetime.was_interrupted():  # and whatever was hit has swallowed it
            raise KeyboardInterrupt

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self.seconds = time.perf_counter() - self.started

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        # Here the averaged weights still stand in the model: SwapEMAWeights is called after this.
        self.validated = networks.get_state(self.model.weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        metrics = {
            "train_loss": logs["loss"],
            "train_accuracy": logs["accuracy"],
            "val_loss": logs["val_loss"],
            "val_accuracy": logs["val_accuracy"],
            "learning_rate": ops.convert_to_numpy(self.model.optimizer.learning_rate),
            "images_per_second": len(self.train.images) / self.seconds,
        }
        logs = {name: float(value) for name, value in metrics.items()}
        self.trained = networks.get_state(self.model.trainable_variables)
        if self.finish_epoch(logs, self.validated):
            self.model.stop_training = True


def kept_network(
    settings: TrainSettings, dataset: Dataset, weights: Sequence[NDArray[Any]]
) -> keras.Model:
    """What is kept of `weights`: a network in float32, which computes the same everywhere."""
    model = networks.build(settings, precision="float32")
    networks.set_state(model.weights, weights)
    if settings.recalibrate:
        images = _some_faces(settings, dataset, RECALIBRATION_FACES)
        networks.recalibrate(model, images, settings.views)
    return networks.with_views(model, settings.views)


def _some_faces(settings: Training, dataset: Dataset, most: int) -> NDArray[np.uint8]:
    """`most` training faces or fewer, drawn at random: (N, 48, 48, 1), as they are."""
    images, _ = dataset.part(TRAIN)
    return images[np.random.default_rng([settings.seed, 2]).permutation(len(images))[:most]]
