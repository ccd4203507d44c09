"""Page of a study: one self-contained HTML file, readable without JavaScript and from no network.

`study.html.j2` has its text, style and script; the charts are SVG from `panels`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import optuna
from optuna.study import StudyDirection

from search.pages import charts, importance, panels, timeline
from search.pages.rows import STATES, Aim, Parameter, Row, parameters, read

MOST_AXES = 10
"""Parameters in the chart of combinations: more don't fit side by side, nor can be read."""
MANY = 60
"""Trials from which on marks are small and lines thin."""


@dataclass(frozen=True)
class PageInfo:
    """What the page says that is not in the study itself."""

    title: str
    wanted: int
    """Trials that the study is to have."""
    command: Callable[[int], str]
    """The command that trains the settings of the trial with this number."""
    finished: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    """What stands below the title, such as dataset and network, by its name."""
    objective: str = "validation accuracy"
    """Name of the value; the study's direction says whether more or less of it is better."""
    is_share: bool = True
    """Whether the value lies in [0, 1] and is written in percent."""
    rungs: Sequence[int] = ()
    """Epochs at which the pruner compares trials."""
    costs: Mapping[int, float] | None = None
    """Cost of a trial by its number, for the chart of value against cost."""
    cost_name: str = "cost"
    n_done: int | None = None
    """Trials that have ended for good; where it is not given, those that have ended."""


def render(study: optuna.Study, about: PageInfo) -> str:
    """The page as HTML, in some 0.3 s for 200 trials."""
    now = datetime.now()
    aim = Aim(about.objective, about.is_share, study.direction == StudyDirection.MAXIMIZE)
    rows = read(study.get_trials(deepcopy=False), aim, now)
    begun = [row for row in rows if row.state != "waiting"]
    best = panels.best_of(rows, aim)
    varying, constant = parameters(study, rows)
    found = importance.estimate(study)
    shares = {name: s for name, s in found.shares.items() if name not in constant}
    varying = sorted(varying, key=lambda one: -shares.get(one.name, 0.0))
    points = panels.front_of(rows, about.costs, aim) if about.costs else []
    ended = sum(row.state not in ("running", "waiting") for row in rows)
    settled = ended if about.n_done is None else about.n_done
    return _template().render(
        about=about,
        aim=aim,
        now=now,
        settled=settled,
        counts=_counts(rows),
        left=_time_left(rows, about, settled),
        best=best,
        best_command=about.command(best.number) if best else "",
        history=panels.history(begun, best, aim),
        curves=panels.curves(begun, best, aim, about.rungs),
        bars=panels.bars(shares),
        explained=found.trials,
        slices=panels.slices(begun, best, aim, varying),
        parallel=panels.parallel(begun, best, aim, varying[:MOST_AXES][::-1]),
        axes=MOST_AXES,
        is_large=len(begun) > MANY,
        front=panels.front(begun, points, about.costs, about.cost_name, aim) if about.costs else "",
        points=[
            (row, (about.costs or {})[row.number], about.command(row.number)) for row in points
        ],
        timeline=timeline.timeline(begun),
        constant=constant,
        header=[one.name for one in varying],
        table=[_cells(row, varying) for row in rows],
        states=STATES,
        number=charts.number,
        duration=duration,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("study.html.j2")


def _counts(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """State, its word, and how many trials have it, of the states that occur."""
    states = Counter(row.state for row in rows)
    return [(state, word, states[state]) for state, word in STATES.items() if states[state]]


def _time_left(rows: Sequence[Row], about: PageInfo, settled: int) -> str:
    """Time until the trials have ended, in words, at the pace of those that have; or nothing."""
    if about.finished or not settled:
        return ""
    pace = timeline.seconds_of_training(rows) / settled
    return duration(pace * max(about.wanted - settled, 0))


def duration(seconds: float | None) -> str:
    """Seconds as `43 s`, `12 min` or `3 h 05 min`."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _cells(row: Row, varying: Sequence[Parameter]) -> tuple[Row, list[str]]:
    """A row and the text of each parameter that varies; empty where the trial has none."""
    return row, [_text(row.params, one.name) for one in varying]


def _text(params: Mapping[str, Any], name: str) -> str:
    return charts.plain(params[name]) if name in params else ""
