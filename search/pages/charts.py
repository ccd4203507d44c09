"""Parts of SVG charts that fit any width: scales, ticks, marks and lines.

A chart is one `<svg>` whose children are placed in percent of its sides, so that its text and its
marks keep their size in pixels from a telephone to a wide screen. Lines lie in a nested `<svg>`
that is stretched (`preserveAspectRatio="none"`) while its strokes keep their width. Every mark
carries its trial's number as `data-n`. All functions return markup; texts are escaped.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from markupsafe import Markup, escape

from pipeline.percent import percent as in_percent

STRETCH = 1000
"""Side of the nested, stretched picture in which lines are drawn."""
CHARACTER = 7.0
"""Rough width of a character of a chart's text, in pixels."""
Tick = tuple[float, str]
"""A place on an axis, in [0, 1], and its text."""


class Axis(Protocol):
    """A map of a parameter's or an objective's values to [0, 1]."""

    def at(self, value: Any) -> float: ...

    def ticks(self, most: int = 5) -> list[Tick]: ...


@dataclass(frozen=True)
class Scale:
    """A numeric axis from `low` to `high`; values beyond them are put at its end."""

    low: float
    high: float
    log: bool = False
    text: Callable[[float, float], str] | None = None
    """Writes a tick, given the value and the distance between ticks."""
    whole: bool = False

    @classmethod
    def of(
        cls, values: Iterable[float], margin: float = 0.04, *, log: bool = False,
        whole: bool = False, text: Callable[[float, float], str] | None = None,
    ) -> "Scale":  # fmt: skip
        """A scale around the finite `values`, with a share of their range left free at each end."""
        finite = [float(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        log = log and low > 0
        if log:
            low, high = math.log10(low), math.log10(high)
        room = margin * (high - low) or (0.1 if log else 0.05 * abs(high) or 0.5)
        low, high = low - room, high + room
        return cls(10**low, 10**high, True, text) if log else cls(low, high, False, text, whole)

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 5) -> list[Tick]:
        found = self._decades(most) if self.log else None
        if found is None:
            step = _step(self.high - self.low, most)
            if self.whole:
                step = max(1.0, step)
            first = math.ceil(self.low / step - 1e-9)
            found = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        else:
            step = 0.0
        write = self.text or (lambda value, _: number(value))
        return [(self.at(value), write(value, step)) for value in found]

    def _decades(self, most: int) -> list[float] | None:
        """Powers of ten, with 2 and 5 between if there is room; None where there are too few."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            marks = [f * 10.0**p for p in powers for f in factors]
            found = [mark for mark in marks if self.low <= mark <= self.high]
            if len(found) <= most:
                return found if len(found) > 1 else None
        return found[:: -(-len(found) // most)]


@dataclass(frozen=True)
class Categories:
    """An axis of names, the first at 0."""

    names: tuple[str, ...]

    def at(self, value: Any) -> float:
        return (self.names.index(plain(value)) + 0.5) / len(self.names)

    def ticks(self, most: int = 5) -> list[Tick]:
        return [(self.at(name), name) for name in self.names]


def _step(span: float, most: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides `span` into `most` at most."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(f * power for f in (1, 2, 5, 10) if span / (f * power) <= most)


def number(value: float) -> str:
    """A number with the digits that tell: 0.00123, 1e-5, 64, 12,345, 1.23 M (million)."""
    if abs(value) >= 1e6:
        for size, word in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if size <= abs(value) < 1000 * size:
                return f"{value / size:.3g}\N{NO-BREAK SPACE}{word}"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def plain(value: Any) -> str:
    """A parameter's value as text; an empty one for None's place in a table is the caller's."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return number(value) if isinstance(value, int | float) else str(value)


def percent(share: float, step: float = 0.001) -> str:
    """A share as `45.9 %`; with fewer decimals where `step`, between ticks, needs none."""
    text = in_percent(share, 0 if step >= 0.0099 else 1)
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def plot(
    label: str, parts: Iterable[str], *, height: int = 240, left: int = 48, bottom: int = 26,
    top: int = 12, right: int = 14, least: int = 0,
) -> Markup:  # fmt: skip
    """A chart: `parts` inside margins in pixels; below `least` pixels of width it is scrolled."""
    style = f"height:{height}px;--l:{left}px;--r:{right}px;margin:{top}px 0 {bottom}px {left}px"
    chart = (
        f'<svg class="plot" role="img" aria-label="{escape(label)}" style="{style}">'
        f"{''.join(parts)}</svg>"
    )
    if not least:
        return Markup(chart)
    inner = f'<div style="min-width:{least}px">{chart}</div>'
    return Markup(f'<div class="scroll" tabindex="0" role="region">{inner}</div>')


def x_axis(axis: Axis, title: str = "", most: int = 6, grid: bool = True) -> str:
    """Vertical lines with their values below; the title stands under the right end."""
    found = axis.ticks(most)
    lines = "".join(f"<line x1={p(x)} x2={p(x)} y2=100% />" for x, _ in found) if grid else ""
    texts = "".join(
        f"<text x={p(x)} y=100% dy=16 text-anchor=middle>{escape(text)}</text>" for x, text in found
    )
    if title:
        texts += f"<text class=title x=100% y=100% dy=33 text-anchor=end>{escape(title)}</text>"
    return f"<g class=grid>{lines}<line class=base x2=100% y1=100% y2=100% />{texts}</g>"


def y_axis(axis: Axis, most: int = 5, *, upwards: bool = True, longest: int = 16) -> str:
    """Horizontal lines with their values at the left; `upwards` is False for rows from the top."""
    parts = []
    for y, text in axis.ticks(most):
        place = p(1 - y if upwards else y)
        shown = text if len(text) <= longest else f"{text[: longest - 1]}…"
        title = f"<title>{escape(text)}</title>" if shown != text else ""
        parts.append(
            f"<line x2=100% y1={place} y2={place} />"
            f"<text dx=-8 y={place} dy=.34em text-anchor=end>{title}{escape(shown)}</text>"
        )
    return f"<g class=grid>{''.join(parts)}</g>"


def room_for(texts: Iterable[str], longest: int = 16) -> int:
    """Pixels at the left that `texts` on an axis need."""
    return round(14 + CHARACTER * max((min(len(text), longest) for text in texts), default=3))


def marks(points: Mapping[str, Sequence[tuple[int, float, float]]]) -> str:
    """Symbols by state: (trial, x, y), both in [0, 1], y downwards.

    A symbol's id is the first letter of its state; a page has thousands of them.
    """
    groups = []
    for state, places in points.items():
        inner = "".join(
            f"<use href=#{state[0]} x={p(x)} y={p(y)} data-n={n} />" for n, x, y in places
        )
        if inner:
            groups.append(f"<g class={state}>{inner}</g>")
    return "".join(groups)


def lines(paths: Iterable[str]) -> str:
    """Paths of `line` or `steps`, stretched to the whole of a plot."""
    inner = "".join(paths)
    box = f'viewBox="0 0 {STRETCH} {STRETCH}" preserveAspectRatio=none width=100% height=100%'
    return f"<svg class=lines {box}>{inner}</svg>" if inner else ""


def line(trial: int, points: Sequence[tuple[float, float]], style: str) -> str:
    """A line of a trial through points in [0, 1], y downwards, written as short as it goes."""
    whole = [(round(x * STRETCH), round(y * STRETCH)) for x, y in points]
    if len(whole) < 2:
        return ""
    steps = " ".join(f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in pairwise(whole)).replace(" -", "-")
    return f'<path class="{style}" data-n={trial} d="M{whole[0][0]} {whole[0][1]}l{steps}"/>'


def steps(points: Sequence[tuple[float, float]], style: str) -> str:
    """A line that keeps each y until the next x, and the last one to the right edge."""
    if not points:
        return ""
    whole = [(round(x * STRETCH), round(y * STRETCH)) for x, y in points]
    path = f"M{whole[0][0]} {whole[0][1]}" + "".join(f"H{x}V{y}" for x, y in whole[1:])
    return f'<path class="{style}" d="{path}H{STRETCH}"/>'


def label(
    text: str,
    x: float,
    y: float,
    *,
    dx: float = 0,
    dy: float = 0,
    anchor: str = "",
    style: str = "",
) -> str:
    """A text at a place in [0, 1], y downwards, and pixels away from it."""
    anchor = anchor or ("end" if x > 0.75 else "start" if x < 0.25 else "middle")
    return (
        f'<text class="label {style}" x={p(x)} y={p(y)} dx={dx:g} dy={dy:g} text-anchor={anchor}>'
        f"{escape(text)}</text>"
    )


def p(share: float) -> str:
    """A share in percent, to a tenth, for an attribute: 12.3%."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"
