"""Leases in a study's database: what one process at a time does, of all machines that use it.

A lease is a row, renewed by its holder. Another process takes it when the holder is gone from this
machine, or has not renewed it for `TERM` seconds by the clock of the one that waits. So the clocks
of machines need not agree. Rows are changed by single statements that name the content replaced,
of which a database lets one succeed.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pipeline.errors import InputError
from pipeline.runs import process
from search.studies.database import make_engine, patiently, unreachable

RENEWAL = 10.0
"""Seconds between two renewals of a lease."""
TERM = 60.0
"""Seconds without a renewal after which a lease of another machine may be taken."""
POLL = (0.02, 1.0)
"""Seconds between two reads of a lease of another process: the first, and the most."""
FREE = ""
"""Token of a lease that nobody holds."""

LEASES = sql.Table(
    "emotion_search_leases",
    sql.MetaData(),
    sql.Column("study", sql.String(512), primary_key=True),
    sql.Column("purpose", sql.String(20), primary_key=True),
    sql.Column("token", sql.String(32), nullable=False),
    sql.Column("owner", sql.String(255), nullable=False),
    sql.Column("renewals", sql.BigInteger, nullable=False),
)


class Lease:
    """A lease that this process holds."""

    def __init__(self, leases: "Leases", where: Any, token: str) -> None:
        self._leases, self._mine = leases, where & (LEASES.c.token == token)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_often, daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Renew. Raises InputError if another process has taken the lease, as this one stood still.

        To be called before what must not be done twice.
        """
        if not self._renew():
            raise InputError(
                "another process has taken over, since this one stood still for more than "
                f"{TERM:.0f} s; the same command continues"
            )

    def give_back(self) -> None:
        self._ended.set()
        self._thread.join()
        self._leases.change(self._mine, token=FREE, owner="")

    def _renew(self) -> bool:
        return self._leases.change(self._mine, renewals=LEASES.c.renewals + 1)

    def _renew_often(self) -> None:
        while not self._ended.wait(RENEWAL):
            try:
                if not self._renew():
                    return
            except InputError:  # no database for minutes; whoever calls `require` will see it
                continue


class Leases:
    """The leases of one database; the table is made if there is none. Raises InputError."""

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._engine = make_engine(address)
            _create_table(self._engine)
        except (SQLAlchemyError, ImportError) as error:
            raise unreachable(address, error) from error

    @contextmanager
    def hold(
        self,
        study: str,
        purpose: str,
        *,
        on_wait: Callable[[str], None] = lambda owner: None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Iterator[Lease | None]:
        """Hold a lease for the block; None if `give_up()` held while another process had it.

        `on_wait` is called once, with the name of the process that has it (host:pid:start).
        """
        where = (LEASES.c.study == study) & (LEASES.c.purpose == purpose)
        token = uuid.uuid4().hex
        if not self._wait(study, purpose, where, token, on_wait, give_up):
            yield None
            return
        lease = Lease(self, where, token)
        try:
            yield lease
        finally:
            lease.give_back()

    def change(self, where: Any, **values: Any) -> bool:
        """Change the row at `where`; whether there was one."""

        def update() -> bool:
            with self._engine.begin() as connection:
                return (
                    connection.execute(sql.update(LEASES).where(where).values(values)).rowcount > 0
                )

        return patiently(self._address, update)

    def _wait(
        self,
        study: str,
        purpose: str,
        where: Any,
        token: str,
        on_wait: Callable[[str], None],
        give_up: Callable[[], bool],
    ) -> bool:
        """Wait for a lease and take it under `token`; False if `give_up()` came before."""
        seen: Any = None
        since = last = time.monotonic()
        pause = POLL[0]
        told = False
        mine = {"token": token, "owner": process.this_process(), "renewals": 0}
        while True:
            row = self._read(where)
            now = time.monotonic()
            if row is None:
                if self._insert({"study": study, "purpose": purpose, **mine}):
                    return True
                continue
            # After a gap between reads, as in an outage, the holder gets the whole term again.
            if row != seen or now - last > 2 * RENEWAL:
                seen, since = row, now
            last = now
            is_over = row.token == FREE or process.is_gone(row.owner) or now - since > TERM
            same = (LEASES.c.token == row.token) & (LEASES.c.renewals == row.renewals)
            if is_over and self.change(where & same, **mine):
                return True
            if give_up():
                return False
            if not told and pause >= POLL[1]:
                told = True
                on_wait(row.owner)
            time.sleep(pause)
            pause = min(2 * pause, POLL[1])

    def _read(self, where: Any) -> Any:
        def read() -> Any:
            with self._engine.connect() as connection:
                columns = (LEASES.c.token, LEASES.c.owner, LEASES.c.renewals)
                return connection.execute(sql.select(*columns).where(where)).first()

        return patiently(self._address, read)

    def _insert(self, row: dict[str, Any]) -> bool:
        """Insert a row; False if another process was sooner."""

        def insert() -> bool:
            try:
                with self._engine.begin() as connection:
                    connection.execute(sql.insert(LEASES).values(row))
            except sql.exc.IntegrityError:
                return False
            return True

        return patiently(self._address, insert)


def _create_table(engine: sql.Engine) -> None:
    """Create the table. Of several processes that do so at once PostgreSQL refuses all but one."""
    try:
        LEASES.create(engine, checkfirst=True)
    except DBAPIError:
        if not sql.inspect(engine).has_table(LEASES.name):
            raise
