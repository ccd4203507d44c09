"""Training of a network on a dataset; independent of MLflow.

The same seed, data and thread count give the same weights to the last bit on the same kind of CPU,
also when a training was interrupted and went on from its checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.data import CLASSES, TRAIN, VALIDATION, votes
from pipeline.data.batches import Batches, TrainBatches, for_fit
from pipeline.data.dataset import Dataset
from pipeline.errors import TrainingError
from pipeline.networks import files
from pipeline.networks.batch_norm import Recalibration
from pipeline.networks.build import build
from pipeline.networks.compiled import compiled
from pipeline.networks.layers import set_momentum
from pipeline.networks.tta import with_tta
from pipeline.runs import signals
from pipeline.runs.metric_names import IMAGES_PER_SECOND
from pipeline.settings import Hyperparameters, TrainSettings
from pipeline.training import checkpoint as checkpoints
from pipeline.training.checkpoint import TrainState
from pipeline.training.class_metrics import BalancedAccuracy, MacroF1
from pipeline.training.losses import make_loss
from pipeline.training.optimizers import make_optimizer

OnEpoch = Callable[[int, dict[str, float]], None]
"""Called after epoch `epoch` (the first is 1) with its metrics; what it raises ends training."""
OnBatch = Callable[[int, int, int], None]
"""Called after a batch with the epoch's number, the batch's (from 1), and the batches an epoch."""
RECALIBRATION_FACES = 2048
"""Most training faces on which the saved network's batch norm is re-estimated: some seconds."""
VALIDATION_RECALIBRATION_FACES = 512
"""As many before each validation: a second."""


