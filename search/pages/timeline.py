"""Chart of when each worker of a study trained which trial."""

from collections.abc import Sequence
from datetime import datetime

from search.pages import charts
from search.pages.charts import Scale
from search.pages.rows import Row

PAUSE = 60.0
"""Seconds without any trial from which on a study was paused, if a tenth of all work is less."""


def timeline(rows: Sequence[Row]) -> str:
    """When each worker trained which trial; pauses of the whole study are cut out."""
    begun = [row for row in rows if row.begin and row.end]
    if not begun:
        return ""
    first = min(row.begin for row in begun if row.begin)
    clock = _clock(begun, first)
    unit, word = (3600, "hours") if clock.end > 7200 else (60, "minutes")
    if clock.end < 120:
        unit, word = 1, "seconds"
    x = Scale(0.0, max(clock.end, 1.0) / unit)
    hosts = {row.worker.rpartition(":")[0] for row in begun}
    workers = list(
        dict.fromkeys(row.worker for row in sorted(begun, key=lambda row: str(row.begin)))
    )
    lanes = charts.Categories(tuple(workers))
    names = [_worker(worker, len(hosts) > 1) for worker in workers]
    high = 1 / len(workers)
    parts = [charts.x_axis(x, f"{word} of training", most=8)]
    for worker, name in zip(workers, names, strict=True):
        place = charts.p(lanes.at(worker))
        parts.append(f"<text dx=-8 y={place} dy=.34em text-anchor=end>{charts.escape(name)}</text>")
    for at in clock.pauses:
        place = charts.p(x.at(at / unit))
        parts.append(f"<line class=pause x1={place} x2={place} y2=100% />")
        parts.append(charts.label("paused", x.at(at / unit), 0, dy=-4, anchor="middle"))
    for row in begun:
        start, end = (x.at(clock(_since(t, first)) / unit) for t in (row.begin, row.end))
        top = lanes.at(row.worker) - 0.36 * high
        width = max(end - start, 0.001)
        parts.append(
            f"<rect class={row.state} data-n={row.number} x={charts.p(start)} y={charts.p(top)} "
            f"width={charts.p(width)} height={charts.p(0.72 * high)} rx=3 />"
        )
        if width > 0.012 * (len(str(row.number)) + 1):
            middle = charts.p(start + width / 2)
            parts.append(
                f"<text class=bar x={middle} y={charts.p(lanes.at(row.worker))} dy=.34em>"
                f"{row.number}</text>"
            )
    return charts.plot(
        "when each worker trained which trial", parts, height=34 * len(workers), top=16,
        bottom=38, left=charts.room_for(names, 24), least=560,
    )  # fmt: skip


def seconds_of_training(rows: Sequence[Row]) -> float:
    """Seconds in which any trial was trained, from the first one's start, without pauses."""
    begun = [row for row in rows if row.begin and row.end]
    starts = [row.begin for row in begun if row.begin]
    return _clock(begun, min(starts)).end if starts else 0.0


def _clock(begun: Sequence[Row], first: datetime) -> "_Clock":
    return _Clock(sorted((_since(row.begin, first), _since(row.end, first)) for row in begun))


def _since(moment: datetime | None, first: datetime) -> float:
    return (moment - first).total_seconds() if moment else 0.0


def _worker(worker: str, with_host: bool) -> str:
    host, _, number = worker.rpartition(":")
    if not host:
        return "unknown"
    return f"{host} worker {number}" if with_host else f"worker {number}"


class _Clock:
    """Seconds of training by seconds since the first trial: pauses take no time."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        longest = max(PAUSE, 0.1 * sum(end - begin for begin, end in spans))
        self.cuts: list[tuple[float, float]] = []
        reached = spans[0][1]
        for begin, end in spans[1:]:
            if begin - reached > longest:
                self.cuts.append((reached, begin - reached - longest / 4))
            reached = max(reached, end)
        self.end = self(reached)
        self.pauses = [self(start) + longest / 8 for start, _ in self.cuts]

    def __call__(self, seconds: float) -> float:
        return seconds - sum(length for start, length in self.cuts if seconds > start)
