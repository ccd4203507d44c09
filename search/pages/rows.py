"""Trials of a study as its page shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.pages.charts import Axis, Categories, Scale, number, percent, plain

STATES = {
    "complete": "finished",
    "pruned": "pruned",
    "fail": "failed",
    "running": "running",
    "waiting": "waiting",
}
"""The words for the states of a trial, in the order in which they are listed."""


@dataclass(frozen=True)
class Aim:
    """What a study judges its trials by."""

    name: str
    is_share: bool
    """Whether it lies in [0, 1] and is written in percent."""
    maximise: bool

    def text(self, value: float | None) -> str:
        if value is None:
            return ""
        return percent(value) if self.is_share else number(value)

    def best(self, values: Sequence[float]) -> float | None:
        """The best of the finite values, or None."""
        finite = [value for value in values if math.isfinite(value)]
        return (max if self.maximise else min)(finite) if finite else None

    def is_better(self, value: float, other: float) -> bool:
        return value > other if self.maximise else value < other

    def scale(self, values: Sequence[float]) -> Scale:
        """An axis around `values`, but for the worst 2 %: one that diverged would flatten all."""
        finite = sorted(value for value in values if math.isfinite(value))
        spare = len(finite) // 50
        kept = finite[spare:] if self.maximise else finite[: len(finite) - spare]
        return Scale.of(kept, text=percent if self.is_share else None)


@dataclass(frozen=True)
class Row:
    """A trial: its value is the best of its epochs, or None without a finite one."""

    number: int
    state: str
    value: float | None
    curve: tuple[tuple[int, float], ...]
    """(epoch, value) of its finite epochs."""
    epochs: int
    params: dict[str, Any]
    error: str
    begin: datetime | None
    end: datetime | None
    worker: str

    @property
    def seconds(self) -> float | None:
        return (self.end - self.begin).total_seconds() if self.begin and self.end else None


def read(trials: Sequence[FrozenTrial], aim: Aim, now: datetime) -> list[Row]:
    """The trials by number; one that runs lasts until `now`."""
    return [_row(trial, aim, now) for trial in sorted(trials, key=lambda trial: trial.number)]


def _row(trial: FrozenTrial, aim: Aim, now: datetime) -> Row:
    curve = [(e, v) for e, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
    value = aim.best([value for _, value in curve])
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        value = trial.value if math.isfinite(trial.value) else value
    running = trial.state == TrialState.RUNNING
    return Row(
        number=trial.number,
        state=trial.state.name.lower(),
        value=value,
        curve=tuple(curve),
        epochs=len(trial.intermediate_values),
        params=trial.params or trial.system_attrs.get("fixed_params", {}),
        error=str(trial.user_attrs.get("error", "")) if trial.state == TrialState.FAIL else "",
        begin=trial.datetime_start,
        end=now if running else trial.datetime_complete,
        worker=_worker(trial),
    )


def _worker(trial: FrozenTrial) -> str:
    """host:number, as `Worker.take` writes them; empty if the trial does not say."""
    host = str(trial.user_attrs.get("process", "")).rsplit(":", 2)[0]
    return f"{host}:{trial.user_attrs.get('worker', 0)}" if host else ""


@dataclass(frozen=True)
class Parameter:
    """A parameter that varies: its axis, and how its values are written in a table."""

    name: str
    axis: Axis
    is_numeric: bool


def parameters(study: optuna.Study, rows: Sequence[Row]) -> tuple[list[Parameter], dict[str, str]]:
    """The parameters that vary, and the text of each that is the same wherever it is set."""
    begun = [row for row in rows if row.state != "waiting"]
    bounds: dict[str, list[Any]] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, distribution in trial.distributions.items():
            bounds.setdefault(name, []).append(distribution)
    varying, constant = [], {}
    for name in dict.fromkeys(name for row in begun for name in row.params):
        values = [row.params[name] for row in begun if name in row.params]
        if len({plain(value) for value in values}) == 1:
            constant[name] = plain(values[0])
        else:
            varying.append(_parameter(name, values, bounds.get(name, [])))
    return varying, constant


def _parameter(name: str, values: Sequence[Any], bounds: Sequence[Any]) -> Parameter:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numeric or any(isinstance(b, CategoricalDistribution) for b in bounds):
        texts = {plain(value): value for value in values}
        known = [
            plain(c) for b in bounds[-1:] for c in getattr(b, "choices", ()) if plain(c) in texts
        ]
        return Parameter(name, Categories(tuple(dict.fromkeys([*known, *texts]))), False)
    of_numbers = [b for b in bounds if isinstance(b, IntDistribution | FloatDistribution)]
    log = any(b.log for b in of_numbers)
    whole = all(isinstance(value, int) for value in values)
    return Parameter(name, Scale.of(values, log=log, whole=whole), True)
