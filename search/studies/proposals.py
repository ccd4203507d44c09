"""Proposals of a study: the first points, then the sampler's, none beyond the limits of size."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.errors import InputError
from pipeline.settings import NetworkSettings
from search.jobs import MEASURE, job
from search.methods.curve_sampler import recorded_space
from search.methods.samplers import make_sampler, sampler_seed
from search.methods.space import Point
from search.studies import front
from search.studies.plan import Plan

MOST_DRAWS = 200
"""Proposals that may be out of reach before the study gives up."""


def enqueue(study: optuna.Study, plan: Plan, trials: Sequence[FrozenTrial]) -> None:
    """Make the next ask of `study` a first point that was not tried, or set its sampler.

    A sampler does not know limits of size, nor choices that the space has lost: then its proposal
    is enqueued. One at a time: Optuna takes waiting trials in their order, and a repeat must not
    wait behind points for which the study may have no trials left.
    """
    settings = plan.settings
    tried = [trial.system_attrs.get("fixed_params") for trial in trials]
    first = plan.first_points()
    for point in first:
        if point not in tried and fits(point, plan):
            study.enqueue_trial(point)
            return
    seed = sampler_seed(settings.seed, len(trials))
    start = first[0] if first else {}
    study.sampler = _sampler(plan, seed, start)
    is_limited = settings.cost != "none" or settings.max_parameters or settings.max_multiply_adds
    if is_limited or recorded_space(trials, plan.space.bounds) != plan.space.bounds:
        study.add_trial(_fitting(study, plan, start, seed))


def _sampler(plan: Plan, seed: int, start: Point) -> BaseSampler:
    settings = plan.settings
    sampler = make_sampler(settings.sampler, seed, start, plan.space, settings.epochs)
    if plan.earlier is not None:
        if not hasattr(sampler, "learn_from"):
            raise InputError(
                f"warm_start={settings.warm_start}: the sampler {settings.sampler} can't use an "
                "earlier study; give sampler=curves"
            )
        sampler.learn_from(plan.earlier.get_trials(deepcopy=False), plan.earlier.direction)
    return sampler


def _fitting(study: optuna.Study, plan: Plan, start: Point, seed: int) -> FrozenTrial:
    """A waiting trial within the limits, drawn on a copy of the study, so that others cost none."""
    settings = plan.settings
    if settings.cost != "none":
        copy = front.scalarised(study, seed)
    else:
        copy = optuna.create_study(direction=study.direction)
        copy.add_trials([t for t in study.get_trials() if t.state != TrialState.WAITING])
    for draw in range(MOST_DRAWS):
        copy.sampler = _sampler(plan, sampler_seed(seed, draw), start)
        asked = copy.ask()
        point = plan.space.suggest(asked)
        if plan.space.contains(point) and fits(point, plan):
            # A sampler reads from these attributes how far it has come.
            own = copy.get_trials(deepcopy=False)[asked.number].system_attrs
            return create_trial(
                state=TrialState.WAITING, system_attrs=own | {"fixed_params": point}
            )
        copy.tell(asked, state=TrialState.FAIL)
    raise InputError(
        f"max_parameters={settings.max_parameters} max_multiply_adds={settings.max_multiply_adds}: "
        f"none of {MOST_DRAWS} proposals is in the space and that small; raise them, or vary width "
        "to smaller values"
    )


def fits(point: Point, plan: Plan) -> bool:
    """Whether the network of `point` is within `max_parameters` and `max_multiply_adds`."""
    settings = plan.settings
    most = {"parameters": settings.max_parameters, "multiply_adds": settings.max_multiply_adds}
    return all(cost(point, plan)[name] <= limit for name, limit in most.items() if limit)


_costs: dict[tuple[Any, ...], dict[str, int]] = {}


def cost(point: Point, plan: Plan) -> dict[str, int]:
    """Parameters, and multiply-adds a face, of the network that `point` trains; built once each."""
    training = plan.training(point)
    key = plan.classes, *(getattr(training, name) for name in NetworkSettings.fields())
    if key not in _costs:
        name = "measuring a network's size"
        _costs[key] = job.run_single(MEASURE, training, plan.classes, name=name)
    return _costs[key]
