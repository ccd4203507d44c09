"""Votes of several people on the class of each face, as FER+ has them (Barsoum et al. 2016)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import TRAIN, UNASSIGNED, VALIDATION
from pipeline.data.archives import open_regular, readable
from pipeline.data.classes import KNOWN, SPELLINGS
from pipeline.data.dataset import SOURCE_SPLITS, Bytes, Dataset, Faces
from pipeline.errors import InputError
from pipeline.percent import percent

ANSWERS = (*KNOWN, "unknown", "nf")
"""What one could answer; NF is "not a face"."""
MOST_VOTES = 255
AGAINST = {"votes": "the votes' majority", "hard": "the dataset's labels", "": ""}
"""What figures are against, by what is learnt."""
BLOCK = 200
"""Faces among which the votes' majority must be the label often enough; fewer tell too little."""
LEAST_AGREEMENT = 0.35
"""Of FER2013's labels FER+'s majority is 58 to 74 % in each block, and 17 to 19 % if rows are
shifted."""


def join(faces: Faces, file: Path) -> Faces:
    """`faces` with the votes of a CSV in FER+'s form, whose rows are these faces in this order.

    Rows whose Usage the faces do not have, such as PrivateTest, are left out. Raises InputError,
    naming the row, for a value that is no number of votes, for a row of another Usage than that of
    its face, and where the labels show that the rows are of other faces.
    """
    if unknown := [name for name in faces.classes if name not in KNOWN]:
        raise InputError(f"{file}: nobody could vote for {unknown[0]}, a class of the source")
    usage, answers = _read(file)
    rows = _rows_of(faces, usage, file)
    found = _counted(answers[rows], faces.classes)
    _require_aligned(found, faces.labels, rows, file)
    if not found.any():
        raise InputError(f"{file}: no face has enough votes for a class")
    return replace(faces, votes=found, about=faces.about | {"votes": file.name})


def majority(votes: Bytes) -> tuple[Bytes, NDArray[np.bool_]]:
    """The class with the most votes, (N,) uint8, and a mask (N,) of the faces with only one such.

    Faces without votes have class 0 and are not in the mask.
    """
    top = votes.max(axis=1)
    is_clear = (top > 0) & (np.count_nonzero(votes == top[:, None], axis=1) == 1)
    return votes.argmax(axis=1).astype(np.uint8), is_clear


def shares(votes: Bytes) -> NDArray[np.float32]:
    """Votes as a distribution over the classes, (N, classes); each face must have a vote."""
    return (votes / votes.sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)


def for_training(dataset: Dataset, targets: str) -> Dataset:
    """`dataset` as a training with `targets` (auto, votes or hard) learns it and is validated.

    hard: the dataset without its votes. votes: the training faces with votes and the validation
    faces whose majority is clear, with the majority as label. auto is votes where there are any.
    """
    if dataset.votes is None or targets == "hard":
        if targets == "votes":
            raise InputError(
                "targets=votes: this dataset has no votes; ingest it with labels=fer2013new.csv, "
                "or leave targets out"
            )
        return replace(dataset, votes=None)
    first, is_clear = majority(dataset.votes)
    is_kept = np.where(dataset.split == TRAIN, dataset.votes.any(axis=1), is_clear)
    kept = replace(dataset, labels=first).take(is_kept)
    if not {TRAIN, VALIDATION} <= set(kept.split):
        raise InputError(
            "targets=votes: votes leave no face to train on or none to validate on; give "
            "targets=hard"
        )
    return kept


def learnt(about: Mapping[str, Any], targets: str) -> str:
    """votes or hard, whichever a training with `targets` learns; empty if there are no votes.

    `about` is the dataset's dataset.json.
    """
    if "votes" not in about:
        return ""
    return "hard" if targets == "hard" else "votes"


def text(dataset: Dataset) -> str:
    """How many faces have votes, and how often their majority is the label; for one with votes."""
    assert dataset.votes is not None
    first, is_clear = majority(dataset.votes)
    have = int(dataset.votes.any(axis=1).sum())
    agree = float((first == dataset.labels)[is_clear].mean()) if is_clear.any() else 0.0
    return (
        f"{have:,} of {len(dataset.labels):,} faces have votes; {len(dataset.labels) - have:,} are "
        "left out of training on votes, since unknown, not a face or a class that is none here has "
        f"as many as any class; the label is the majority of {percent(agree)} of the "
        f"{int(is_clear.sum()):,} faces with one class on top"
    )


