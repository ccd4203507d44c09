"""Calibration of probabilities: reliability, expected calibration error, log-loss, temperature."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

BINS = 15
"""Bins of equal width, as in Guo et al. 2017, "On calibration of modern neural networks"."""
LEAST = 1e-7
"""Smallest probability in a logarithm, as in Keras."""


@dataclass(frozen=True)
class Reliability:
    """Faces by confidence, the highest of the probabilities, in bins (BINS,).

    `confidence` and `accuracy` are means, nan in an empty bin. `error` is the expected calibration
    error: the mean distance of the two, weighted by the number of faces.
    """

    centres: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float


def reliability(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Reliability:
    """Reliability of probabilities (N, classes) against labels (N,)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sizes = np.where(counts, counts, np.nan)
    mean = np.bincount(bins, confidence, BINS) / sizes
    accuracy = np.bincount(bins, correct, BINS) / sizes
    error = float(np.nansum(np.abs(mean - accuracy) * counts) / len(labels))
    return Reliability((np.arange(BINS) + 0.5) / BINS, counts, mean, accuracy, error)


def log_loss(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> float:
    """Mean negative logarithm of the true class's probability (N, classes), natural."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, LEAST)).mean())


def with_temperature(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities (N, classes), their logarithms divided by `temperature`, scaled to sum 1."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), LEAST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def fit_temperature(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> float:
    """The temperature from 0.05 to 20 with the least log-loss (Guo et al. 2017)."""
    found = minimize_scalar(
        lambda log: log_loss(labels, with_temperature(probabilities, float(np.exp(log)))),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(found.x))
