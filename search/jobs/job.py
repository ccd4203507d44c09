"""Jobs: functions that run in a child process each.

Memory is freed after every job, and a killed job does not stop the others. A job sends messages
and finally its outcome to the parent process over a pipe.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from mlflow.exceptions import MlflowException

from pipeline import registry
from pipeline.errors import InputError, Pruned, TrainingError, print_any_character, reason
from pipeline.runs import signals

Item = TypeVar("Item")
Result = TypeVar("Result")
Task = str | Callable[..., Any]
"""A function, or its reference `package.module:name`, imported only in the child process."""
Send = Callable[[Any], Any]
"""Function with which a job sends a message to the parent process; returns the reply."""

# Imported once by the fork server, which is forked for each job: 0.02 s instead of 5 s of imports.
# MLflow imports the others when it opens a store or starts a run. Only on Linux, where forking is
# safe.
PRELOADED = [
    "search.jobs.tasks",
    "git",
    "mlflow.system_metrics.system_metrics_monitor",
    "mlflow.tracking.request_header.registry",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.db.utils",
    "alembic.command",
]


@dataclass(frozen=True)
class Outcome:
    """Result of a job: `value` is the return value, `text` the reason if there is none.

    refused: an environment error (missing dataset, unreachable server, full disk), which does not
    count against the hyperparameters.
    """

    kind: Literal["returned", "pruned", "failed", "refused", "killed", "interrupted"]
    value: Any = None
    text: str = ""


def run(
    task: Task,
    *arguments: object,
    stop: threading.Event,
    on_message: Send = lambda message: None,
    heartbeat: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Outcome:
    """Run `task(send, *arguments)` in a child process and wait until it has ended.

    `on_message` is called with each message of the job and returns the reply; `heartbeat` is called
    at least every second. When `stop` is set, or one of the two raises, the job is interrupted as
    by Ctrl-C. `environment` is added to that of this process.
    """
    connection, child = _start(task, arguments, environment)
    try:
        outcome = _receive(connection, child, stop, on_message, heartbeat)
    except BaseException:
        child.terminate()
        raise
    finally:
        child.join()
        connection.close()
    if outcome:
        return outcome
    kind: Any = "interrupted" if stop.is_set() else "killed"
    return Outcome(kind, text=_exit_text(child.exitcode or 0))


def threads_each(workers: int) -> int:
    """Threads for each of `workers` parallel trainings, which together use all cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // workers)


def run_single(task: Task, *arguments: object, name: str) -> Any:
    """Run `task` as the only job and return its value; raises as `value_of` does."""
    [outcome] = run_parallel(1, lambda _, stop: run(task, *arguments, stop=stop), [None])
    return value_of(outcome, name)


def value_of(outcome: Outcome, name: str) -> Any:
    """Return the job's value, or raise the exception that its outcome stands for.

    Raises KeyboardInterrupt, InputError (refused), or TrainingError, naming the job.
    """
    if outcome.kind == "interrupted":
        raise KeyboardInterrupt
    if outcome.kind == "refused":
        raise InputError(outcome.text)
    if outcome.kind != "returned":
        raise TrainingError(f"{name}: {outcome.text}; the same command continues from here")
    return outcome.value


def run_parallel(
    workers: int, work: Callable[[Item, threading.Event], Result], items: Iterable[Item]
) -> list[Result]:
    """Call `work(item, stop)` for each item in `workers` threads; results in the order of `items`.

    Ctrl-C, or an error in one of them, sets `stop` and is raised here once all have ended.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, item, stop) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if failed := [future for future in done if future.exception()]:
                failed[0].result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _start(
    task: Task, arguments: tuple[object, ...], environment: Mapping[str, str]
) -> tuple[Connection, Any]:
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(PRELOADED)
    connection, child_connection = context.Pipe()
    child = context.Process(
        target=_work, args=(child_connection, {**os.environ, **environment}, task, arguments)
    )
    child.start()
    child_connection.close()
    return connection, child


def _receive(
    connection: Connection,
    child: Any,
    stop: threading.Event,
    on_message: Send,
    heartbeat: Callable[[], None],
) -> Outcome | None:
    """Reply to the job's messages until its outcome; None if its process ended without one."""
    stopping = False
    while True:
        heartbeat()
        if stop.is_set() and not stopping:
            stopping = True
            child.terminate()
        try:
            if connection.poll(timeout=1):
                message = connection.recv()
                if isinstance(message, Outcome):
                    return message
                connection.send(on_message(message))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return None


def _exit_text(exit_code: int) -> str:
    if exit_code < 0:
        return f"its process was killed by {signal.Signals(-exit_code).name}"
    return f"its process ended with status {exit_code}"


def _work(
    child_connection: Connection,
    environment: dict[str, str],
    task: Task,
    arguments: tuple[object, ...],
) -> None:
    """Main function of the child process."""
    # The fork server has the environment of its first job.
    os.environ.clear()
    os.environ.update(environment)
    print_any_character()
    # Ctrl-C reaches all processes of a terminal; only the parent forwards it, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signals.interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # By default a backend allocates most of a GPU's memory, which the workers share.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def send(message: Any) -> Any:
        try:
            child_connection.send(message)
            return child_connection.recv()
        except (EOFError, OSError):
            raise KeyboardInterrupt from None  # the parent is gone

    try:
        function = registry.load(task, {}, "task") if isinstance(task, str) else task
        outcome = Outcome("returned", function(send, *arguments))
    except Pruned as pruned:
        outcome = Outcome("pruned", text=str(pruned))
    except KeyboardInterrupt:
        outcome = Outcome("interrupted", text="interrupted")
    except (InputError, OSError, MlflowException) as error:
        outcome = Outcome("refused", text=reason(error, 300))
    except TrainingError as error:
        outcome = Outcome("failed", text=str(error))
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome("failed", text=f"{type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
        child_connection.send(outcome)


def _end_with_parent() -> None:
    """Stop this process when its parent has ended, for example was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
