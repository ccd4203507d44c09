"""What networks read in faces, as a table, CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.table import Column, Table

from pipeline.errors import one_line
from pipeline.percent import percent

WIDE = 1000
"""Characters of a line where no terminal cuts it."""


@dataclass(frozen=True)
class Answer:
    """What one network reads in one face."""

    file: str
    frame: int | None
    seconds: float | None
    face: int
    """Number of the face in its picture, from 1."""
    box: tuple[int, int, int, int] | None
    """Left, top, width and height in pixels; None for a picture that was taken as a face."""
    score: float | None
    """The detector's, 0 to 1."""
    network: str
    probabilities: dict[str, float]
    least: float
    """Probability below which the answer is unsure."""

    @property
    def best(self) -> str:
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def unsure(self) -> bool:
        return self.probabilities[self.best] < self.least

    @property
    def words(self) -> str:
        share = percent(self.probabilities[self.best], 0)
        return f"{self.best} {share}{', unsure' if self.unsure else ''}"

    def record(self) -> dict[str, Any]:
        """Names and plain values, for JSON."""
        return {
            "file": self.file,
            "frame": self.frame,
            "seconds": self.seconds if self.seconds is None else round(self.seconds, 3),
            "face": self.face,
            "box": self.box and dict(zip(BOX, self.box, strict=True)),
            "score": self.score if self.score is None else round(self.score, 3),
            "network": self.network,
            "class": self.best,
            "unsure": self.unsure,
            "probabilities": {k: round(v, 4) for k, v in self.probabilities.items()},
        }


BOX = ("left", "top", "width", "height")


def write(answers: Sequence[Answer], form: str, stream: TextIO, file_title: str) -> None:
    """Write a table, CSV or JSON; `file_title` is the header of the table's first column."""
    if form == "json":
        stream.write(as_json(answers))
    elif form == "csv":
        stream.write(as_csv(answers))
    elif answers:
        print_table(answers, stream, file_title)


def as_json(answers: Sequence[Answer]) -> str:
    """A list of objects, one to a line."""
    lines = (json.dumps(answer.record(), ensure_ascii=False) for answer in answers)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def as_csv(answers: Sequence[Answer]) -> str:
    """A line for each answer, with a column for each class of any network."""
    classes = dict.fromkeys(name for answer in answers for name in answer.probabilities)
    fixed = ("file", "frame", "seconds", "face", *BOX, "score", "network", "class", "unsure")
    out = io.StringIO()
    writer = csv.DictWriter(out, [*fixed, *classes], lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        record = answer.record()
        box, shares = record.pop("box") or {}, record.pop("probabilities")
        writer.writerow(record | box | shares | {"unsure": str(answer.unsure).lower()})
    return out.getvalue()


def print_table(answers: Sequence[Answer], stream: TextIO, file_title: str) -> None:
    """Print a row for each face.

    With one network there is a column for each class, unless the terminal is too narrow for them.
    """
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    networks = list(dict.fromkeys(answer.network for answer in answers))
    table = _table(answers, networks, file_title, classes=len(networks) == 1)
    if console.measure(table).maximum > console.width:
        table = _table(answers, networks, file_title, classes=False)
    console.print(table)


def _table(
    answers: Sequence[Answer], networks: Sequence[str], file_title: str, *, classes: bool
) -> Table:
    table = Table(Column(file_title, overflow="fold"))
    timed = any(answer.seconds is not None for answer in answers)
    boxed = any(answer.box for answer in answers)
    for name in ("seconds",) * timed + ("face at", "size") * boxed:
        table.add_column(name, justify="right")
    for name in networks:
        table.add_column(name, overflow="fold")
    for name in answers[0].probabilities if classes else ():
        table.add_column(name, justify="right")
    for start in range(0, len(answers), len(networks)):
        of_face = answers[start : start + len(networks)]
        first = of_face[0]
        cells = [one_line(first.file)]
        cells += ["" if first.seconds is None else f"{first.seconds:.2f}"] * timed
        if first.box:
            left, top, width, height = first.box
            cells += [f"{left}, {top}", f"{width} x {height}"]
        else:
            cells += ["", ""] * boxed
        cells += [answer.words for answer in of_face]
        cells += [percent(share, 0) for share in first.probabilities.values()] * classes
        table.add_row(*cells)
    return table
