"""Which settings a study tries next, and which trainings it ends early: plain constructors."""

from copy import copy

import optuna
from numpy.random import SeedSequence
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from pipeline.settings import PrunerName, SamplerName

REDUCTION = 2
"""Successive halving lets the better half of the trials at a rung go on (Li et al. 2018, ASHA)."""
RANDOM_TRIALS = 10
"""Trials before TPE trusts what it has seen (Optuna's default)."""


def sampler_seed(base: int, trials: int) -> int:
    """Seed for the proposal after `trials` trials: never the same twice in a study.

    Optuna's own seed would start again with every process and propose the first trials once more.
    """
    return int(SeedSequence([base, trials]).generate_state(1)[0])


def make_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """`tpe` models all parameters jointly, those that exist for one optimizer apart (`group`).

    It counts a running trial as a bad one (constant liar), so that workers don't all try the same.
    """
    if name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed,
        n_startup_trials=RANDOM_TRIALS,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def make_pruner(name: PrunerName, most_epochs: int, small_epochs: int = 0) -> BasePruner:
    """A pruner for trials of up to `most_epochs`, whose number of epochs is itself searched.

    The rungs of `halving` stand at epochs that don't depend on the trials: with a constant
    learning rate an epoch means the same in a short and a long training. No trial has more than
    `small_epochs` epochs of small faces.
    """
    marks = rungs(most_epochs, small_epochs)
    match name:
        case "halving":
            return BestSoFar(
                SuccessiveHalvingPruner(min_resource=marks[0], reduction_factor=REDUCTION)
            )
        case "median":
            return MedianPruner(n_startup_trials=RANDOM_TRIALS // 2, n_warmup_steps=marks[0])
        case "none":
            return NopPruner()


class BestSoFar(BasePruner):
    """`pruner`, shown the best epoch so far instead of the latest, which is a noisier witness.

    The best epoch is also what a trial is judged by when it has finished.
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
