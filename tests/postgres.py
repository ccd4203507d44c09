"""A PostgreSQL server of a test's own, on loopback, with its own data folder."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.commands import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
MISSING = not PROGRAMS or importlib.util.find_spec("psycopg") is None
"""Whether PostgreSQL, or its driver, is not installed."""


class Server:
    """A server that can be stopped and started; its database is `postgres`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.address = f"postgresql+psycopg://me@127.0.0.1:{self._port}/postgres"
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        self._run(
            "initdb", "--username", "me", "--no-sync", "--locale", "C", "-E", "UTF8", "-A", "trust"
        )

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        self._run("pg_ctl", "start", "-w", "-l", f"{self._folder}/log", "-o", options)

    def stop(self) -> None:
        """Stop as a restart does: connections are ended."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    def _run(self, program: str, *arguments: str) -> None:
        user = "nobody" if os.geteuid() == 0 else None
        subprocess.run(
            [PROGRAMS[-1].parent / program, "-D", self._folder / "data", *arguments],
            user=user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def server() -> Iterator[Server]:
    """A server that runs for the block."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        running = Server(folder)
        running.start()
        yield running
        running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