def _read(file: Path) -> tuple[Bytes, Bytes]:
    """Split codes (M,) and the numbers of votes for `ANSWERS`, (M, 10)."""
    splits = {name.lower(): code for code, name in SOURCE_SPLITS.items() if code != UNASSIGNED}
    usage, answers = [], []
    with readable(file):
        lines = _lines(file)
        header = [name.strip().lower() for name in next(lines, [])]
        columns = _columns(header, file)
        where = header.index("usage")
        for row, line in enumerate(lines, start=1):
            if len(line) != len(header):
                raise InputError(
                    f"{file} row {row:,}: {len(line)} columns, the header has {len(header)}"
                )
            code = splits.get(line[where].strip().lower())
            if code is None:
                raise InputError(
                    f"{file} row {row:,}: unknown Usage, expected Training, PublicTest or "
                    "PrivateTest"
                )
            usage.append(code)
            answers.append([_number(line[k], f"{file} row {row:,}") for k in columns])
    if not answers:
        raise InputError(f"{file}: no row after the header; each face of the source needs one")
    return np.array(usage, np.uint8), np.array(answers, np.uint8)


def _lines(file: Path) -> Iterator[list[str]]:
    """The fields of each line that is not blank."""
    open_regular(file).close()
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as content:
        yield from (line for line in csv.reader(content) if any(line))


def _columns(header: list[str], file: Path) -> list[int]:
    """The places of the columns of `ANSWERS` in the header."""
    names = [SPELLINGS.get(name, name) for name in header]
    for name in ("usage", *ANSWERS):
        if names.count(name) != 1:
            raise InputError(
                f"{file}: the header has {'no' if name not in names else 'two'} column {name}; "
                "expected FER+'s: Usage,Image name,neutral,happiness,surprise,sadness,anger,"
                "disgust,fear,contempt,unknown,NF"
            )
    return [names.index(name) for name in ANSWERS]


def _number(field: str, where: str) -> int:
    field = field.strip()
    if not (field.isdecimal() and len(field) < 4 and int(field) <= MOST_VOTES):
        raise InputError(
            f"{where}: {field[:20]!r} is no number of votes, a whole one from 0 to {MOST_VOTES}"
        )
    return int(field)


def _rows_of(faces: Faces, usage: Bytes, file: Path) -> NDArray[np.intp]:
    """The row of each face, (N,), counted from 0."""
    has_usage = bool((faces.split != UNASSIGNED).any())
    rows = np.flatnonzero(np.isin(usage, faces.split)) if has_usage else np.arange(len(usage))
    for code in np.unique(faces.split):
        count = np.count_nonzero(usage[rows] == code) if has_usage else len(rows)
        wanted = np.count_nonzero(faces.split == code)
        if count != wanted:
            name = SOURCE_SPLITS[int(code)] if has_usage else "faces"
            raise InputError(
                f"{file}: {count:,} rows of {name}, the source has {wanted:,}; the rows must be "
                "the source's faces, in their order"
            )
    if has_usage and (different := np.flatnonzero(usage[rows] != faces.split)).size:
        row, face = rows[different[0]], different[0]
        raise InputError(
            f"{file} row {row + 1:,}: Usage is {SOURCE_SPLITS[int(usage[row])]}, that of row "
            f"{face + 1:,} of the source is {SOURCE_SPLITS[int(faces.split[face])]}; the rows must "
            "be in the source's order"
        )
    return rows


def _counted(answers: Bytes, classes: Sequence[str]) -> Bytes:
    """Votes for the classes, (N, classes); none where another answer has as many as any class."""
    own = [ANSWERS.index(name) for name in classes]
    votes, others = answers[:, own], np.delete(answers, own, axis=1)
    is_class = votes.max(axis=1) > others.max(axis=1)
    return np.where(is_class[:, None], votes, 0).astype(np.uint8)


def _require_aligned(votes: Bytes, labels: Bytes, rows: NDArray[np.intp], file: Path) -> None:
    """Raise InputError where the majority is the label so rarely that the rows are shifted."""
    first, is_clear = majority(votes)
    clear = np.flatnonzero(is_clear)
    for block in np.array_split(clear, max(1, len(clear) // BLOCK)):
        agreement = float((first == labels)[block].mean()) if len(block) >= BLOCK // 4 else 1.0
        if agreement < LEAST_AGREEMENT:
            raise InputError(
                f"{file} rows {rows[block[0]] + 1:,} to {rows[block[-1]] + 1:,}: the votes' "
                f"majority is the label of {percent(agreement, 0)} of these faces, expected some "
                "60 %; the rows must be the source's faces, in their order"
            )
