"""How a process ends: Ctrl-C, signals, a parent that is gone, and whether another one has ended."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

PROJECT_RUN = "MLFLOW_RUN_ID"
"""Environment variable in which `mlflow run` tells the process that it starts its run's id."""
_started_by_mlflow = PROJECT_RUN in os.environ  # as long as nobody has taken it away
_parent = os.getppid()  # now, since seconds of imports may come before anyone watches it


_interrupted = False
_shielded = False


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: the first becomes KeyboardInterrupt, those after it are ignored."""
    global _interrupted
    if not _interrupted:
        _interrupted = True
        if not _shielded:
            raise KeyboardInterrupt


@contextmanager
def shielded() -> Iterator[None]:
    """Put KeyboardInterrupt off to the end of the block, for a write to a database: one that is hit
    within a transaction stays locked, and what was reached could not be saved (sqlite)."""
    global _shielded
    if threading.current_thread() is not threading.main_thread():  # no signal falls there
        yield
        return
    before, _shielded = _interrupted, True
    try:
        yield
    finally:
        _shielded = False
    if _interrupted and not before:
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether `interrupt` has come. What it hits may swallow it, or make another error of it."""
    return _interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt and ignore those after it."""
    global _interrupted

    def stop(number: int, frame: FrameType | None) -> None:
        if not _interrupted:
            print("\nstopping; what was reached is being saved", file=sys.stderr)
        interrupt(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch_parent()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _interrupted = False


def _watch_parent() -> None:
    """Stop when the `mlflow run` that started this process is gone: it takes no child along."""
    if not _started_by_mlflow:
        return

    def watch() -> None:
        while os.getppid() == _parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def this_process() -> str:
    return _process_name(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process that `this_process` named is one of this host and has ended."""
    return _is_here(process) and not _is_alive(process)


def is_running(process: str) -> bool:
    """Whether a process that `this_process` named is one of this host and has not ended."""
    return _is_here(process) and _is_alive(process)


def _is_here(process: str) -> bool:
    return process.startswith(f"{socket.gethostname()}:")


def _process_name(pid: int) -> str:
    """host:pid:start, which no later process shares; psutil raises if there is none."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.0f}"


def _is_alive(process: str) -> bool:
    _, pid, started = process.split(":")
    try:
        found = psutil.Process(int(pid))
        if found.status() == psutil.STATUS_ZOMBIE:  # ended, and its parent has not noticed yet
            return False
        # The start is reckoned from the clock, which may have been set since.
        return abs(found.create_time() - float(started)) < 5
    except psutil.NoSuchProcess:
        return False
