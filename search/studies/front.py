"""Front of a study with two objectives: its value, and a cost that is known before training."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

COST = "cost"
"""Attribute of a trial: parameters, or multiply-adds a face, of its network."""
WITHOUT_COST = 0.3
"""Share of the proposals that are for the value alone."""


def pareto(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials that are better than every one that costs no more, cheapest first."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    known = [t for t in finished if COST in t.user_attrs and t.value is not None]
    found: list[FrozenTrial] = []
    for trial in sorted(known, key=lambda t: (t.user_attrs[COST], -_gain(study, t), t.number)):
        if not found or _gain(study, trial) > _gain(study, found[-1]):
            found.append(trial)
    return found


def spread(front: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """At most `count` points of a front: the best, the cheapest, and others evenly by log cost."""
    if len(front) <= count:
        return list(reversed(front))
    logs = np.log([trial.user_attrs[COST] for trial in front])
    wanted = np.linspace(logs[-1], logs[0], count)
    rows = dict.fromkeys(int(np.abs(logs - value).argmin()) for value in wanted)
    return [front[row] for row in rows]


def scalarised(study: optuna.Study, seed: int) -> optuna.Study:
    """A copy of `study` whose values are lowered by a random weight times the log of the cost.

    A sampler that proposes for such copies searches the whole front (ParEGO, Knowles 2006). All
    values of a trial's curve are lowered alike, so curves can still be compared.
    """
    rng = np.random.default_rng(seed)
    weight = 0.0 if rng.random() < WITHOUT_COST else rng.random()
    trials = [t for t in study.get_trials() if t.state != TrialState.WAITING]
    costs = [math.log(t.user_attrs[COST]) for t in trials if COST in t.user_attrs]
    low, high = min(costs, default=0.0), max(costs, default=0.0)
    values = [t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    size = (max(values) - min(values)) if len(values) > 1 else 0.0
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    copy = optuna.create_study(direction=study.direction)
    for trial in trials:
        share = 0.0
        if COST in trial.user_attrs and high > low:
            share = (math.log(trial.user_attrs[COST]) - low) / (high - low)
        lowered = sign * weight * size * share
        trial.intermediate_values = {k: v - lowered for k, v in trial.intermediate_values.items()}
        if trial.value is not None:
            trial.value -= lowered
        copy.add_trial(trial)
    return copy


class AmongCheaper(BasePruner):
    """A pruner that compares a trial only with those that cost no more.

    What it ends is worse than a trial that is no more expensive, so it is not on the front.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        view: Any = _Cheaper(study, trial.user_attrs.get(COST, math.inf))
        return self.pruner.prune(view, trial)


class _Cheaper:
    """A study as a pruner sees it, without the trials that cost more than `cost`."""

    def __init__(self, study: optuna.Study, cost: float) -> None:
        self._study = study
        self._cost = cost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        trials = self._study.get_trials(*arguments, **options)
        return [t for t in trials if t.user_attrs.get(COST, math.inf) <= self._cost]


def _gain(study: optuna.Study, trial: FrozenTrial) -> float:
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    return sign * (trial.value or 0.0)
