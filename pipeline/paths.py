"""Paths that a user gives: looked up where the command was typed, also under `mlflow run`."""

import os
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import psutil

from pipeline.errors import InputError
from pipeline.runs.signals import PROJECT_RUN


def find(text: str) -> Path:
    """The path that `text` names: in the folder where the command was typed, else in this one.

    `mlflow run FOLDER` starts a command in FOLDER, wherever it is typed itself. `~` is the home
    folder: in `source=~/faces` some shells leave it as it is.
    """
    text = _expanded(text)
    typed_in = caller_folder()
    if typed_in and os.path.lexists(typed_in / text):
        return typed_in / text
    return Path(text)


def _expanded(text: str) -> str:
    return os.path.expanduser(text)  # noqa: PTH111  (pathlib raises where there is no home)


def several(text: str) -> list[str]:
    """The paths of a text with commas between; a path that exists may have commas of its own."""
    return [text] if exists(find(text)) else [part.strip() for part in text.split(",")]


def exists(path: str | Path) -> bool:
    """Whether a file or folder is there; False for a text that can't be a path."""
    return os.path.exists(path)  # noqa: PTH110  (pathlib raises for a name that is too long)


def searched(text: str) -> str:
    """Where `find` looked for a relative path, for a message."""
    folders = [] if Path(_expanded(text)).is_absolute() else [caller_folder(), Path.cwd()]
    return " or ".join(str(folder) for folder in folders if folder)


def missing(text: str, what: str, remedy: str = "") -> InputError:
    """The error for a path that is not there, with the folders that were searched."""
    where = searched(text)
    return InputError(f"{text}: no such {what}{where and ' in '}{where}{remedy}")


def find_file(text: str, what: str = "file") -> Path:
    """The file that `text` names. Raises InputError if there is none."""
    path = find(text)
    if not exists(path) or not path.is_file():
        raise missing(text, what)
    return path


def cached(name: str) -> Path:
    """A folder for files that are made once for this user; made if it is not there."""
    try:
        folder = Path("~/.cache/emotion-search").expanduser() / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home folder, or none that can be written
        folder = Path(gettempdir()) / "emotion-search" / name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def caller_folder() -> Path | None:
    """The working folder of the `mlflow run` that started this process, if it is another one."""
    if PROJECT_RUN not in os.environ:
        return None
    try:
        for parent in psutil.Process().parents():
            words = parent.cmdline()
            if "run" in words and any(Path(word).stem == "mlflow" for word in words):
                folder = Path(parent.cwd())
                return None if folder == Path.cwd() else folder
    except (psutil.Error, OSError):
        pass
    return None
