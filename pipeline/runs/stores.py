"""The MLflow store: checks of its address, and its refusals in one line with the remedy."""

import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pipeline.errors import InputError, note, reason

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
SQLITE_OPTIONS = {"uri", "mode", "cache", "timeout", "immutable", "nolock", "vfs"}
EXPECTED = "expected sqlite:///mlflow.db, another database, or a server's http:// address"
FOLDERS = (
    "MLflow records nothing in folders any more; give MLFLOW_TRACKING_URI=sqlite:///mlflow.db "
    "(`mlflow migrate-filestore` takes over what is there), or set MLFLOW_ALLOW_FILE_STORE=true"
)
RESTORE = "`mlflow experiments restore -x ID` brings it back"
UPGRADE = (
    "the database is of another version of MLflow: back it up, then `mlflow db upgrade ADDRESS`; "
    "if it is of a newer one, install that"
)
REMEDIES = (
    ("filesystem tracking backend|maintenance mode", FOLDERS),
    ("must be in the 'active' state|deleted state|is deleted", f"it was deleted; {RESTORE}"),
    (
        "MLFLOW_EXPERIMENT_ID|No Experiment with id",
        "`mlflow experiments search` lists those there are",
    ),
    ("out-of-date database schema|Can't locate revision", UPGRADE),
    ("disk is full|No space left|disk I/O error", "make room on the disk, and try again"),
    ("readonly database|read-only", "make it writable, or give another MLFLOW_TRACKING_URI"),
    ("not a database|malformed", "it is damaged or no database; put a backup in its place"),
    ("unable to open database", "does its folder exist, and can it be written?"),
    ("database is locked", "another program writes to it; try again"),
    ("No module named", "install the package that it needs"),
)
"""Remedies by what a library says."""
LIBRARIES = {"mlflow", "sqlalchemy", "alembic", "optuna", "sqlite3", "requests", "urllib3"}
"""Libraries whose errors are about a store."""


def require_usable(address: str) -> None:
    """Raise InputError for an address that MLflow would refuse at length, or damage a folder by."""
    from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE

    scheme, separator, _ = address.partition("://")
    if not separator and address.split(":")[0] in SERVERS:
        return
    if not separator or scheme == "file":
        if not MLFLOW_ALLOW_FILE_STORE.get():
            raise InputError(f"{address}: {FOLDERS}")
    elif scheme.partition("+")[0] in (*DATABASES, "sqlite"):
        require_database(address, "")
        if scheme.partition("+")[0] in DATABASES:
            _require_answer(address)
    elif scheme not in SERVERS:
        raise InputError(f"{address}: {EXPECTED}")


@cache
def _require_answer(address: str) -> None:
    """Raise InputError if a database's server does not answer; MLflow would try for 100 seconds."""
    engine = create_engine(address, poolclass=NullPool)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        raise InputError(f"{address}: can't be used ({reason(error)})") from None


def require_database(address: str, setting: str) -> None:
    """Raise InputError for a database that can't be: its driver, its folder or its file."""
    try:
        url = make_url(address)
        url.get_dialect().import_dbapi()
    except (ArgumentError, ValueError, NoSuchModuleError) as error:
        raise InputError(
            f"{setting}{address}: no address of a database ({reason(error)})"
        ) from None
    except ImportError as error:
        package = {"psycopg2": "psycopg2-binary"}.get(error.name or "", error.name)
        raise InputError(
            f"{setting}{address}: {error.name} is not installed; pip install {package}"
        ) from None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return
    if unknown := sorted({*url.query} - SQLITE_OPTIONS):
        raise InputError(f"{setting}{address}: {unknown[0]} is no option of sqlite; leave it out")
    file = Path(str(url.database))
    try:
        if not file.parent.is_dir():
            raise InputError(f"{setting}{address}: no folder {file.parent}; make it first")
        if file.exists() and not _is_sqlite(file):
            raise InputError(f"{setting}{address}: {file} is no sqlite database; give another")
    except OSError as error:
        raise InputError(f"{setting}{address}: {reason(error)}") from None