@dataclass
class TrainResult:
    """A training's result; `state` has the metrics of its epochs and the kept epoch's weights."""

    settings: TrainSettings
    dataset: Dataset
    state: TrainState
    interrupted: bool

    @cached_property
    def model(self) -> keras.Model | None:
        """The network that is saved; None if not even one epoch was finished.

        It is built when it is first asked for, since a search asks for none.
        """
        weights = self.state.best_weights
        return kept_network(self.settings, self.dataset, weights) if weights else None

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of each epoch."""
        return self.state.history

    @property
    def best_epoch(self) -> int:
        """The epoch that is kept, the best or the last by `settings.keep_epoch`; 0 if none is."""
        return self.state.best_epoch

    def best_value(self, monitor: str) -> float:
        """The metric `monitor` of the validation split at the epoch that is kept."""
        return self.history[self.best_epoch - 1][f"val/{monitor}"]


def fit(
    settings: TrainSettings,
    dataset: Dataset,
    *,
    precision: str,
    initial: keras.Model | None = None,
    initial_classes: Sequence[str] = CLASSES,
    on_epoch: Sequence[OnEpoch] = (),
    on_batch: OnBatch = lambda epoch, batch, batches: None,
    checkpoint: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    state: TrainState | None = None,
) -> TrainResult:
    """Train `settings.network` on the train split; `settings.keep_epoch` says which epoch is kept.

    Where the dataset has votes, `settings.targets` says whether they are learnt, and the training
    is validated against the same: the result's dataset has the labels of its figures.
    `initial`, a network for `initial_classes`, gives the initial weights, which are drawn
    otherwise. If the file `checkpoint` exists,
    the training goes on from there, after `on_epoch` was called for the epochs before; it is
    written after every epoch. Keras' `callbacks` see the weights that are validated in their
    `on_test_end`. Ctrl-C (KeyboardInterrupt) returns what was reached. `state`, a new one, is kept
    up to date, also for what `on_epoch` raises. Raises TrainingError if the training or the
    validation loss is not finite.
    """
    dataset = votes.for_training(dataset, settings.targets)
    state = state or TrainState()
    interrupted = False
    try:
        _Training(
            settings, dataset, precision, initial, initial_classes, on_epoch, on_batch, checkpoint,
            callbacks, state,
        ).run()  # fmt: skip
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        interrupted = True
    return TrainResult(settings, dataset, state, interrupted)


@dataclass
class _Training:
    """A training from its first epoch, or its checkpoint, to its last; `state` is up to date."""

    settings: TrainSettings
    dataset: Dataset
    precision: str
    initial: keras.Model | None
    initial_classes: Sequence[str]
    on_epoch: Sequence[OnEpoch]
    on_batch: OnBatch
    checkpoint: Path | None
    callbacks: Sequence[keras.callbacks.Callback]
    state: TrainState

    def run(self) -> None:
        """Build the network and train it to its end."""
        settings, state = self.settings, self.state
        keras.utils.set_random_seed(settings.seed)
        train = TrainBatches(self.dataset, settings)
        validation = Batches(self.dataset, VALIDATION, files.PREDICT_BATCH)
        model = self._compiled(steps_per_epoch=len(train))
        self.variables = [*model.variables, *model.optimizer.variables]
        if self.checkpoint and self.checkpoint.exists():
            checkpoints.load(self.checkpoint, self.variables, state)
        for epoch, logs in enumerate(state.history, start=1):
            self._report(epoch, logs)
        epochs = len(state.history)
        if epochs == settings.epochs or stops_early(epochs, state.best_epoch, settings):
            return

        epoch_end = _EpochEnd(train, self._finish_epoch, self.on_batch)
        before_validation = _before_validation(settings, self.dataset, model)
        model.fit(
            for_fit(train, any_size=settings.small_epochs > 0),
            validation_data=for_fit(validation),
            initial_epoch=epochs,
            epochs=settings.epochs,
            # The last of them takes the averaged weights out again.
            callbacks=[epoch_end, *self.callbacks, *before_validation],
            shuffle=False,  # `TrainBatches` does it
            verbose=0,
        )

    def _compiled(self, steps_per_epoch: int) -> keras.Model:
        classes = self.dataset.classes
        model = build(self.settings, precision=self.precision, classes=len(classes), to_train=True)
        if not self.settings.recalibrate_bn:
            set_momentum(model, steps_per_epoch)
        if self.initial is not None:
            files.copy_weights(
                model, self.initial, str(self.settings.init_from), classes, self.initial_classes
            )
        model.compile(
            optimizer=make_optimizer(self.settings, self.settings.epochs * steps_per_epoch),
            loss=make_loss(self.settings),
            metrics=[
                keras.metrics.CategoricalAccuracy(name="accuracy"),
                MacroF1(len(classes), name="macro_f1"),
                BalancedAccuracy(len(classes), name="balanced_accuracy"),
            ],
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def _finish_epoch(self, logs: dict[str, float], validated: list[NDArray[Any]]) -> bool:
        """Record an epoch and the weights that were validated; True if it was the last one."""
        epoch = len(self.state.history) + 1
        _check_finite(epoch, logs, self.settings)
        self.state.record(logs, validated, self.settings)
        if self.checkpoint:
            checkpoints.save(self.checkpoint, self.variables, self.state)
        self._report(epoch, logs)
        return stops_early(epoch, self.state.best_epoch, self.settings)

    def _report(self, epoch: int, logs: dict[str, float]) -> None:
        for call in self.on_epoch:
            call(epoch, logs)


def _before_validation(
    settings: TrainSettings, dataset: Dataset, model: keras.Model
) -> list[keras.callbacks.Callback]:
    """Callbacks that prepare the weights for validation, in order: EMA weights, then batch norm."""
    callbacks: list[keras.callbacks.Callback] = []
    if settings.ema:
        callbacks.append(_AveragedWeights())
    if settings.recalibrate_bn:
        recalibrate = Recalibration(model, "none", repeated=True)
        images = _some_faces(settings, dataset, VALIDATION_RECALIBRATION_FACES)
        callbacks.append(
            keras.callbacks.LambdaCallback(on_test_begin=lambda logs: recalibrate(images))
        )
    return callbacks


def _check_finite(epoch: int, logs: dict[str, float], settings: Hyperparameters) -> None:
    for name, loss in (("training", logs["train/loss"]), ("validation", logs["val/loss"])):
        if not np.isfinite(loss):
            raise TrainingError(f"epoch {epoch}: the {name} loss is {loss}; lower lr={settings.lr}")


def _is_interrupt(error: BaseException) -> bool:
    """Whether `error` is Ctrl-C, or what Keras (3.15) made of it.

    While it traces a step Keras raises "None values not supported", and in a step on JAX its
    clean-up fails.
    """
    return (
        isinstance(error, KeyboardInterrupt)
        or isinstance(error.__context__, KeyboardInterrupt)
        or signals.was_interrupted()
    )


def stops_early(epoch: int, best_epoch: int, settings: Hyperparameters) -> bool:
    """Whether early stopping ends the training: `patience` epochs (0: off) without a better one.

    Epochs at a smaller image size don't count, since validation is at full size.
    """
    return 0 < settings.patience <= epoch - max(best_epoch, settings.small_epochs)


class _AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Keras' callback that validates the EMA of the weights, its swap compiled.

    As Keras (3.15) has it, the swap of some 20 variables takes as long as a step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._swap_variables = compiled(super()._swap_variables)


class _EpochEnd(keras.callbacks.Callback):
    """Callback at the end of an epoch: renames Keras' logs, times the steps, stops the training."""

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

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch + 1
        self.train.start_epoch(epoch)
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.call_on_batch(self.epoch, batch + 1, len(self.train))
        if signals.was_interrupted():  # and whatever was hit has swallowed it
            raise KeyboardInterrupt

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self.seconds = time.perf_counter() - self.started

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        # Here the averaged weights still stand in the model: SwapEMAWeights is called after this.
        self.validated = files.get_state(self.model.weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        metrics = {
            "train/loss": logs["loss"],
            "train/accuracy": logs["accuracy"],
            "val/loss": logs["val_loss"],
            "val/accuracy": logs["val_accuracy"],
            "val/macro_f1": logs["val_macro_f1"],
            "val/balanced_accuracy": logs["val_balanced_accuracy"],
            "learning_rate": ops.convert_to_numpy(self.model.optimizer.learning_rate),
            IMAGES_PER_SECOND: len(self.train.images) / self.seconds,
        }
        logs = {name: float(value) for name, value in metrics.items()}
        if self.finish_epoch(logs, self.validated):
            self.model.stop_training = True


def kept_network(
    settings: TrainSettings, dataset: Dataset, weights: Sequence[NDArray[Any]]
) -> keras.Model:
    """The network that is saved, with `weights`, in float32, which computes the same everywhere."""
    model = build(settings, precision="float32", classes=len(dataset.classes))
    files.set_state(model.weights, weights)
    if settings.recalibrate_bn:
        images = _some_faces(settings, dataset, RECALIBRATION_FACES)
        Recalibration(model, settings.tta)(images)
    return with_tta(model, settings.tta)


def _some_faces(settings: Hyperparameters, dataset: Dataset, most: int) -> NDArray[np.uint8]:
    """`most` training faces or fewer, drawn at random: (N, 48, 48, 1), without augmentation."""
    images, _ = dataset.part(TRAIN)
    return images[np.random.default_rng([settings.seed, 2]).permutation(len(images))[:most]]
