"""Pictures, upright: as faces, grey and 48x48 pixels, or in colours and their own size."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline import paths
from pipeline.data import SIDE
from pipeline.data.archives import open_regular
from pipeline.errors import InputError, reason

FORMATS = (
    "PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "ICO",
    "PSD", "QOI", "SGI", "SUN", "PCX",
)  # fmt: skip
"""Formats that Pillow decodes by itself, told by their first bytes. Not PostScript, PDF and WMF,
which other programs would draw."""
BY_NAME = ("TGA",)
"""Formats without a mark of their own, read where the name's suffix is theirs."""
LARGEST = 100 << 20
"""Bytes of the largest file that is read as a picture."""
MOST_PIXELS = 50_000_000


Pixels = NDArray[np.uint8]


def read_picture(path: str | Path) -> Pixels:
    """A picture as (48, 48) grey levels, upright. Raises InputError if it can't be read."""
    path = paths.find(str(path))
    face = decode(read_content(path), path, must_be_one=True)
    assert face is not None
    return face


def read_content(path: Path) -> bytes:
    """The first `LARGEST` bytes of a file, and one more. Raises InputError if it can't be read."""
    try:
        with open_regular(path) as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read as a picture: {reason(error)}; replace or remove it"
        ) from error


def decode(data: bytes, name: PurePath, *, must_be_one: bool = False) -> Pixels | None:
    """Grey levels (48, 48) of the picture in a file's content; None for a file that is none.

    A file that is named as a picture, or that `must_be_one`, raises InputError if it is none. So
    does one with more than 8 bits a pixel, which Pillow would clip to white, and one that is too
    large. What is fully transparent becomes white; of several frames the first is taken.
    """
    return _decode(data, name, _face, must_be_one)


def decode_colours(data: bytes, name: PurePath, *, must_be_one: bool = False) -> Pixels | None:
    """What `decode` reads, in red, green and blue and in its own size (H, W, 3)."""
    return _decode(data, name, _colours, must_be_one)


def _decode(
    data: bytes, name: PurePath, convert: Callable[[Image.Image], Pixels], must_be_one: bool
) -> Pixels | None:
    kind = Image.registered_extensions().get(name.suffix.lower())
    is_named = kind in (*FORMATS, *BY_NAME, "MPO")  # MPO is told as JPEG
    formats = [f for f in (*FORMATS, *(BY_NAME if kind in BY_NAME else ())) if f in Image.OPEN]
    try:
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MB")
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=formats) as picture,
        ):
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"more than {MOST_PIXELS:,} pixels")
            if picture.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a pixel")
            return convert(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        if not is_named and not must_be_one:
            return None
        raise InputError(f"{name} can't be read as a picture; replace or remove it") from error
    except Exception as error:  # Pillow raises whatever its decoders do
        if len(data) > LARGEST and not is_named and not must_be_one:
            return None
        raise InputError(
            f"{name} can't be read as a picture: {reason(error)}; replace or remove it"
        ) from error


def _face(picture: Image.Image) -> Pixels:
    grey = _on_white(picture, "L")
    return np.asarray(grey if grey.size == (SIDE, SIDE) else grey.resize((SIDE, SIDE)))


def _colours(picture: Image.Image) -> Pixels:
    return np.asarray(_on_white(picture, "RGB"))


def as_face(colours: Pixels) -> Pixels:
    """Grey levels (48, 48) of a part of a picture (H, W, 3).

    Lanczos' filter, since the networks lose accuracy by blur (docs/predict.md).
    """
    grey = Image.fromarray(colours).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _on_white(picture: Image.Image, mode: str) -> Image.Image:
    converted = picture.convert(mode)
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        white = Image.new(mode, picture.size, "white")
        converted.paste(white, mask=alpha.point([255] + [0] * 255))
    return converted
