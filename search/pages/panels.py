"""Charts on the page of a study: each takes its rows and returns SVG, or an empty string."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from search.pages import charts
from search.pages.charts import Scale
from search.pages.rows import Aim, Parameter, Row

DRAWN = ("fail", "pruned", "complete", "running")
"""States in the order in which they are drawn, the last on top."""
Place = Callable[[Row], tuple[float, float] | None]


def best_of(rows: Sequence[Row], aim: Aim) -> Row | None:
    """The finished trial with the best value, of equals the first."""
    finished = [row for row in rows if row.state == "complete" and row.value is not None]
    value = aim.best([row.value for row in finished if row.value is not None])
    return next((row for row in finished if row.value == value), None)


def _marks(rows: Sequence[Row], best: Row | None, place: Place) -> str:
    """Symbols of the rows that have a place, and a ring around the best."""
    found: dict[str, list[tuple[int, float, float]]] = {state: [] for state in DRAWN}
    ring = ""
    for row in rows:
        if row.state in found and (xy := place(row)):
            found[row.state].append((row.number, *xy))
            if row is best:
                ring = f"<use href=#ring x={charts.p(xy[0])} y={charts.p(xy[1])} class=ring />"
    return charts.marks(found) + ring


def history(rows: Sequence[Row], best: Row | None, aim: Aim) -> str:
    """Value by trial, and the best of the finished ones so far as a step line."""
    valued = [row for row in rows if row.value is not None and row.state != "fail"]
    if not valued:
        return ""
    x = Scale.of([row.number for row in rows if row.state != "waiting"], whole=True)
    y = aim.scale([row.value for row in valued if row.value is not None])
    so_far: list[Row] = []
    for row in (row for row in valued if row.state == "complete"):
        if not so_far or aim.is_better(row.value or 0.0, so_far[-1].value or 0.0):
            so_far.append(row)

    def place(row: Row) -> tuple[float, float] | None:
        if row.state == "fail":  # on the axis: its value, if it has one, compares with no other
            return x.at(row.number), 1.0
        return None if row.value is None else (x.at(row.number), 1 - y.at(row.value))

    parts = [charts.x_axis(x, "trial", grid=False), charts.y_axis(y)]
    points = [(x.at(row.number), 1 - y.at(row.value or 0.0)) for row in so_far]
    parts += [charts.lines([charts.steps(points, "best")]), _marks(rows, best, place)]
    if best and best.value is not None:
        at = x.at(best.number), 1 - y.at(best.value)
        parts.append(_name(best, aim, *at))
    return charts.plot(f"{aim.name} by trial", parts, height=260, bottom=38, top=18)


def _name(row: Row, aim: Aim, x: float, y: float) -> str:
    """The trial's number and value, above its mark."""
    return charts.label(f"trial {row.number}, {aim.text(row.value)}", x, y, dy=-11, style="strong")


def curves(rows: Sequence[Row], best: Row | None, aim: Aim, rungs: Sequence[int]) -> str:
    """Value by epoch of each trial, with the epochs at which the pruner compares them."""
    drawn = sorted(
        (row for row in rows if row.curve),
        key=lambda row: (row is best, DRAWN.index(row.state) if row.state in DRAWN else 0),
    )
    if not drawn:
        return ""
    x = Scale.of([epoch for row in drawn for epoch, _ in row.curve], whole=True)
    y = aim.scale([value for row in drawn for _, value in row.curve])
    parts = [charts.x_axis(x, "epoch", grid=False), charts.y_axis(y)]
    for epoch in (rung for rung in rungs if x.low < rung < x.high):
        at = charts.p(x.at(epoch))
        parts.append(f"<line class=rung x1={at} x2={at} y2=100% />")
    paths = []
    for row in drawn:
        points = [(x.at(epoch), 1 - y.at(value)) for epoch, value in row.curve]
        paths.append(charts.line(row.number, points, "best" if row is best else row.state))
    parts.append(charts.lines(paths))

    def ends(row: Row) -> tuple[float, float] | None:
        return (x.at(row.curve[-1][0]), 1 - y.at(row.curve[-1][1])) if row.curve else None

    parts.append(_marks(drawn, None, ends))
    if best and best.curve:
        epoch, value = max(best.curve, key=lambda point: point[1] if aim.maximise else -point[1])
        parts.append(_name(best, aim, x.at(epoch), 1 - y.at(value)))
    return charts.plot(f"{aim.name} by epoch", parts, height=260, bottom=38, top=18)


