"""The database of studies: its engine, and calls that outlast an outage of its server."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sql
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from pipeline import secrets
from pipeline.errors import InputError, reason
from pipeline.runs import signals

Result = TypeVar("Result")
SQLITE = "sqlite:"
SQLITE_PATIENCE = 60
"""Seconds that a writer waits for a lock; sqlite's default of 5 is too short for many workers."""
OUTAGE = 300.0
"""Seconds for which a call is tried again while the server of the database does not answer."""
PAUSES = (0.5, 10.0)
"""Seconds between two tries: the first pause, and the longest."""

_calls = threading.local()


def engine_options(address: str) -> dict[str, Any]:
    """Options of SQLAlchemy for a database of studies."""
    if address.startswith(SQLITE):
        return {"connect_args": {"timeout": SQLITE_PATIENCE}}
    return {"pool_pre_ping": True}


def make_engine(address: str) -> sql.Engine:
    return sql.create_engine(address, **engine_options(address))


def unreachable(address: str, error: BaseException) -> InputError:
    """InputError for a database that can't be opened, or is lost later."""
    why = reason(error.__cause__ or error, 150)
    return InputError(f"storage={secrets.masked(address)}: can't be used ({why})")


def patiently(
    address: str,
    call: Callable[[], Result],
    has_arrived: Callable[[], Result | None] = lambda: None,
) -> Result:
    """Call `call`, again and again for `OUTAGE` seconds if the connection is lost.

    A connection may be lost after the database has done what it was asked: before each further try
    `has_arrived` returns the result then, else None. Raises InputError if the database fails.
    """
    if getattr(_calls, "nested", False):  # the outer call is tried again
        return call()
    _calls.nested = True
    deadline = time.monotonic() + OUTAGE
    pause, tries = PAUSES[0], 0
    try:
        while True:
            try:
                arrived = has_arrived() if tries else None
                return call() if arrived is None else arrived
            except (SQLAlchemyError, StorageInternalError) as error:
                over = time.monotonic() + pause > deadline or signals.was_interrupted()
                if not _is_outage(address, error) or over:
                    raise unreachable(address, error) from error
            tries += 1
            if tries == 3:
                where = secrets.masked(address)
                print(
                    f"storage={where} does not answer; trying again for {OUTAGE:.0f} s",
                    file=sys.stderr,
                )
            time.sleep(pause)
            pause = min(2 * pause, PAUSES[1])
    finally:
        _calls.nested = False


def _is_outage(address: str, error: BaseException) -> bool:
    """Whether a server of a database was lost, or refuses connections, for example as it starts."""
    if address.startswith(SQLITE):
        return False
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
    return lost or isinstance(cause, (OperationalError, InterfaceError))
