"""A Gaussian process over (setting, epoch), which learns from trainings that were cut short too."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

KERNEL = {
    "epochs": 0.5,  # variance of the curve that all settings share
    "setting": 0.5,  # of what a setting adds to it, over all epochs
    "setting_epochs": 0.3,  # of what a setting adds, changing with the epoch
    "trial": 0.1,  # of what one training adds, by chance, over all epochs
    "trial_epochs": 0.1,  # of what one training adds, changing with the epoch
    "noise": 0.02,  # of a single epoch
    "epoch_scale": 0.5,  # length scale of the changes, as a share of the longest training
}
"""Terms of the covariance, of values of variance 1, with the medians of their priors."""
SPREADS = np.array([1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.0])
"""Standard deviations of the priors, of the logarithms."""
LIMITS = [(-7.0, 3.0)] * 5 + [(-7.0, 0.0), (-2.0, 2.0)]
"""Bounds of the logarithms."""
LENGTH = 0.4
"""Median of a setting's length scales, in one dimension: as a share of a parameter's range."""
LENGTH_SPREAD = 0.7
LENGTH_LIMITS = (-3.0, 4.0)
JITTER = 1e-6
"""Added to the noise, so that the covariance stays positive definite."""


@dataclass(frozen=True)
class Observations:
    """Points of n learning curves: m values, each of a trial at a share of the longest training."""

    settings: Array
    """Coordinates of the trials' settings, (n, columns)."""
    trial: NDArray[np.int_]
    """Which trial each point belongs to, ascending, (m,). Every trial has a point."""
    share: Array
    """Epoch of each point over the epochs of the longest training, in (0, 1], (m,)."""
    value: Array
    """The value at each point; higher is better, mean 0 and variance about 1, (m,)."""

    @cached_property
    def gaps(self) -> Array:
        """How far apart two points are in epochs, as a share of the longest training, (m, m)."""
        return np.abs(self.share[:, None] - self.share)

    @cached_property
    def same(self) -> Array:
        """1 where two points are of one trial, else 0, (m, m)."""
        return (self.trial[:, None] == self.trial).astype(float)

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int_], ...]:
        """Index that spreads a matrix of trials over their points."""
        return np.ix_(self.trial, self.trial)