@dataclass(frozen=True)
class Slice:
    """A chart of the values along one parameter."""

    name: str
    chart: Markup


def slices(
    rows: Sequence[Row], best: Row | None, aim: Aim, varying: Sequence[Parameter]
) -> list[Slice]:
    """Value by each parameter, of the trials that did not fail."""
    shown = [row for row in rows if row.value is not None and row.state != "fail"]
    if not shown:
        return []
    value = aim.scale([row.value for row in shown if row.value is not None])
    kinds = {True: _numeric_slice, False: _slice_in_rows}
    return [Slice(one.name, kinds[one.is_numeric](shown, best, aim, one, value)) for one in varying]


def _numeric_slice(
    rows: Sequence[Row], best: Row | None, aim: Aim, one: Parameter, y: Scale
) -> Markup:
    def place(row: Row) -> tuple[float, float] | None:
        if one.name not in row.params:
            return None
        return one.axis.at(row.params[one.name]), 1 - y.at(row.value or 0.0)

    parts = [
        charts.x_axis(one.axis, most=5, grid=False), charts.y_axis(y, 4), _marks(rows, best, place)
    ]  # fmt: skip
    return charts.plot(f"{aim.name} by {one.name}", parts, height=150)


def _slice_in_rows(
    rows: Sequence[Row], best: Row | None, aim: Aim, one: Parameter, x: Scale
) -> Markup:
    """A row for each category; trials are spread within it, since many have nearly one value."""
    names = one.axis.ticks()

    def place(row: Row) -> tuple[float, float] | None:
        if one.name not in row.params:
            return None
        spread = ((row.number * 0.618) % 1 - 0.5) * 0.5 / len(names)
        return x.at(row.value or 0.0), one.axis.at(row.params[one.name]) + spread

    parts = [
        charts.x_axis(x, most=4), charts.y_axis(one.axis, upwards=False), _marks(rows, best, place)
    ]  # fmt: skip
    return charts.plot(
        f"{aim.name} by {one.name}", parts, height=max(150, 24 * len(names)),
        left=charts.room_for(text for _, text in names),
    )  # fmt: skip


