"""Reader of CSV files in FER2013's format: columns emotion, pixels and optionally Usage.

The pixels of a face are 2,304 numbers separated by blanks. The 35,887 faces are 300 MB of text, so
a compiled loop (numba) parses and checks it, block by block. Columns may be separated by commas,
semicolons or tabs, and lines may end as on any system.
"""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import compiled
from pipeline.data import CLASSES, SIDE, TEST, TRAIN, UNASSIGNED, VALIDATION
from pipeline.data.archives import unpacked
from pipeline.data.classes import Names, in_order
from pipeline.data.dataset import Faces
from pipeline.errors import InputError

PIXELS = SIDE * SIDE
BLOCK_BYTES = 16 << 20
SHORTEST_ROW = 2 * PIXELS  # a digit and a blank for every pixel
LONGEST_ROW = 1 << 20
"""Bytes of the longest row, and of blank lines in a row."""
LONGEST_HEADER = 1 << 16
MOST_CODES = 10
"""Class codes are a digit."""
EMOTION, PIXEL, USAGE, OTHER = range(4)
COLUMNS = {"emotion": EMOTION, "pixels": PIXEL, "usage": USAGE}
SEPARATORS = ",;\t"
BLANK, QUOTE, NEWLINE, RETURN = (ord(c) for c in ' "\n\r')
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# Result codes of the compiled loop, which can't raise InputError itself.
GOOD, BAD_EMOTION, BAD_USAGE, BAD_PIXEL, BAD_PIXEL_COUNT, BAD_COLUMN_COUNT, BAD_QUOTE = range(7)
Block = NDArray[np.uint8]


def read_csv(path: Path, names: Names | None = None) -> Faces:
    """All faces of a .csv file, also of one packed by gzip, bzip2 or xz.

    `names` may have classes of the codes 7, 8 and 9, which FER2013 does not have.

    Raises InputError, naming the file and the row (the first after the header is row 1), for
    a header without emotion or pixels, a value that is not a grey level 0-255, a row of another
    length than 2,304, an unknown class or Usage, a damaged file, or a file without faces.
    """
    with unpacked(path) as file:
        return read_stream(file, path, names or Names())


def read_stream(file: BinaryIO, path: Path, names: Names) -> Faces:
    """All faces of a CSV that is open for reading; errors name it as `path`."""
    classes = _classes(names)
    parts = list(_parse(file, path, len(classes)))
    if not any(len(labels) for _, labels, _ in parts):
        raise InputError(f"{path}: no row after the header; at least one face is needed")
    images, labels, split = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Faces(images, labels, split, tuple(classes)).of_classes(in_order(classes))


def _classes(names: Names) -> list[str]:
    """Classes by their code: FER2013's, and those that `names` has of the codes from 7."""
    found = [*CLASSES]
    while len(found) < MOST_CODES and (name := names.of(str(len(found)))):
        found.append(name)
    return found


def _parse(file: BinaryIO, path: Path, codes: int) -> Iterator[tuple[Block, Block, Block]]:
    """Yield images, labels and split codes of each block of complete rows."""
    header = file.readline(LONGEST_HEADER)
    old_mac = b"\n" not in header and b"\r" in header
    if old_mac:  # lines end with CR alone
        header, _, rest = header.partition(b"\r")
        rest = rest.replace(b"\r", b"\n")
    else:
        rest = b""
    separator, columns = _columns(header, path)
    rows_before, blank = 0, 0
    while chunk := file.read(BLOCK_BYTES):
        if old_mac:
            chunk = chunk.replace(b"\r", b"\n")
        end = chunk.rfind(b"\n") + 1
        block, rest = (rest + chunk[:end], chunk[end:]) if end else (b"", rest + chunk)
        if block:
            yield (part := _parse_block(block, separator, columns, rows_before, path, codes))
            rows_before += len(part[1])
            blank = 0 if len(part[1]) else blank + len(block)
        if max(len(rest), blank) > LONGEST_ROW:
            raise InputError(
                f"{path} row {rows_before + 1:,}: longer than {LONGEST_ROW >> 20} MB; a row has an "
                f"emotion and {PIXELS:,} pixels"
            )
    if rest.strip():
        yield _parse_block(rest + b"\n", separator, columns, rows_before, path, codes)


def _columns(header: bytes, path: Path) -> tuple[int, NDArray[np.int64]]:
    """The separator, and the kind of each column, (columns,).

    Names are compared without case and surrounding blanks.
    """
    if header.startswith(UTF_16) or header[:200].count(b"\0") > len(header[:200]) // 4:
        raise InputError(f"{path} is UTF-16 text; save it as UTF-8")
    if not header.strip():
        raise InputError(
            f"{path} is empty, or its first line is; expected the header emotion,pixels,Usage"
        )
    if len(header) == LONGEST_HEADER:
        raise InputError(
            f"{path}: its first line is longer than {LONGEST_HEADER >> 10} kB; expected the header "
            "emotion,pixels,Usage"
        )
    text = header.decode("utf-8-sig", "replace").strip("\r\n")
    separator = max(SEPARATORS, key=text.count)
    try:
        [names] = csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise InputError(f"{path}: damaged quotation marks in the header: {text[:80]}") from error
    names = [name.strip().lower() for name in names]
    for needed in ("emotion", "pixels"):
        if needed not in names:
            raise InputError(
                f"{path}: the header has no column {needed}: {text.strip()[:80]}; expected "
                "emotion,pixels,Usage"
            )
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise InputError(f"{path}: the header has two columns {twice[0]}; remove one of them")
    return ord(separator), np.array([COLUMNS.get(name, OTHER) for name in names])


