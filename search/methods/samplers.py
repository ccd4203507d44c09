"""Samplers, which propose settings, and pruners, which end trials early."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import optuna
from numpy.random import SeedSequence
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from pipeline import registry
from search.methods import PRUNERS, SAMPLERS

REDUCTION = 2
"""Reduction factor of successive halving: the better half of the trials at a rung continues."""
RANDOM_TRIALS = 10
"""Random trials before TPE uses its model (Optuna's default)."""


def sampler_seed(base: int, trials: int) -> int:
    """Seed of the sampler after `trials` trials, different for each trial of a study.

    With one fixed seed every new process would propose the first trials again.
    """
    return int(SeedSequence([base, trials]).generate_state(1)[0])


def make_sampler(name: str, seed: int, start: Mapping[str, Any]) -> BaseSampler:
    """Sampler `name` for one trial; `start` is the recipe's point."""
    sampler: BaseSampler = registry.load(name, SAMPLERS, "sampler")(seed, start)
    return sampler


def tpe(seed: int, start: Mapping[str, Any]) -> BaseSampler:
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


def random(seed: int, start: Mapping[str, Any]) -> BaseSampler:
    """Random search: independent uniform draws."""
    return RandomSampler(seed=seed)


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
        best.intermediate_values = {trial.last_step: max(trial.intermediate_values.values())}
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
    """Turn off Optuna's log messages; the study prints a line a trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
