"""Reader of CSV files in FER2013's format: columns emotion, pixels and optionally Usage.

The pixels of a face are 2,304 numbers separated by blanks. The 35,887 faces are 300 MB of text, so
a compiled loop (numba) parses and checks it, block by block.
"""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.data import CLASSES, SIDE, TEST, TRAIN, UNASSIGNED, VALIDATION
from pipeline.data.dataset import Faces
from pipeline.errors import InputError

PIXELS = SIDE * SIDE
BLOCK_BYTES = 16 << 20
SHORTEST_ROW = 2 * PIXELS  # a digit and a blank for every pixel
EMOTION, PIXEL, USAGE, OTHER = range(4)
COLUMNS = {"emotion": EMOTION, "pixels": PIXEL, "usage": USAGE}
BLANK, QUOTE, COMMA, NEWLINE, RETURN = (ord(c) for c in ' ",\n\r')

# Result codes of the compiled loop, which can't raise InputError itself.
GOOD, BAD_EMOTION, BAD_USAGE, BAD_PIXEL, BAD_PIXEL_COUNT, BAD_COLUMN_COUNT = range(6)
Block = NDArray[np.uint8]


def read_csv(path: Path) -> Faces:
    """All faces of a .csv file, also inside a .gz or .zip.

    Raises InputError, naming the file and the row (the first after the header is row 1), for
    a header without emotion or pixels, a value that is not a grey level 0-255, a row of another
    length than 2,304, an unknown class or Usage, a damaged archive, or a file without faces.
    """
    try:
        with _open(path) as file:
            parts = list(_parse(file, path))
    # zipfile raises RuntimeError for an encrypted file and for an unknown compression.
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise InputError(f"{path} can't be read: {error}; get or unpack it again") from error
    if not any(len(labels) for _, labels, _ in parts):
        raise InputError(f"{path}: no row after the header; at least one face is needed")
    return Faces(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    match path.suffix.lower():
        case ".gz":
            with gzip.open(path) as file:
                yield cast(BinaryIO, file)
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                if len(names) != 1:
                    raise InputError(
                        f"{path}: holds {len(names)} CSV files, expected one; unpack it"
                    )
                with archive.open(names[0]) as member:
                    yield cast(BinaryIO, member)
        case _:
            with path.open("rb") as file:
                yield file


def _parse(file: BinaryIO, path: Path) -> Iterator[tuple[Block, Block, Block]]:
    """Yield images, labels and split codes of each block of complete rows."""
    columns = _columns(file.readline(), path)
    rows_before, rest = 0, b""
    while chunk := file.read(BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        block, rest = (rest + chunk[:end], chunk[end:]) if end else (b"", rest + chunk)
        if block:
            yield (part := _parse_block(block, columns, rows_before, path))
            rows_before += len(part[1])
    if rest.strip():
        yield _parse_block(rest + b"\n", columns, rows_before, path)


def _columns(header: bytes, path: Path) -> NDArray[np.int64]:
    """Kind of each column, (columns,); names are compared without case and surrounding blanks."""
    if not header.strip():
        raise InputError(f"{path} is empty; expected a CSV with the header emotion,pixels,Usage")
    text = header.decode("utf-8-sig", "replace")
    names = [name.strip().strip('"').strip().lower() for name in text.split(",")]
    for needed in ("emotion", "pixels"):
        if needed not in names:
            raise InputError(f"{path}: the header has no column {needed}: {text.strip()[:80]}")
    return np.array([COLUMNS.get(name, OTHER) for name in names])


def _parse_block(
    block: bytes, columns: NDArray[np.int64], rows_before: int, path: Path
) -> tuple[Block, Block, Block]:
    # Upper bound of the rows: blank lines are skipped, and a row has at least SHORTEST_ROW bytes.
    room = min(len(block) // SHORTEST_ROW, block.count(b"\n")) + 1
    images = np.empty((room, PIXELS), np.uint8)
    labels = np.empty(room, np.uint8)
    split = np.full(room, UNASSIGNED, np.uint8)
    rows, problem, value = _scan(np.frombuffer(block, np.uint8), columns, images, labels, split)
    if problem != GOOD:
        raise InputError(
            f"{path} row {rows_before + rows + 1:,}: {_explain(problem, value, len(columns))}"
        )
    return images[:rows].reshape(-1, SIDE, SIDE), labels[:rows], split[:rows]


def _explain(problem: int, value: int, columns: int) -> str:
    return {
        BAD_EMOTION: f"emotion is not a class code 0-{len(CLASSES) - 1}",
        BAD_USAGE: "unknown Usage, expected Training, PublicTest or PrivateTest",
        BAD_PIXEL: f"pixel {value:,} is not a whole number from 0 to 255",
        BAD_PIXEL_COUNT: f"{value:,} pixels, expected {PIXELS:,}",
        BAD_COLUMN_COUNT: f"{value} columns, the header has {columns}",
    }[problem]


@njit(cache=True)
def _scan(text, columns, images, labels, split):  # type: ignore[no-untyped-def]  # noqa: C901
    """Parse the rows of `text`, which ends with a newline, into the arrays.

    Returns the number of valid rows, the result code of the row after them, and the number that
    its error message shows.
    """
    row, i = 0, 0
    while i < len(text):
        if text[i] == NEWLINE or text[i] == RETURN:  # a blank line
            i += 1
            continue
        column = 0
        while True:
            kind = columns[column] if column < len(columns) else OTHER
            if kind == PIXEL:
                i, problem, value = _scan_pixels(text, i, images[row])
                if problem != GOOD:
                    return row, problem, value
            else:
                start, i = i, _end_of_field(text, i)
                code = _code(kind, _strip(text[start:i]))
                if code < 0:
                    return row, BAD_EMOTION if kind == EMOTION else BAD_USAGE, 0
                if kind == EMOTION:
                    labels[row] = code
                elif kind == USAGE:
                    split[row] = code
            column += 1
            if text[i] == NEWLINE:
                break
            i += 1
        if column != len(columns):
            return row, BAD_COLUMN_COUNT, column
        row += 1
        i += 1
    return row, GOOD, 0


@njit(cache=True)
def _scan_pixels(text, i, face):  # type: ignore[no-untyped-def]
    """Parse the numbers of a field from index `i` into `face`.

    Returns the index of the field's end, a result code, and the number for the error message.
    """
    count, value = 0, -1
    while True:
        byte = text[i]
        if 48 <= byte <= 57:
            value = byte - 48 if value < 0 else value * 10 + byte - 48
            if value > 255:
                return i, BAD_PIXEL, count + 1
        elif byte == BLANK or byte == COMMA or byte == NEWLINE or byte == RETURN or byte == QUOTE:
            if value >= 0:
                if count < PIXELS:
                    face[count] = value
                count += 1
                value = -1
            if byte == COMMA or byte == NEWLINE:
                break
        else:
            return i, BAD_PIXEL, count + 1
        i += 1
    return i, GOOD if count == PIXELS else BAD_PIXEL_COUNT, count


@njit(cache=True)
def _end_of_field(text, i):  # type: ignore[no-untyped-def]
    while text[i] != COMMA and text[i] != NEWLINE:
        i += 1
    return i


@njit(cache=True)
def _strip(text):  # type: ignore[no-untyped-def]
    left, right = 0, len(text)
    while left < right and (text[left] == BLANK or text[left] == QUOTE):
        left += 1
    while left < right and (text[right - 1] in (BLANK, QUOTE, RETURN)):
        right -= 1
    return text[left:right]


@njit(cache=True)
def _code(kind, text):  # type: ignore[no-untyped-def]
    """Class code or split code of a field; -1 if it is invalid, 0 in other columns."""
    if kind == EMOTION:
        return text[0] - 48 if len(text) == 1 and 48 <= text[0] < 55 else -1
    if kind == USAGE:
        if _same(text, b"Training"):
            return TRAIN
        if _same(text, b"PublicTest"):
            return VALIDATION
        return TEST if _same(text, b"PrivateTest") else -1
    return 0


@njit(cache=True)
def _same(text, name):  # type: ignore[no-untyped-def]
    if len(text) != len(name):
        return False
    for k in range(len(name)):
        if text[k] != name[k]:
            return False
    return True
