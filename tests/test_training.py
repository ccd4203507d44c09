"""Tests of fit: bit-reproducible, interruptible, resumable, and according to the settings."""

import contextlib
import json
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.data import TRAIN, VALIDATION
from pipeline.data.batches import TrainBatches
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError, TrainingError
from pipeline.networks import files
from pipeline.networks.batch_norm import Recalibration
from pipeline.networks.build import build
from pipeline.networks.layers import set_momentum
from pipeline.registry import LOSSES, OPTIMIZERS
from pipeline.runs import signals
from pipeline.settings import TrainSettings, recipe
from pipeline.training import checkpoint
from pipeline.training import fit as training
from pipeline.training.fit import TrainResult, stops_early
from pipeline.training.losses import SoftDice, make_loss
from pipeline.training.optimizers import make_optimizer
from pipeline.training.schedule import learning_rate_at
from tests.tiny import TINY

SMALL: dict[str, Any] = {"epochs": 3, "batch_size": 32, "lr": 0.003, "threads": 1}
WHOLE: dict[str, Any] = {"epochs": 6, "patience": 0}
"""Epochs enough that the best one is neither the first nor the last."""


def fit(dataset: Dataset, **changes: Any) -> TrainResult:
    options = {
        key: changes.pop(key) for key in ("on_epoch", "on_batch", "checkpoint") if key in changes
    }
    precision = changes.pop("precision", "float32")
    network = changes.pop("network", TINY)
    settings = replace(recipe(TrainSettings, network), **SMALL | changes)
    return training.fit(settings, dataset, precision=precision, **options)


def weights(fitted: TrainResult) -> list[np.ndarray]:
    assert fitted.model is not None
    return files.get_state(fitted.model.weights)


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def without_speed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in logs.items() if k != "time/images_per_second"} for logs in history]


@pytest.fixture(scope="session")
def plain(dataset: Dataset) -> TrainResult:
    return fit(dataset, **WHOLE)


@pytest.fixture(scope="session")
def last(dataset: Dataset) -> TrainResult:
    return fit(dataset, **WHOLE, keep_epoch="last")


