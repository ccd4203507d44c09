"""Signal handling: SIGINT and SIGTERM become KeyboardInterrupt, once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PROJECT_RUN = "MLFLOW_RUN_ID"
"""Environment variable in which `mlflow run` tells the process that it starts its run's id."""
_mlflow_run: int | None = None  # the process id of the `mlflow run` that started this process
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


def remember_parent() -> None:
    """Keep the parent if it is `mlflow run`: to be called at the start of a command, since seconds
    of imports come before `interruptible` watches it, and a study takes the variable away."""
    global _mlflow_run
    _mlflow_run = os.getppid() if PROJECT_RUN in os.environ else None


def _watch_parent() -> None:
    """Stop when the `mlflow run` that started this process is gone: it takes no child along."""
    if _mlflow_run is None:
        return

    def watch() -> None:
        while os.getppid() == _mlflow_run:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
