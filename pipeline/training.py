"""fit: a dataset and settings to a trained network and its history. Knows nothing of MLflow.

What the same seed, data and thread count give is the same to the last bit on a CPU, also when a
training was interrupted and went on from its checkpoint.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline import TrainingError, networks
from pipeline.dataset import CLASSES, TRAIN, VALIDATION, Dataset
from pipeline.settings import TrainSettings

OnEpoch = Callable[[int, dict[str, float]], None]
"""Called after epoch `epoch` (the first is 1) with its metrics; what it raises ends training."""


@dataclass
class Fitted:
    """A training's result: `model` has the best epoch's weights and computes in float32.

    `history` has the metrics of each epoch. `model` is None if not even one epoch was finished.
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

    def record(self, logs: dict[str, float], weights: Callable[[], list[NDArray[Any]]]) -> None:
        self.history.append(logs)
        best = self.history[self.best_epoch - 1]["val_accuracy"] if self.best_epoch else -1.0
        if logs["val_accuracy"] > best:
            self.best_epoch, self.best_weights = len(self.history), weights()


def fit(
    settings: TrainSettings,
    dataset: Dataset,
    *,
    precision: str,
    on_epoch: Sequence[OnEpoch] = (),
    on_batch: Callable[[int, int, int], None] = lambda epoch, batch, batches: None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train `settings.network` on the train split; validation stops it and picks the best epoch.

    Goes on from `checkpoint` if that file exists, telling `on_epoch` of its epochs first, and
    writes it after every epoch. Ctrl-C (KeyboardInterrupt) gives back what was reached. Raises
    TrainingError if the loss is not finite.
    """
    keras.utils.set_random_seed(settings.seed)
    model = _build(settings, precision)
    model.compile(
        optimizer=_optimizer(settings),
        loss=_loss(settings),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    reached = Reached()
    if checkpoint and checkpoint.exists():
        reached = load_checkpoint(checkpoint, variables)

    epochs_done = len(reached.history)
    for epoch, logs in enumerate(reached.history, start=1):
        for call in on_epoch:
            call(epoch, logs)
    train = Batches(dataset, TRAIN, settings.batch_size, shuffle_seed=settings.seed)
    validation = Batches(dataset, VALIDATION, networks.PREDICT_BATCH)

    def finish_epoch(logs: dict[str, float]) -> bool:
        """Record an epoch; True says that it was the last."""
        epoch = len(reached.history) + 1
        if not np.isfinite(logs["train_loss"]):
            raise TrainingError(
                f"epoch {epoch}: the training loss is {logs['train_loss']}; lower lr={settings.lr}"
            )
        reached.record(logs, lambda: networks.get_state(model.weights))
        if checkpoint:
            save_checkpoint(checkpoint, reached, variables)
        for call in on_epoch:
            call(epoch, logs)
        return is_out_of_patience(epoch, reached.best_epoch, settings.patience)

    interrupted = False
    if not is_out_of_patience(epochs_done, reached.best_epoch, settings.patience):
        try:
            model.fit(
                train,
                validation_data=validation,
                initial_epoch=epochs_done,
                epochs=settings.epochs,
                callbacks=[_EpochEnd(train, finish_epoch, on_batch)],
                shuffle=False,  # `Batches` does it
                verbose=0,
            )
        except KeyboardInterrupt:
            interrupted = True
    return Fitted(_finished(settings, reached), reached.history, reached.best_epoch, interrupted)


def is_out_of_patience(epoch: int, best_epoch: int, patience: int) -> bool:
    """Whether `patience` epochs (0: no limit) went by since the best one."""
    return 0 < patience <= epoch - best_epoch


def save_checkpoint(file: Path, reached: Reached, variables: Sequence[Any]) -> None:
    """Write `file` whole or not at all: a kill in the middle leaves the one before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"history": reached.history, "best_epoch": reached.best_epoch})
    arrays = {f"now_{i}": value for i, value in enumerate(networks.get_state(variables))}
    arrays |= {f"best_{i}": value for i, value in enumerate(reached.best_weights)}
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as out:
        np.savez(out, allow_pickle=False, about=np.array(about), **arrays)
    unfinished.replace(file)


