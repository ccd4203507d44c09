"""Samplers, which propose the next setting, and pruners, which end a trial early."""

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
"""Successive halving lets the better half of the trials at a rung go on (Li et al. 2018, ASHA)."""
RANDOM_TRIALS = 10
"""Trials before TPE trusts what it has seen (Optuna's default)."""


def sampler_seed(base: int, trials: int) -> int:
    """Seed for the proposal after `trials` trials: never the same twice in a study.

    Optuna's own seed would start again with every process and propose the first trials once more.
    """
    return int(SeedSequence([base, trials]).generate_state(1)[0])


def make_sampler(name: str, seed: int, start: Mapping[str, Any]) -> BaseSampler:
    """The sampler of that name for one proposal; `start` is the recipe's point."""
    sampler: BaseSampler = registry.load(name, SAMPLERS, "sampler")(seed, start)
    return sampler


def tpe(seed: int, start: Mapping[str, Any]) -> BaseSampler:
    """A tree-structured Parzen estimator of all parameters jointly (Bergstra et al. 2011).

    Parameters that exist for one optimizer are modelled apart (`group`). A running trial counts as
    a bad one (constant liar), so that workers don't all try the same.
    """
    return TPESampler(
        seed=seed,
        n_startup_trials=RANDOM_TRIALS,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def random(seed: int, start: Mapping[str, Any]) -> BaseSampler:
    """Independent uniform draws."""
    return RandomSampler(seed=seed)


def make_pruner(name: str, epochs: int, small_epochs: int = 0) -> BasePruner:
    """The pruner of that name, for trials of up to `epochs`, a number that is itself searched.

    No trial has more than `small_epochs` epochs at a smaller image size.
    """
    pruner: BasePruner = registry.load(name, PRUNERS, "pruner")(epochs, small_epochs)
    return pruner


def halving(epochs: int, small_epochs: int) -> BasePruner:
    """Asynchronous successive halving at epochs that don't depend on the trials (`rungs`).

    With a constant learning rate an epoch means the same in a short and in a long training.
    """
    first = rungs(epochs, small_epochs)[0]
    return BestSoFar(SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION))


def median(epochs: int, small_epochs: int) -> BasePruner:
    """Optuna's median pruner, from the first rung of `halving` on."""
    first = rungs(epochs, small_epochs)[0]
    return MedianPruner(n_startup_trials=RANDOM_TRIALS // 2, n_warmup_steps=first)


def none(epochs: int, small_epochs: int) -> BasePruner:
    """No pruning."""
    return NopPruner()


class BestSoFar(BasePruner):
    """A pruner that compares trials by their best epoch so far, less noisy than the latest.

    The best epoch is also the value of a finished trial.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None:
            return False
        shown = copy(trial)
        shown.intermediate_values = {trial.last_step: max(trial.intermediate_values.values())}
        return self.pruner.prune(study, shown)


def rungs(most_epochs: int, small_epochs: int = 0) -> list[int]:
    """Epochs at which `halving` compares trials: a third and two thirds of the most.

    That is 25 and 50 of 75. The third is rounded up, so that no third rung ends a training that is
    nearly through. The first rung waits until every trial has seen faces of full size; the second
    stands at twice its epoch, if the longest training gets there.
    """
    first = min(max(-(-most_epochs // 3), small_epochs + 1), most_epochs)
    return [epoch for epoch in (first, first * REDUCTION) if epoch < most_epochs] or [first]


def silence_optuna() -> None:
    """Optuna's own lines an event; the study prints one a trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