class CurveGP:
    """A Gaussian process whose inputs are a setting and an epoch.

    Its covariance is the sum of a curve that all settings share, a Matérn 5/2 kernel over settings
    (constant over epochs, and changing with them), the same two for the chance of one training,
    and noise; changes over epochs are exponential. It is that of freeze-thaw Bayesian optimization
    (Swersky, Snoek & Adams 2014) in spirit: a training that was cut short tells about settings near
    its own as far as it went. Parameters of the covariance are fitted by their posterior mode.
    """

    def __init__(self, groups: NDArray[np.int_]) -> None:
        """`groups` says which parameter each coordinate belongs to: these share a length scale."""
        self.groups = groups
        d = int(groups.max()) + 1
        length = np.log(LENGTH) + 0.25 * np.log(d)  # longer where there are many parameters
        self._prior = np.concatenate([np.log(list(KERNEL.values())), np.full(d, length)])
        self._spread = np.concatenate([SPREADS, np.full(d, LENGTH_SPREAD)])
        self._limits = LIMITS + [LENGTH_LIMITS] * d
        self.theta = self._prior
        """Logarithms of the kernel's parameters, then of the length scales."""

    def fit(self, seen: Observations, iterations: int) -> None:
        """Fit the covariance in so many steps of L-BFGS, and condition on the observations."""
        self._squares = np.stack(
            [
                cdist(columns, columns, "sqeuclidean")
                for group in range(len(self._prior) - len(KERNEL))
                for columns in [seen.settings[:, self.groups == group]]
            ],
            axis=-1,
        )
        self._starts = np.flatnonzero(np.diff(seen.trial, prepend=-1))
        found = minimize(
            self._loss,
            self.theta,
            args=(seen,),
            jac=True,
            method="L-BFGS-B",
            bounds=self._limits,
            options={"maxiter": iterations},
        )
        self.theta = found.x
        self.condition(seen)

    def condition(self, seen: Observations) -> None:
        """Take `seen` as what is known, with the covariance as it is."""
        self.seen = seen
        self._factor = cholesky(self._terms(self.theta, seen, self._radii(seen.settings))[0], True)
        self._weights = cho_solve((self._factor, True), seen.value)

    def predict(self, settings: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of a whole training with each of the settings, (k,) each.

        Noise, and the chance of one training, are not in it.
        """
        epochs, setting, setting_epochs = np.exp(self.theta[:3])
        share = np.exp(-(1 - self.seen.share) / np.exp(self.theta[6]))
        near = matern(self._radii(settings))[:, self.seen.trial]
        known = epochs * share + near * (setting + setting_epochs * share)
        mean = known @ self._weights
        gained = solve_triangular(self._factor, known.T, lower=True)
        variance = epochs + setting + setting_epochs - (gained**2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-6))

    def _radii(self, settings: Array) -> Array:
        """Distances of settings from those seen, in length scales, (k, n)."""
        lengths = np.exp(self.theta[len(KERNEL) :])[self.groups]
        return cdist(settings / lengths, self.seen.settings / lengths)

    def _terms(self, theta: Array, seen: Observations, radii: Array) -> tuple[Array, ...]:
        """The covariance of all points, and the parts that its derivatives need, each (m, m)."""
        epochs, setting, setting_epochs, trial, trial_epochs, noise, scale = np.exp(theta[:7])
        together = np.exp(-seen.gaps / scale)
        near = matern(radii)[seen.pairs]
        covariance = epochs * together
        covariance += near * (setting + setting_epochs * together)
        covariance += seen.same * (trial + trial_epochs * together)
        covariance[np.diag_indices_from(covariance)] += noise + JITTER
        return covariance, near, together

    def _loss(self, theta: Array, seen: Observations) -> tuple[float, Array]:
        """Minus the logarithm of the posterior density of `theta`, and its gradient."""
        n = len(KERNEL)
        lengths = np.exp(theta[n:])
        radii = np.sqrt(self._squares @ lengths**-2)
        covariance, near, together = self._terms(theta, seen, radii)
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except LinAlgError:
            return 1e6, np.zeros_like(theta)
        inverse = cho_solve((factor, True), np.eye(len(factor)), check_finite=False)
        weights = inverse @ seen.value
        loss = 0.5 * seen.value @ weights + np.log(np.diag(factor)).sum()
        outer = 0.5 * (inverse - np.outer(weights, weights))
        epochs, setting, setting_epochs, trial, trial_epochs, noise, scale = np.exp(theta[:n])
        changing = epochs + near * setting_epochs + seen.same * trial_epochs
        outer_together = outer * together
        gradient = np.empty_like(theta)
        gradient[:n] = [
            outer_together.sum() * epochs,
            np.vdot(outer, near) * setting,
            np.vdot(outer_together, near) * setting_epochs,
            np.vdot(outer, seen.same) * trial,
            np.vdot(outer_together, seen.same) * trial_epochs,
            np.trace(outer) * noise,
            np.vdot(outer_together * changing, seen.gaps) / scale,
        ]
        by_point = setting * outer + setting_epochs * outer_together
        by_trial = np.add.reduceat(np.add.reduceat(by_point, self._starts, 0), self._starts, 1)
        slope = by_trial * _slope(radii)
        gradient[n:] = np.tensordot(slope, self._squares, 2) * lengths**-2
        off = (theta - self._prior) / self._spread
        return float(loss + 0.5 * off @ off), gradient + off / self._spread


def matern(radii: Array) -> Array:
    """Matérn 5/2 kernel of distances in length scales."""
    scaled = np.sqrt(5) * radii
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


def _slope(radii: Array) -> Array:
    """Minus the derivative of `matern` by the distance, over the distance."""
    scaled = np.sqrt(5) * radii
    return 5 / 3 * (1 + scaled) * np.exp(-scaled)