def parallel(rows: Sequence[Row], best: Row | None, aim: Aim, varying: Sequence[Parameter]) -> str:
    """Each trial that did not fail as a line through its parameters to its value.

    A parameter that a trial does not have is passed below its axis. Darker lines are better ones.
    """
    shown = [row for row in rows if row.value is not None and row.state in ("complete", "pruned")]
    if len(shown) < 2 or not varying:
        return ""
    ordered = sorted(shown, key=lambda row: (row.value or 0.0) * (1 if aim.maximise else -1))
    value = aim.scale([row.value for row in shown if row.value is not None])
    absent = any(one.name not in row.params for one in varying for row in shown)
    foot = 0.86 if absent else 1.0

    def height(one: Parameter, row: Row) -> float:
        at = one.axis.at(row.params[one.name])
        return foot * (1 - at if one.is_numeric else at)

    across = [k / len(varying) for k in range(len(varying) + 1)]
    paths = []
    for rank, row in enumerate(ordered):
        heights = [height(one, row) if one.name in row.params else 1.0 for one in varying]
        points = list(zip(across, [*heights, foot * (1 - value.at(row.value or 0.0))], strict=True))
        level = min(5 * rank // len(ordered), 4)
        style = "best" if row is best else f"q{level}" + (" dash" if row.state == "pruned" else "")
        paths.append(charts.line(row.number, points, style))
    parts = [charts.lines(paths)]
    for at, one in zip(across, varying, strict=False):
        lacking = any(one.name not in row.params for row in shown)
        places = [(1 - y if one.is_numeric else y, text) for y, text in one.axis.ticks()]
        parts.append(_upright(at, one.name, places, foot, lacking))
    places = [(1 - y, text) for y, text in value.ticks()]
    parts.append(_upright(1.0, aim.name, places, foot, False))
    # Room for the names, of which neighbours must not touch.
    widest = max(len(one.name) for one in varying)
    apart = max(84, round(charts.CHARACTER * widest + 24))
    return charts.plot(
        f"parameters and {aim.name} of each trial", parts, height=300, top=34, left=40, right=60,
        bottom=14, least=100 + apart * len(varying),
    )  # fmt: skip


def _upright(at: float, name: str, ticks: Sequence[charts.Tick], foot: float, lacking: bool) -> str:
    """An upright axis, of length `foot`, with its name above and its values beside it."""
    x = charts.p(at)
    anchor = "end" if at == 1.0 else "start" if at == 0.0 else "middle"
    shift = {"end": 46, "start": -36, "middle": 0}[anchor]
    texts = [
        f'<text class="label axis" x={x} dx={shift} y=0 dy=-16 text-anchor={anchor}>'
        f"{charts.escape(name)}</text>"
    ]
    texts += [
        charts.label(text, at, foot * y, dx=6, dy=4, anchor="start", style="halo")
        for y, text in ticks
    ]
    if lacking:
        texts.append(charts.label("not set", at, 1.0, dx=6, dy=4, anchor="start", style="halo"))
    return f"<line class=axis x1={x} x2={x} y2={charts.p(foot)} />{''.join(texts)}"


def front_of(rows: Sequence[Row], costs: Mapping[int, float], aim: Aim) -> list[Row]:
    """Finished trials than which none that costs no more is better, by cost."""
    known = [
        row for row in rows
        if row.state == "complete" and row.value is not None
        and math.isfinite(costs.get(row.number, math.nan))
    ]  # fmt: skip
    front: list[Row] = []
    sign = -1 if aim.maximise else 1
    for row in sorted(known, key=lambda row: (costs[row.number], sign * (row.value or 0.0))):
        if not front or aim.is_better(row.value or 0.0, front[-1].value or 0.0):
            front.append(row)
    return front


def front(
    rows: Sequence[Row], points: Sequence[Row], costs: Mapping[int, float], name: str, aim: Aim
) -> str:
    """Value by cost, with the Pareto `points` joined and numbered."""
    shown = [
        row for row in rows
        if row.value is not None and row.state != "fail"
        and math.isfinite(costs.get(row.number, math.nan))
    ]  # fmt: skip
    if not shown:
        return ""
    amounts = [costs[row.number] for row in shown]
    x = Scale.of(amounts, log=min(amounts) > 0 and max(amounts) > 8 * min(amounts))
    y = aim.scale([row.value for row in shown if row.value is not None])

    def place(row: Row) -> tuple[float, float]:
        return x.at(costs[row.number]), 1 - y.at(row.value or 0.0)

    parts = [charts.x_axis(x, name, grid=False), charts.y_axis(y)]
    parts += [charts.lines([charts.steps([place(row) for row in points], "best")])]
    parts += [_marks(shown, None, place)]
    for row in points:
        at = place(row)
        parts.append(f"<use href=#ring x={charts.p(at[0])} y={charts.p(at[1])} class=ring />")
        parts.append(charts.label(str(row.number), *at, dy=-11, style="strong"))
    return charts.plot(f"{aim.name} by {name}", parts, height=260, bottom=38, top=18)


def bars(shares: Mapping[str, float]) -> list[tuple[str, float, str]]:
    """Name, share of the largest in percent, and text of each importance, the largest first."""
    most = max(shares.values(), default=1.0) or 1.0
    ranked: list[Any] = sorted(shares.items(), key=lambda item: -item[1])
    return [(name, 100 * share / most, charts.percent(share)) for name, share in ranked]