def load_checkpoint(file: Path, variables: Sequence[Any]) -> Reached:
    """Set `variables` to what `file` holds and return the reached up to it."""
    with np.load(file) as arrays:
        about = json.loads(str(arrays["about"]))
        networks.set_state(variables, [arrays[f"now_{i}"] for i in range(len(variables))])
        best_count = sum(name.startswith("best_") for name in arrays)
        best = [arrays[f"best_{i}"] for i in range(best_count)]
    return Reached(about["history"], about["best_epoch"], best)


class Batches(keras.utils.PyDataset):
    """One split in batches: images (b, 48, 48, 1) uint8 and one-hot labels (b, 7) float32.

    With `shuffle_seed` the order is new each epoch and depends on seed and epoch alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: int,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.images, labels = dataset.part(split)
        self.targets = np.eye(len(CLASSES), dtype=np.float32)[labels]
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.order = np.arange(len(self.images))
        self.start_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images[rows], self.targets[rows]

    def start_epoch(self, epoch: int) -> None:
        """Set the order of faces. Keras' own on_epoch_end can't do it: it is also called before
        the first epoch (3.15)."""
        if self.shuffle_seed is not None:
            rng = np.random.default_rng([self.shuffle_seed, epoch])
            self.order = rng.permutation(len(self.images))


class _EpochEnd(keras.callbacks.Callback):
    """Turns Keras' logs into ours, times the training half of an epoch, and stops when told to."""

    def __init__(
        self,
        train: Batches,
        finish_epoch: Callable[[dict[str, float]], bool],
        on_batch: Callable[[int, int, int], None],
    ) -> None:
        super().__init__()
        self.train = train
        self.finish_epoch = finish_epoch
        self.call_on_batch = on_batch
        self.epoch = 0
        self.started = self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch + 1
        self.train.start_epoch(epoch)
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.call_on_batch(self.epoch, batch + 1, len(self.train))

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self.seconds = time.perf_counter() - self.started

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
        if self.finish_epoch({name: float(value) for name, value in metrics.items()}):
            self.model.stop_training = True


def _build(settings: TrainSettings, precision: str) -> keras.Model:
    return networks.build(
        settings.network,
        precision=precision,
        dropout=settings.dropout,
        l2=settings.l2,
        width=settings.width,
        kernel=settings.kernel,
    )


def _finished(settings: TrainSettings, reached: Reached) -> keras.Model | None:
    """The best epoch's network in float32, so that what is kept computes the same everywhere."""
    if not reached.best_weights:
        return None
    model = _build(settings, "float32")
    networks.set_state(model.weights, reached.best_weights)
    return model


def _optimizer(settings: TrainSettings) -> keras.optimizers.Optimizer:
    optimizers, lr = keras.optimizers, settings.lr
    match settings.optimizer:
        case "adam":
            return optimizers.Adam(lr)
        case "adamw":
            return optimizers.AdamW(lr, weight_decay=settings.weight_decay)
        case "sgd":
            return optimizers.SGD(lr)
        case "momentum":
            return optimizers.SGD(lr, momentum=settings.momentum, nesterov=True)
        case "rmsprop":
            return optimizers.RMSprop(lr)


def _loss(settings: TrainSettings) -> keras.losses.Loss:
    smoothing = settings.label_smoothing
    match settings.loss:
        case "cross_entropy":
            return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        case (
            "focal"
        ):  # Lin et al. 2017, with their gamma of 2; Keras' alpha of 0.25 scales all classes
            return keras.losses.CategoricalFocalCrossentropy(label_smoothing=smoothing)
        case "dice":
            return SoftDice(smoothing)


class SoftDice(keras.losses.Loss):
    """1 - 2 Σ p·y / (Σ p + Σ y) for each class over the batch, averaged over the classes present.

    The soft form of the F1 score (Milletari et al. 2016, for segmentation). A class without a face
    in the batch has no overlap to gain, so it is left out of the mean.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(name="dice", reduction="sum")
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, y_pred.dtype)
        present = ops.cast(ops.any(y_true > 0.5, axis=0), y_pred.dtype)
        smooth = y_true * (1 - self.label_smoothing) + self.label_smoothing / len(CLASSES)
        overlap = ops.sum(smooth * y_pred, axis=0)
        both = ops.sum(smooth, axis=0) + ops.sum(y_pred, axis=0)
        dice = 2 * overlap / (both + keras.config.epsilon())
        return 1 - ops.sum(dice * present) / ops.sum(present)
