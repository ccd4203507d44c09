"""Commands as a user types them: started cold, or forked from a process that has the imports.

A cold start of a command that trains costs 8 CPU seconds of imports. On Linux `multiprocessing` has
a fork server, which imports once and is forked for each process. The search uses it for its trials
(search/jobs/job.py); here it also starts whole commands. A forked command has a session of its own
and the working folder, environment and output files that it is given. Signals, kills and exit
statuses are those of a real process. The trials of a forked study come from the same server.
"""

import atexit
import contextlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300
"""Seconds after which a command, or a wait for it, counts as hung; a busy machine is no failure."""
PRELOADED = [
    "tests.commands", "pipeline.steps.checks", "pipeline.steps.main", "pipeline.steps.predict",
    "search.comparisons.compare", "search.grids.grid_runs", "search.studies.study", "mlflow.cli",
]  # fmt: skip
"""What the fork server imports for the commands, beside what it imports for trials."""


class Process(Protocol):
    """What is used here of `subprocess.Popen` and of a forked process."""

    @property
    def pid(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...


class Child:
    """`python -m MODULE ARGUMENTS …` that is running, for `LIMIT` seconds at most."""

    def __init__(
        self, module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str],
        *, cold: bool = False,
    ) -> None:  # fmt: skip
        self._outputs = [tempfile.NamedTemporaryFile(suffix=".txt") for _ in range(2)]  # noqa: SIM115
        start = _start if cold or sys.platform != "linux" else _fork
        names = [file.name for file in self._outputs]
        self.process: Process = start(module, arguments, folder, environment, names)
        self._limit = threading.Timer(LIMIT, self.kill)
        self._limit.daemon = True
        self._limit.start()

    @property
    def stdout(self) -> str:
        return Path(self._outputs[0].name).read_text()

    @property
    def stderr(self) -> str:
        return Path(self._outputs[1].name).read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command's own process, unless it has ended."""
        if self.process.poll() is None and self.process.pid:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill the command and what it has started in its session."""
        if self.process.poll() is None and self.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, text: str) -> None:
        """Wait until the command says `text`, on either stream."""
        until(lambda: text in self.stdout + self.stderr or self.process.poll() is not None)
        said = f"{self.stdout}\n{self.stderr}"
        assert text in said, f"ended without saying {text!r}:\n{said}"

    def end(self) -> int:
        """Wait for the end of the command; its exit status."""
        return self.process.wait(LIMIT)

    def close(self) -> None:
        self._limit.cancel()
        self.kill()
        self.end()
        for file in self._outputs:
            file.close()


def until(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` holds; what it returned."""
    deadline = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(
    module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str],
    outputs: Sequence[str],
) -> Process:  # fmt: skip
    with Path(outputs[0]).open("w") as stdout, Path(outputs[1]).open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=folder, env=environment,
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip


def _fork(
    module: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str],
    outputs: Sequence[str],
) -> Process:  # fmt: skip
    with contextlib.chdir(ROOT):  # a server that starts here imports the project from where it is
        forkserver.ensure_running()
    given = (module, list(arguments), str(folder), dict(environment), list(outputs))
    forked = _Forked(target=_run, args=given)
    forked.start()
    return forked


class _Forked(ForkServerProcess):
    """A process that the fork server is forked for, with the names of `subprocess.Popen`."""

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float) -> int:
        self.join(timeout)
        assert self.exitcode is not None, "it did not end in time"
        return self.exitcode


def _run(
    module: str, arguments: list[str], folder: str, environment: dict[str, str], outputs: list[str]
) -> None:
    """The whole life of a forked command."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in enumerate(outputs, start=1):
        os.dup2(os.open(name, os.O_WRONLY), descriptor)
    # Without this the command's own jobs would get a fork server, and its imports, of their own.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
    sys.argv = ["-m", *arguments]
    sys.path.insert(0, folder)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
