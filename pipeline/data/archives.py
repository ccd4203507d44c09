"""Files of a folder, a zip or a tar archive, read in bounded memory; junk is left out."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pipeline.errors import InputError, reason

JUNK = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "lost+found", "icon\r",
}  # fmt: skip
"""Names, in lower case, of what operating systems leave behind. Those that begin with a dot are
junk too: .DS_Store, ._face.png, .ipynb_checkpoints."""
PACKED_AT_MOST = 50
"""Bytes that one byte of an archive may unpack to; those of FER2013 give three."""
FREE_BYTES = 64 << 20
"""Bytes that every archive may unpack to."""
MOST_FILES = 1_000_000
LONGEST_HEADER = 1 << 20
"""Bytes of a name, or of other information, in a tar archive."""
OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open,
}  # fmt: skip
"""Functions that open a compressed file, by its first bytes."""


def is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the libraries raise for a damaged file into InputError."""
    try:
        yield
    except InputError:
        raise
    # zipfile, tarfile and the decompressors raise a dozen types, for a password and an unknown
    # method too.
    except Exception as error:
        raise InputError(
            f"{path} can't be read: {reason(error)}; get or unpack it again"
        ) from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises InputError for a pipe or device, which may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path}: a pipe, a socket or a device, not a file; remove it")
    return path.open("rb")


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, uncompressed if it is packed by gzip, bzip2 or xz."""
    with readable(path), open_regular(path) as file:
        first = file.read(6)
        file.seek(0)
        opener = next((o for magic, o in OPENERS.items() if first.startswith(magic)), None)
        if opener is None:
            yield file
            return
        with opener(file) as content:
            yield guarded(content, path, Budget(path))


def open_archive(path: Path) -> "Files | None":
    """The files of a folder, zip or tar archive; None for any other file."""
    if path.is_dir():
        return Folder(path)
    with unpacked(path) as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Zip(path)
    return Tar(path) if head[257:262] == b"ustar" else None


class Budget:
    """Bytes that an archive may still unpack to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = FREE_BYTES + PACKED_AT_MOST * path.stat().st_size

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise InputError(
                f"{self.path}: unpacks to more than {PACKED_AT_MOST} times its size; it is "
                "damaged, or made to fill the memory; unpack it yourself if it is neither"
            )


def guarded(file: Any, path: Path, budget: Budget | None = None) -> BinaryIO:
    """`file`, until the budget is spent; whatever its reading raises becomes InputError."""
    return io.BufferedReader(_Guarded(file, path, budget), 1 << 18)


class _Guarded(io.RawIOBase):
    def __init__(self, file: Any, path: Path, budget: Budget | None) -> None:
        self.file, self.path, self.budget = file, path, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with readable(self.path):
            data = self.file.read(len(buffer))
        if self.budget:
            self.budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)


class Files(ABC):
    """Files below a folder or in an archive, by their paths in it."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.names: list[PurePosixPath] = []
        self.folders: set[PurePosixPath] = set()
        self.unreadable: list[PurePosixPath] = []
        """Links and devices in an archive."""
        with readable(where):
            self._list()

    @abstractmethod
    def _list(self) -> None:
        """Fill `names`, `folders` and `unreadable`."""

    @abstractmethod
    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
        """Yield the wanted files, each open until the next one, in whatever order is quick."""

    def path(self, name: PurePosixPath) -> Path:
        """Path of a file or folder, for messages."""
        return self.where / name

    def _add(self, name: str, *, folder: bool = False, file: bool = True) -> PurePosixPath | None:
        """Note a path, unless it is junk; returns it."""
        path = PurePosixPath(name.replace("\\", "/"))
        path = path.relative_to("/") if path.is_absolute() else path
        if any(is_junk(part) for part in path.parts) or not path.parts:
            return None
        self.folders.update(p for p in path.parents if p.parts)
        if folder:
            self.folders.add(path)
        else:
            (self.names if file else self.unreadable).append(path)
            if len(self.names) > MOST_FILES:
                raise InputError(f"{self.where}: holds more than {MOST_FILES:,} files")
        return path


class Folder(Files):
    """A folder on disk; links are followed."""

    def _list(self) -> None:
        seen = set()
        for folder, below, names in os.walk(self.where, onerror=_refuse, followlinks=True):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            below[:] = [name for name in below if not is_junk(name)]
            here = PurePosixPath(os.path.relpath(folder, self.where))
            self.folders.update(here / name for name in below)
            self.names += [here / name for name in names if not is_junk(name)]
            if len(self.names) > MOST_FILES:
                raise InputError(f"{self.where}: holds more than {MOST_FILES:,} files")

    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
        for name in wanted:
            with readable(self.path(name)), open_regular(self.path(name)) as file:
                yield name, guarded(file, self.path(name))


def _refuse(error: OSError) -> None:
    """Refuse a folder that can't be listed, which `os.walk` would leave out in silence."""
    raise InputError(f"a folder can't be read: {reason(error, 300)}; make it readable")


class Zip(Files):
    """A zip archive."""

    def _list(self) -> None:
        self.members: dict[PurePosixPath, zipfile.ZipInfo] = {}
        with zipfile.ZipFile(self.where) as archive:
            for member in archive.infolist():
                if name := self._add(member.filename, folder=member.is_dir()):
                    if name in self.members and not member.is_dir():
                        raise InputError(f"{self.where}: holds {name} twice; unpack it")
                    self.members[name] = member

    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
        budget = Budget(self.where)
        with readable(self.where), zipfile.ZipFile(self.where) as archive:
            for name in wanted:
                with archive.open(self.members[name]) as file:
                    yield name, guarded(file, self.where, budget)


class Tar(Files):
    """A tar archive, also one packed by gzip, bzip2 or xz."""

    def _list(self) -> None:
        for member, _ in self._members():
            self._add(member.name, folder=member.isdir(), file=member.isfile())
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{self.where}: holds a file twice; unpack it")

    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, BinaryIO]]:
        left = set(wanted)
        with readable(self.where):
            for member, archive in self._members():
                name = PurePosixPath(member.name.replace("\\", "/").lstrip("/"))
                if name in left and member.isfile():
                    left.remove(name)
                    yield name, guarded(archive.extractfile(member), self.where)

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        with (
            unpacked(self.where) as file,
            tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive,
        ):
            for member in archive:
                yield member, archive
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps them all otherwise


class _Header(tarfile.TarInfo):
    """A header that is not read into memory if it is too long."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type not in tarfile.REGULAR_TYPES and self.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]
