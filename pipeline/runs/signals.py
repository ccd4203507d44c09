"""Signal handling: the first SIGINT or SIGTERM becomes KeyboardInterrupt."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PROJECT_RUN = "MLFLOW_RUN_ID"
"""Environment variable with the run's id, set by `mlflow run` for the process that it starts."""
_mlflow_run: int | None = None  # the process id of the `mlflow run` that started this process
_interrupted = False
_deferred = False


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: the first becomes KeyboardInterrupt, those after it are ignored."""
    global _interrupted
    if not _interrupted:
        _interrupted = True
        if not _deferred:
            raise KeyboardInterrupt


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Defer KeyboardInterrupt to the end of the block.

    For writes to sqlite: an interrupted transaction leaves the database locked, and the results so
    far could not be saved.
    """
    global _deferred
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread
        yield
        return
    before, _deferred = _interrupted, True
    try:
        yield
    finally:
        _deferred = False
    if _interrupted and not before:
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Whether a signal was handled, even if a library caught or replaced KeyboardInterrupt."""
    return _interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into KeyboardInterrupt and ignore those after it.

    Says that the results are being saved.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if not _interrupted:
            print("\nstopping; the results so far are being saved", file=sys.stderr)
        interrupt(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handled(stop):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None] = interrupt) -> Iterator[None]:
    """Handle SIGINT and SIGTERM, also where they were ignored, and the end of `mlflow run`."""
    global _interrupted
    _watch_parent()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
        _interrupted = False


def remember_parent() -> None:
    """Remember the parent if it is `mlflow run`. To be called at the start of a command: the parent
    may end during the imports that follow, and joining the run may delete the variable."""
    global _mlflow_run
    _mlflow_run = os.getppid() if PROJECT_RUN in os.environ else None


def _watch_parent() -> None:
    """Stop this process when the `mlflow run` that started it is gone, which does not stop it."""
    if _mlflow_run is None:
        return

    def watch() -> None:
        while os.getppid() == _mlflow_run:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
