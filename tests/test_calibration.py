"""Calibration: reliability, log-loss, and temperature scaling inside the saved network."""

from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from pipeline.networks import files
from pipeline.networks.build import build
from pipeline.networks.temperature import with_temperature
from pipeline.networks.tta import with_tta
from pipeline.reports import calibration
from pipeline.settings import TrainSettings
from tests.tiny import TINY

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (4000, 7))
HONEST = softmax(LOGITS, axis=1).astype(np.float32)
LABELS = np.array([RANDOM.choice(7, p=row / row.sum()) for row in HONEST.astype(float)], np.uint8)


def test_honest_probabilities_have_a_small_error_and_exaggerated_ones_a_large_one() -> None:
    exaggerated = softmax(3 * LOGITS, axis=1).astype(np.float32)
    assert calibration.reliability(LABELS, HONEST).error < 0.02
    found = calibration.reliability(LABELS, exaggerated)
    assert found.error > 0.15
    assert found.counts.sum() == len(LABELS)


def test_the_error_of_one_bin_is_the_distance_of_its_means() -> None:
    probabilities = np.full((4, 7), 0.05, np.float32)
    probabilities[:, 0] = 0.7
    found = calibration.reliability(np.array([0, 0, 0, 1], np.uint8), probabilities)
    assert found.error == pytest.approx(0.75 - 0.7)
    assert np.count_nonzero(found.counts) == 1


def test_the_log_loss_is_scikit_learns() -> None:
    expected = log_loss(LABELS, HONEST.astype(float), labels=range(7))
    assert calibration.log_loss(LABELS, HONEST) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_undoes_what_was_multiplied(factor: float) -> None:
    scaled = softmax(factor * LOGITS, axis=1).astype(np.float32)
    temperature = calibration.fit_temperature(LABELS, scaled)
    assert temperature == pytest.approx(factor, rel=0.05)
    exact = scaled.min(axis=1) > 1e-6  # smaller ones are cut off before the logarithm
    undone = calibration.with_temperature(scaled[exact], factor)
    assert np.allclose(undone, HONEST[exact], atol=1e-4)


def test_a_network_with_a_temperature_is_saved_loaded_and_started_from(tmp_path: Path) -> None:
    network = build(TrainSettings(network=TINY), precision="float32")
    plain = with_tta(network, "flip")
    images = np.random.default_rng(1).integers(0, 256, (5, 48, 48, 1), np.uint8)
    file = tmp_path / "calibrated.keras"
    with_temperature(plain, 2.5).save(file)
    loaded = files.load(file)
    expected = calibration.with_temperature(files.predict(plain, images), 2.5)
    assert np.allclose(files.predict(loaded, images), expected, atol=1e-5)
    keras.utils.set_random_seed(3)
    other = build(TrainSettings(network=TINY), precision="float32")
    files.copy_weights(other, loaded, "calibrated.keras")
    assert all(np.array_equal(a, b) for a, b in zip(other.weights, network.weights, strict=True))