def _is_sqlite(file: Path) -> bool:
    """Whether a file is empty or begins as a database of sqlite does."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(16) in (b"", b"SQLite format 3\0")


def sqlite_file(address: str) -> Path | None:
    """The file of an sqlite address; None for others."""
    if not address.startswith(SQLITE):
        return None
    database = make_url(address).database
    return Path(database) if database and database != ":memory:" else None


def explain(error: BaseException) -> str | None:
    """One line about an error of a store, with the remedy; None for an error of another kind."""
    root = type(error).__module__.partition(".")[0]
    if root not in LIBRARIES and not isinstance(error, ModuleNotFoundError):
        return None
    if isinstance(error, ModuleNotFoundError):
        if error.name and find_spec(error.name.partition(".")[0]):
            return None  # a mistake in a program, not a package that is missing
        return f"the package {error.name} is not installed; pip install {error.name}"
    found = remedy(error)
    return f"{mlflow.get_tracking_uri()}: {reason(error)}" + (f"; {found}" if found else "")


def remedy(error: BaseException) -> str | None:
    """What to do about an error of a store, if that is known."""
    for pattern, text in REMEDIES:
        if re.search(pattern, str(error)):
            return text.replace("ADDRESS", mlflow.get_tracking_uri())
    return None


@cache
def follow_moved_folder(database: Path) -> None:
    """Let the records of a database point to the `mlruns` beside it, if its folder was moved.

    MLflow keeps absolute paths. After a move or a copy of the project they lead to where it was:
    artifacts are not found, or are written to the other project. Called once a process.
    """
    if not database.is_file():
        return
    here = database.resolve().parent / "mlruns"
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for old in _former_folders(connection, here):
            _replace_paths(connection, str(old), str(here))
            note(f"{old.parent} was moved or copied: its records now name the files in {here}")


def _former_folders(connection: sqlite3.Connection, here: Path) -> list[Path]:
    """Folders `…/mlruns` on record that are gone, or whose runs are all `here` too."""
    try:
        found = connection.execute("select artifact_location from experiments").fetchall()
        runs = connection.execute("select artifact_uri from runs").fetchall()
    except sqlite3.Error:  # a database that has no tables yet, or of another program
        return []
    paths = [Path(text.removeprefix("file://")) for (text,) in found if text]
    former = {p.parent for p in paths if p.is_absolute() and p.parent.name == "mlruns"} - {here}
    artifacts = [Path(text.removeprefix("file://")) for (text,) in runs if text]

    def is_former(old: Path) -> bool:
        own = [path.relative_to(old) for path in artifacts if path.is_relative_to(old)]
        kept = [path for path in own if (old / path).is_dir()]
        copied = bool(kept) and all((here / path).is_dir() for path in kept)
        return copied or not old.parent.is_dir()

    return sorted(filter(is_former, former))


def _replace_paths(connection: sqlite3.Connection, old: str, new: str) -> None:
    columns = {
        "experiments": ["artifact_location"],
        "runs": ["artifact_uri"],
        "logged_models": ["artifact_location"],
        "model_versions": ["source", "storage_location"],
        "datasets": ["dataset_source"],
    }
    for table, names in columns.items():
        known: set[Any] = {row[1] for row in connection.execute(f"pragma table_info({table})")}
        for name in known.intersection(names):
            connection.execute(
                f"update {table} set {name} = replace({name}, ?, ?) where instr({name}, ?)",
                (f"{old}/", f"{new}/", f"{old}/"),
            )


def hide_params(database: Path, values: dict[str, str], run_id: str) -> None:
    """Replace params of a run, which MLflow can't change, in an sqlite database."""
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        connection.execute("pragma secure_delete = on")
        for name, value in values.items():
            connection.execute(
                "update params set value = ? where run_uuid = ? and key = ?", (value, run_id, name)
            )
