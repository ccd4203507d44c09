"""Pictures as faces: upright, grey, 48x48 pixels."""

import io
import warnings
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


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """A picture as (48, 48) grey levels, upright. Raises InputError if it can't be read."""
    path = paths.find(str(path))
    try:
        with open_regular(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read as a picture: {reason(error)}; replace or remove it"
        ) from error
    face = decode(data, path, must_be_one=True)
    assert face is not None
    return face


def decode(data: bytes, name: PurePath, *, must_be_one: bool = False) -> NDArray[np.uint8] | None:
    """Grey levels (48, 48) of the picture in a file's content; None for a file that is none.

    A file that is named as a picture, or that `must_be_one`, raises InputError if it is none. So
    does one with more than 8 bits a pixel, which Pillow would clip to white, and one that is too
    large. What is fully transparent becomes white; of several frames the first is taken.
    """
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
            return _face(ImageOps.exif_transpose(picture))
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


def _face(picture: Image.Image) -> NDArray[np.uint8]:
    grey = picture.convert("L")
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        grey.paste(255, mask=alpha.point([255] + [0] * 255))
    return np.asarray(grey if grey.size == (SIDE, SIDE) else grey.resize((SIDE, SIDE)))