def test_another_seed_gives_other_weights(dataset: Dataset, plain: TrainResult) -> None:
    assert not equal(weights(plain), weights(fit(dataset, **WHOLE, seed=1)))


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        # EMA, a schedule, all augmentations, progressive resizing after epoch 2.
        pytest.param(
            {"network": "compact", "width": 0.1, "optimizer": "momentum", "mixup": 0.2,
             "cutout": 12, "image_size": 24, "epochs": 4},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["tiny", "compact"],
)  # fmt: skip
def test_an_interrupted_training_goes_on_to_the_same_result_bit_for_bit(
    dataset: Dataset, plain: TrainResult, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    """The interrupted and the resumed training are two, so equal settings give equal weights."""
    options = WHOLE | recipe
    whole = fit(dataset, **options) if recipe else plain
    options["checkpoint"] = tmp_path / "c.npz"

    def interrupt(epoch: int, batch: int, batches: int) -> None:
        if (epoch, batch) == (3, 2):
            raise KeyboardInterrupt

    stopped = fit(dataset, **options, on_batch=interrupt)
    assert stopped.interrupted
    assert len(stopped.history) == 2
    assert stopped.model is not None
    require_refused_if_changed(tmp_path / "c.npz")

    told: list[int] = []
    resumed = fit(dataset, **options, on_epoch=[lambda epoch, logs: told.append(epoch)])
    assert not resumed.interrupted
    assert told == list(range(1, options["epochs"] + 1))
    assert 0 < resumed.state.seconds_before < stopped.state.seconds
    assert without_speed(resumed.history) == without_speed(whole.history)
    assert equal(weights(resumed), weights(whole))


def require_refused_if_changed(file: Path) -> None:
    """Check that a checkpoint with another byte, or other values, is refused; put it back."""
    whole = file.read_bytes()
    with np.load(file) as found:
        arrays = dict(found)
    last = max(name for name in arrays if arrays[name].dtype == np.float32)
    for damage in ("a byte", "half of it", "a value", "a type", "no digest"):
        changed = dict(arrays)
        if damage in ("a byte", "half of it"):
            middle = len(whole) // 2
            flipped = bytes([whole[middle] ^ 1])
            rest = whole[middle + 1 :] if damage == "a byte" else b""
            file.write_bytes(whole[:middle] + flipped + rest)
        else:
            if damage == "no digest":
                about = {k: v for k, v in json.loads(str(arrays["about"])).items() if k != "digest"}
                changed["about"] = np.array(json.dumps(about))
            else:
                factor = np.nan if damage == "a value" else np.float64(1)
                kind = np.float64 if damage == "a type" else arrays[last].dtype
                changed[last] = (arrays[last] * factor).astype(kind)
            np.savez(file, allow_pickle=False, **changed)
        with pytest.raises(InputError, match="remove it and train anew"):
            checkpoint.require_whole(file)
    file.write_bytes(whole)
    checkpoint.require_whole(file)


def test_a_disk_that_gets_full_leaves_the_checkpoint_before(
    plain: TrainResult, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: writes fail beyond it as they would."""
    assert plain.model is not None
    file, state = tmp_path / "c" / "run.npz", checkpoint.TrainState(history=[{"val/accuracy": 0.5}])
    checkpoint.save(file, plain.model.weights, state)
    whole, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(file, plain.model.weights, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == whole
    checkpoint.require_whole(file)


def test_an_interruption_before_the_first_epoch_ends_gives_no_model(dataset: Dataset) -> None:
    def interrupt(epoch: int, batch: int, batches: int) -> None:
        raise KeyboardInterrupt

    stopped = fit(dataset, on_batch=interrupt)
    assert stopped.model is None
    assert stopped.history == []


def test_an_interruption_that_breaks_keras_clean_up_keeps_what_was_reached(
    dataset: Dataset,
) -> None:
    def interrupt(epoch: int, batch: int, batches: int) -> None:
        if epoch == 2:
            try:
                raise KeyboardInterrupt
            finally:  # as in Keras' trainer for JAX
                raise TypeError("'NoneType' object is not callable")

    stopped = fit(dataset, on_batch=interrupt)
    assert stopped.interrupted
    assert len(stopped.history) == 1
    assert stopped.model is not None


@pytest.mark.parametrize("error", [None, ValueError("None values not supported.")])
def test_an_interruption_that_keras_swallows_or_makes_another_error_of_is_one(
    dataset: Dataset, error: ValueError | None
) -> None:
    def interrupt(epoch: int, batch: int, batches: int) -> None:
        if epoch == 2:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            if error:
                raise error

    with signals.interruptible():
        stopped = fit(dataset, on_batch=interrupt)
    assert stopped.interrupted
    assert len(stopped.history) == 1
    assert not signals.was_interrupted(), "the next training is not interrupted"


def test_an_interruption_waits_until_a_write_is_done() -> None:
    written = False
    with signals.interruptible(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with signals.defer_interrupts():
            signal.raise_signal(signal.SIGINT)
            written = True
        raise AssertionError("the interruption was lost")
    assert written


def accuracy(fitted: TrainResult, dataset: Dataset) -> float:
    """Validation accuracy of the network that was kept."""
    images, labels = dataset.part(VALIDATION)
    return float(np.mean(files.predict(fitted.model, images).argmax(axis=1) == labels))


def test_the_network_kept_is_the_best_epochs(dataset: Dataset, plain: TrainResult) -> None:
    accuracies = [logs["val/accuracy"] for logs in plain.history]
    assert len({*accuracies}) > 1
    assert plain.best_val_accuracy == max(accuracies)
    assert plain.best_epoch == accuracies.index(max(accuracies)) + 1
    assert accuracy(plain, dataset) == pytest.approx(max(accuracies))


def test_the_last_epochs_network_is_kept_if_asked_for(
    dataset: Dataset, plain: TrainResult, last: TrainResult
) -> None:
    assert without_speed(last.history) == without_speed(plain.history)
    assert plain.best_epoch < last.best_epoch == len(last.history)
    assert not equal(weights(plain), weights(last))
    assert accuracy(last, dataset) == pytest.approx(last.best_val_accuracy)


def test_training_stops_when_validation_gets_no_better(dataset: Dataset) -> None:
    """Of equal epochs the first is the best."""
    fitted = fit(dataset, epochs=30, patience=2, lr=1e-12)
    assert (fitted.best_epoch, len(fitted.history)) == (1, 3)


@pytest.mark.parametrize(
    ("epoch", "best", "patience", "out"),
    [(5, 3, 2, True), (4, 3, 2, False), (90, 1, 0, False), (0, 0, 3, False)],
)
def test_patience_counts_epochs_since_the_best(
    epoch: int, best: int, patience: int, out: bool
) -> None:
    settings = TrainSettings(epochs=100, patience=patience)
    assert stops_early(epoch, best, settings) is out


def test_epochs_at_a_reduced_image_size_do_not_cost_patience() -> None:
    settings = recipe(TrainSettings, "compact")
    settings = replace(settings, epochs=20, keep_epoch="best", patience=3)
    ended = [epoch for epoch in range(1, 21) if stops_early(epoch, 2, settings)]
    assert ended[0] == 13


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_moves_the_weights(dataset: Dataset, optimizer: str) -> None:
    fitted = fit(dataset, epochs=1, optimizer=optimizer)
    kernels = [w for w in weights(fitted) if w.ndim == 4]
    start = [w for w in files.get_state(untrained().weights) if w.ndim == 4]
    assert not equal(kernels, start)
    assert fitted.history[0]["learning_rate"] == pytest.approx(0.003)


def untrained() -> Any:
    keras.utils.set_random_seed(0)
    return build(TrainSettings(network=TINY), precision="float32")


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns(dataset: Dataset, loss: str) -> None:
    fitted = fit(dataset, epochs=8, loss=loss, l2=0.0, dropout=0.0, lr=0.001, patience=0)
    losses = [logs["train/loss"] for logs in fitted.history]
    assert losses[-1] < losses[0]
    assert fitted.history[-1]["train/accuracy"] > 0.3, "a seventh is chance"


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [
        ("adam", "Adam", {}),
        ("sgd", "SGD", {"momentum": 0.0}),
        ("momentum", "SGD", {"momentum": 0.8, "nesterov": True}),
        ("adamw", "AdamW", {"weight_decay": 0.02}),
        ("rmsprop", "RMSprop", {}),
    ],
)
def test_an_optimizer_is_the_one_of_its_name_with_its_settings(
    name: str, kind: str, own: dict[str, object]
) -> None:
    settings = TrainSettings(optimizer=name, momentum=0.8, weight_decay=0.02, ema=0.5)
    made = make_optimizer(settings, steps=20)
    assert type(made).__name__ == kind
    wanted = own | {"use_ema": True, "ema_momentum": 0.9}
    assert {key: made.get_config()[key] for key in wanted} == wanted


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_its_formula_on_smoothed_labels(loss: str) -> None:
    p = np.array([[0.7, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02], [0.3, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1]])
    labels = np.eye(7)[[0, 3]]
    y = 0.9 * labels + 0.1 / 7
    dice = 2 * (y * p).sum(axis=0) / (y + p).sum(axis=0)
    expected = {
        "cross_entropy": -(y * np.log(p)).sum(axis=1).mean(),
        "focal": -(0.25 * (1 - p) ** 2 * y * np.log(p)).sum(axis=1).mean(),
        "dice": 1 - dice[[0, 3]].mean(),
    }
    made = make_loss(TrainSettings(loss=loss, label_smoothing=0.1))
    found = made(labels.astype(np.float32), p.astype(np.float32))
    assert float(found) == pytest.approx(expected[loss], rel=1e-5)


def test_dice_is_one_minus_the_soft_f1_of_the_classes_present() -> None:
    labels = np.eye(7, dtype=np.float32)[[0, 0, 3]]
    right = SoftDice(TrainSettings())(labels, labels)
    assert float(right) == pytest.approx(0, abs=1e-6)
    wrong = SoftDice(TrainSettings())(labels, np.eye(7, dtype=np.float32)[[1, 1, 2]])
    assert float(wrong) == pytest.approx(1, abs=1e-6)
    # Class 0: 2 * 0.5 / (2 + 0.5); class 3: 2 * 1 / (1 + 1).
    half = np.eye(7, dtype=np.float32)[[0, 5, 3]]
    half[0, 0] = 0.5
    assert float(SoftDice(TrainSettings())(labels, half)) == pytest.approx(
        1 - (0.4 + 1) / 2, abs=1e-6
    )
    # Both classes of a mixed face are present. Class 0: 2 * 0.6 / (0.6 + 1); class 1: 0.
    mixed = np.array([[0.6, 0.4, 0, 0, 0, 0, 0]], np.float32)
    loss = SoftDice(TrainSettings())(mixed, np.eye(7, dtype=np.float32)[[0]])
    assert float(loss) == pytest.approx(1 - (0.75 + 0) / 2, abs=1e-6)


def test_a_loss_that_turns_nan_stops_with_a_reason(dataset: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"epoch \d+: the training loss is (nan|inf); lower lr"):
        fit(dataset, optimizer="sgd", lr=1e30)


def test_bfloat16_trains_and_gives_a_float32_network(dataset: Dataset) -> None:
    fitted = fit(dataset, epochs=1, precision="bfloat16")
    assert fitted.model is not None
    assert {layer.compute_dtype for layer in fitted.model.layers} == {"float32"}


def test_what_a_hook_raises_ends_the_training(dataset: Dataset) -> None:
    class PrunedError(Exception):
        pass

    def prune(epoch: int, logs: dict[str, float]) -> None:
        if epoch == 2:
            raise PrunedError

    with pytest.raises(PrunedError):
        fit(dataset, on_epoch=[prune])


def test_the_order_of_faces_is_new_each_epoch_and_depends_on_the_seed_alone(
    dataset: Dataset,
) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainBatches(dataset, TrainSettings(seed=seed))
        batches.start_epoch(epoch)
        return batches.order.tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert sorted(order(0, 0)) == list(range(len(order(0, 0))))


def test_averaged_weights_validate_and_are_kept(dataset: Dataset, plain: TrainResult) -> None:
    fitted = fit(dataset, **WHOLE, ema=0.3)
    assert accuracy(fitted, dataset) == pytest.approx(fitted.best_val_accuracy)
    assert fitted.history[0]["train/loss"] == plain.history[0]["train/loss"]
    assert fitted.history[0]["val/loss"] != plain.history[0]["val/loss"]


def test_recalibrated_statistics_validate_and_are_kept(dataset: Dataset, last: TrainResult) -> None:
    fitted = fit(dataset, **WHOLE, keep_epoch="last", recalibrate_bn=True)
    models = [result.model for result in (fitted, last) if result.model]
    assert equal(*(files.get_state(model.trainable_weights) for model in models))
    assert not equal(*(files.get_state(model.non_trainable_weights) for model in models))
    for epoch, without in zip(fitted.history, last.history, strict=True):
        assert epoch["train/loss"] == without["train/loss"]
        assert epoch["val/loss"] != without["val/loss"]
    assert accuracy(fitted, dataset) == pytest.approx(fitted.best_val_accuracy)


@pytest.mark.parametrize(
    ("steps", "momentum"), [(2, 0.9), (19, 0.9), (40, 0.95), (200, 0.99), (454, 0.99)]
)
def test_moving_statistics_are_those_of_half_an_epoch(steps: int, momentum: float) -> None:
    model = build(TrainSettings(width=0.05), precision="float32", to_train=True)
    set_momentum(model, steps)
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert [x.momentum for x in layers] == pytest.approx([momentum] * 7)


def test_a_training_on_few_faces_is_validated_by_statistics_of_its_present_weights(
    dataset: Dataset,
) -> None:
    """32 steps in all: Keras' momentum of 0.99 would leave the statistics near where they began."""
    options = {"width": 0.1, "epochs": 8, "lr": 1e-4, "keep_epoch": "last", "patience": 0}
    model = fit(dataset, **options).model
    assert model is not None
    trained = files.get_state(model.non_trainable_weights)
    Recalibration(model, "none")(dataset.part(TRAIN)[0])
    measured = files.get_state(model.non_trainable_weights)
    assert trained[0] == pytest.approx(measured[0], rel=0.1, abs=0.03)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0, 1, 1, 1]), ("cosine", [0, 1, 0.5, 0]), ("one_cycle", [0, 1, 0.5, 0])],
)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(
    schedule: Any, rates: list[float]
) -> None:
    settings = replace(TrainSettings(), lr=1.0, schedule=schedule, warmup=0.2)
    reached = [float(learning_rate_at(settings, x)) for x in (0.0, 0.2, 0.6, 1.0)]
    assert reached == pytest.approx(rates, abs=1e-6)


def test_the_schedule_ends_with_the_last_epoch(dataset: Dataset) -> None:
    fitted = fit(dataset, epochs=4, patience=0, schedule="cosine", warmup=0.1)
    rates = [logs["learning_rate"] for logs in fitted.history]
    assert rates[0] > rates[1] > rates[2] > rates[3] == pytest.approx(0, abs=1e-9)
