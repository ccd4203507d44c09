"""Samplers, which propose settings, and pruners, which end trials early."""

import warnings
from copy import copy

import optuna
from numpy.random import SeedSequence
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from pipeline import registry
from search.methods import PRUNERS, SAMPLERS
from search.methods.curve_sampler import CurveSampler
from search.methods.space import Point, Space

REDUCTION = 2
"""Reduction factor of successive halving: the better half of the trials at a rung continues."""
RANDOM_TRIALS = 10
"""Random trials before TPE uses its model (Optuna's default)."""


def sampler_seed(base: int, trials: int) -> int:
    """Seed of the sampler after `trials` trials, different for each trial of a study.

    With one fixed seed every new process would propose the first trials again.
    """
    return int(SeedSequence([base, trials]).generate_state(1)[0])


def make_sampler(name: str, seed: int, start: Point, space: Space, epochs: int) -> BaseSampler:
    """Sampler `name` for one proposal.

    `start` is the point that is tried first, `space` what the study varies, and `epochs` the most
    epochs of a trial.
    """
    make = registry.load(name, SAMPLERS, "sampler")
    sampler: BaseSampler = make(seed, start, space, epochs)
    return sampler


def curves(seed: int, start: Point, space: Space, epochs: int) -> BaseSampler:
    """Gaussian process over settings and epochs that starts from a known good setting."""
    bounds = {name: b for name, b in space.bounds.items() if name != "epochs"}  # `Space.suggest`
    return CurveSampler(
        bounds, conditions=space.when, start=start or None, most_epochs=epochs, seed=seed
    )


def tpe(seed: int, start: Point, space: Space, epochs: int) -> BaseSampler:
    """Multivariate tree-structured Parzen estimator (Bergstra et al. 2011).

    Parameters of a single optimizer are modelled separately (`group`). Running trials count as bad
    ones (constant liar), so that parallel workers do not propose the same.
    """
    return TPESampler(
        seed=seed,
        n_startup_trials=RANDOM_TRIALS,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def random(seed: int, start: Point, space: Space, epochs: int) -> BaseSampler:
    """Random search: independent uniform draws."""
    return RandomSampler(seed=seed)


def cmaes(seed: int, start: Point, space: Space, epochs: int) -> BaseSampler:
    """CMA-ES (Hansen 2016) from `start` over the numbers that always apply; others are random."""
    numbers = {
        name: value
        for name, value in start.items()
        if name not in space.when
        and isinstance(space.bounds.get(name), FloatDistribution | IntDistribution)
    }
    return CmaEsSampler(x0=numbers or None, seed=seed, warn_independent_sampling=False)


def make_pruner(name: str, epochs: int, small_epochs: int = 0) -> BasePruner:
    """Pruner `name`, for trials of up to `epochs` epochs.

    No trial has more than `small_epochs` epochs at a smaller image size.
    """
    pruner: BasePruner = registry.load(name, PRUNERS, "pruner")(epochs, small_epochs)
    return pruner


def halving(epochs: int, small_epochs: int) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2018, ASHA) at the epochs of `rungs`."""
    first = rungs(epochs, small_epochs)[0]
    return BestSoFar(SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION))


def median(epochs: int, small_epochs: int) -> BasePruner:
    """Optuna's median pruner, starting at the first rung of `halving`."""
    first = rungs(epochs, small_epochs)[0]
    return MedianPruner(n_startup_trials=RANDOM_TRIALS // 2, n_warmup_steps=first)


def none(epochs: int, small_epochs: int) -> BasePruner:
    """No pruning."""
    return NopPruner()


class BestSoFar(BasePruner):
    """Wraps a pruner so that trials are compared by their best epoch so far.

    It is less noisy than the latest epoch, and it is also the value of a finished trial.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None:
            return False
        best = copy(trial)
        better = max if study.direction == StudyDirection.MAXIMIZE else min
        best.intermediate_values = {trial.last_step: better(trial.intermediate_values.values())}
        return self.pruner.prune(study, best)


def rungs(max_epochs: int, small_epochs: int = 0) -> list[int]:
    """Epochs at which `halving` compares trials: a third and two thirds of `max_epochs`.

    For 75 epochs these are 25 and 50. The third is rounded up, so that there is no rung shortly
    before the end. The first rung is not before the first epoch at full image size, the second at
    twice the epoch of the first, if that is below `max_epochs`.
    """
    first = min(max(-(-max_epochs // 3), small_epochs + 1), max_epochs)
    return [epoch for epoch in (first, first * REDUCTION) if epoch < max_epochs] or [first]


def silence_optuna() -> None:
    """Turn off Optuna's log messages, for which the study prints a line a trial, and the warning
    that Optuna 6 will have no start for CMA-ES."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", message="`x0` has been deprecated")
