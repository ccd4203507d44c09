"""Pictures and frames of videos, read one at a time."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.data import archives, pictures
from pipeline.data.archives import Files
from pipeline.errors import InputError, reason

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".ogv", ".3gp"}
"""Suffixes of the files that are read as videos."""
INSTALL = "a video needs more packages: pip install -r requirements-faces.txt"


@dataclass(frozen=True)
class Shot:
    """A picture, or a frame of a video, upright."""

    file: str
    pixels: NDArray[np.uint8]
    """Red, green and blue (H, W, 3)."""
    frame: int | None = None
    """Number in the video, from 0."""
    seconds: float | None = None


def named(images: str) -> list[Path]:
    """The files and folders between the semicolons. Raises InputError if one is missing."""
    whole = paths.find(images)
    texts = [images] if paths.exists(whole) else [part.strip() for part in images.split(";")]
    found = [paths.find(text) for text in texts if text]
    for path in found:
        if not paths.exists(path):
            raise paths.missing(str(path), "file or folder")
    if not found:
        raise InputError("images: expected a picture, a folder, a video or sample")
    return found


def read(found: Iterable[Path], every: float, failed: list[InputError]) -> Iterator[Shot]:
    """The shots of files and folders; what can't be read is added to `failed` and passed over.

    Of a video there is a frame for each `every` seconds. In folders and archives, files that are
    neither a picture nor a video are passed over.
    """
    for path in found:
        yield from _or_failed(_given(path, every, failed), failed)


def _given(path: Path, every: float, failed: list[InputError]) -> Iterator[Shot]:
    """The shots of one of the paths that a user gave, which must be something."""
    if path.suffix.lower() in VIDEOS and path.is_file():
        yield from _frames(path, every)
    elif files := _files(path):
        yield from _of_files(files, every, failed)
    else:
        yield _picture(pictures.read_content(path), path)


def _files(path: Path) -> Files | None:
    """What is in a folder or an archive; None for another file, or one that can't be opened."""
    try:
        return archives.open_archive(path)
    except InputError:
        if path.is_dir():
            raise
        return None


def _picture(data: bytes, path: Path) -> Shot:
    pixels = pictures.decode_colours(data, path, must_be_one=True)
    assert pixels is not None
    return Shot(str(path), pixels)


def _of_files(files: Files, every: float, failed: list[InputError]) -> Iterator[Shot]:
    """The shots of a folder, or the pictures of an archive."""
    names = sorted(files.names)
    if isinstance(files, archives.Folder):
        for name in names:
            yield from _or_failed(_of_file(files.path(name), every), failed)
    else:
        for name, stream in files.read(names):
            data = stream.read(pictures.LARGEST + 1)
            yield from _or_failed(_if_picture(data, files.path(name)), failed)


def _or_failed(some: Iterator[Shot], failed: list[InputError]) -> Iterator[Shot]:
    try:
        yield from some
    except InputError as error:
        failed.append(error)


def _of_file(path: Path, every: float) -> Iterator[Shot]:
    if path.suffix.lower() in VIDEOS:
        yield from _frames(path, every)
    else:
        yield from _if_picture(pictures.read_content(path), path)


def _if_picture(data: bytes, path: PurePath) -> Iterator[Shot]:
    pixels = pictures.decode_colours(data, path)
    if pixels is not None:
        yield Shot(str(path), pixels)


def _frames(path: Path, every: float) -> Iterator[Shot]:
    """A frame of the video for each `every` seconds, the first one included."""
    if not find_spec("av"):
        raise InputError(f"{path}: {INSTALL}")
    import av  # an extra

    try:
        # A playlist that is named as a video may not open addresses.
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            last = -1
            frame: Any
            for number, frame in enumerate(container.decode(stream)):
                seconds = float(frame.time or 0)
                # Of times that are multiples of `every`, some quotients are just below a whole one.
                interval = math.floor(seconds / every + 1e-6)
                if interval <= last:
                    continue
                last = interval
                if frame.width * frame.height > pictures.MOST_PIXELS:
                    raise InputError(f"{path}: more than {pictures.MOST_PIXELS:,} pixels")
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield Shot(str(path), np.ascontiguousarray(pixels), number, seconds)
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(
            f"{path} can't be read as a video: {reason(error)}; replace or remove it"
        ) from error