def _parse_block(
    block: bytes,
    separator: int,
    columns: NDArray[np.int64],
    rows_before: int,
    path: Path,
    codes: int,
) -> tuple[Block, Block, Block]:
    # Upper bound of the rows: blank lines are skipped, and a row has at least SHORTEST_ROW bytes.
    room = min(len(block) // SHORTEST_ROW, block.count(b"\n")) + 1
    images = np.empty((room, PIXELS), np.uint8)
    labels = np.empty(room, np.uint8)
    split = np.full(room, UNASSIGNED, np.uint8)
    text = np.frombuffer(block, np.uint8)
    rows, problem, value = _scan(text, separator, columns, images, labels, split, codes)
    if problem != GOOD:
        why = _explain(problem, value, len(columns), codes)
        raise InputError(f"{path} row {rows_before + rows + 1:,}: {why}")
    images = images[:rows] if rows > room // 2 else images[:rows].copy()  # frees the room
    return images.reshape(-1, SIDE, SIDE), labels[:rows], split[:rows]


def _explain(problem: int, value: int, columns: int, codes: int) -> str:
    return {
        BAD_EMOTION: f"emotion is not a class code 0-{codes - 1} (names=7:contempt adds one)",
        BAD_USAGE: "unknown Usage, expected Training, PublicTest or PrivateTest",
        BAD_PIXEL: f"pixel {value:,} is not a whole number from 0 to 255",
        BAD_PIXEL_COUNT: f"{value:,} pixels, expected {PIXELS:,}",
        BAD_COLUMN_COUNT: f"{value} columns, the header has {columns}",
        BAD_QUOTE: f"a damaged quotation mark in column {value}",
    }[problem]


@compiled()
def _scan(text, separator, columns, images, labels, split, codes):  # type: ignore[no-untyped-def]  # noqa: C901
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
            start, end, i = _field(text, i, separator)
            if end < start:
                return row, BAD_QUOTE, column + 1
            if kind == PIXEL:
                if row == len(images):  # more rows than their bytes have room for: none is whole
                    return row, BAD_PIXEL_COUNT, 0
                problem, value = _scan_pixels(text[start:end], images[row])
                if problem != GOOD:
                    return row, problem, value
            elif kind != OTHER:
                code = _code(kind, text[start:end], codes)
                if code < 0:
                    return row, BAD_EMOTION if kind == EMOTION else BAD_USAGE, 0
                if row == len(labels):
                    return row, BAD_PIXEL_COUNT, 0
                if kind == EMOTION:
                    labels[row] = code
                else:
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


@compiled()
def _field(text, i, separator):  # type: ignore[no-untyped-def]
    """Start and end of a field's content, and the index of the separator or newline after it.

    Quotation marks around the content, and blanks around them, are left out. The end is before the
    start where a mark is damaged: one without its counterpart on the line, or with more beside it.
    """
    while text[i] == BLANK:
        i += 1
    start = i
    if text[i] == QUOTE:
        i += 1
        while text[i] != NEWLINE and (text[i] != QUOTE or text[i + 1] == QUOTE):
            i += 2 if text[i] == QUOTE else 1  # a doubled mark is a letter
        if text[i] == NEWLINE:
            return start, start - 1, i
        end = i
        start += 1
        i += 1
        while text[i] == BLANK or text[i] == RETURN:
            i += 1
        if text[i] != separator and text[i] != NEWLINE:
            return start, start - 1, i
        return start, end, i
    while text[i] != separator and text[i] != NEWLINE:
        i += 1
    end = i
    while end > start and (text[end - 1] == BLANK or text[end - 1] == RETURN):
        end -= 1
    return start, end, i


@compiled()
def _scan_pixels(text, face):  # type: ignore[no-untyped-def]
    """Parse the numbers of a field into `face`; a result code, and the message's number."""
    count, value = 0, -1
    for byte in text:
        if 48 <= byte <= 57:
            value = byte - 48 if value < 0 else value * 10 + byte - 48
            if value > 255:
                return BAD_PIXEL, count + 1
        elif byte == BLANK:
            if value >= 0:
                if count < PIXELS:
                    face[count] = value
                count += 1
                value = -1
        else:
            return BAD_PIXEL, count + 1
    if value >= 0:
        if count < PIXELS:
            face[count] = value
        count += 1
    return GOOD if count == PIXELS else BAD_PIXEL_COUNT, count


@compiled()
def _code(kind, text, codes):  # type: ignore[no-untyped-def]
    """Class code or split code of a field; -1 if it is invalid."""
    while len(text) and text[0] == BLANK:
        text = text[1:]
    while len(text) and text[-1] == BLANK:
        text = text[:-1]
    if kind == EMOTION:
        return text[0] - 48 if len(text) == 1 and 48 <= text[0] < 48 + codes else -1
    if _same(text, b"Training"):
        return TRAIN
    if _same(text, b"PublicTest"):
        return VALIDATION
    return TEST if _same(text, b"PrivateTest") else -1


@compiled()
def _same(text, name):  # type: ignore[no-untyped-def]
    if len(text) != len(name):
        return False
    for k in range(len(name)):
        if text[k] != name[k]:
            return False
    return True
