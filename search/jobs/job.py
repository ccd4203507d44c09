"""Jobs: functions that run in a process of their own.

So memory can't grow from one to the next, and a kill hits one alone.

Over a pipe a job sends messages to the process that started it and, in the end, its outcome.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from typing import Any, Literal, TypeVar

from mlflow.exceptions import MlflowException

from pipeline import registry
from pipeline.errors import InputError, Pruned, TrainingError
from pipeline.runs import signals

Item = TypeVar("Item")
Result = TypeVar("Result")
Task = str | Callable[..., Any]
"""A function, or its place, `package.module:name`, which is imported by the job's process alone."""
Tell = Callable[[Any], Any]
"""What a job calls to tell something to the process that started it; returns the answer."""

# Imported once by a server, which is forked for each job: 5 s of imports become 0.02 s. The last
# three are what MLflow imports when it opens its store. Elsewhere than on Linux a fork is not safe.
PRELOADED = [
    "search.jobs.tasks",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.db.utils",
    "alembic.command",
]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `value` is what it returned, `text` why it did not.

    refused: by what is never the fault of the settings that are tried: the dataset is gone, the
    server is down, the disk is full.
    """

    kind: Literal["returned", "pruned", "failed", "refused", "killed", "interrupted"]
    value: Any = None
    text: str = ""


def run(
    task: Task,
    *arguments: object,
    stop: threading.Event,
    answer: Tell = lambda message: None,
    beat: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run `task(tell, *arguments)` in a process of its own and wait until it has ended.

    `answer` is called with what the job tells, `beat` at least every second. Once `stop` is set,
    or when `answer` or `beat` raises, the job is interrupted as by Ctrl-C.
    """
    ours, child = _start(task, arguments)
    try:
        outcome = _converse(ours, child, stop, answer, beat)
    except BaseException:
        child.terminate()
        raise
    finally:
        child.join()
        ours.close()
    if outcome:
        return outcome
    kind: Any = "interrupted" if stop.is_set() else "killed"
    return Outcome(kind, text=_ending(child.exitcode or 0))


def threads_each(workers: int) -> int:
    """Threads for each of `workers` trainings at a time, so that together they use every core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // workers)


def alone(task: Task, *arguments: object, what: str) -> Any:
    """What `task` returns, run in a process of its own; raises as `returned` does."""
    [outcome] = side_by_side(1, lambda _, stop: run(task, *arguments, stop=stop), [None])
    return returned(outcome, what)


def returned(outcome: Outcome, what: str) -> Any:
    """The value of an outcome; raises KeyboardInterrupt, InputError or TrainingError else."""
    if outcome.kind == "interrupted":
        raise KeyboardInterrupt
    if outcome.kind == "refused":
        raise InputError(outcome.text)
    if outcome.kind != "returned":
        raise TrainingError(f"{what}: {outcome.text}; the same command goes on from here")
    return outcome.value


def side_by_side(
    workers: int, work: Callable[[Item, threading.Event], Result], items: Iterable[Item]
) -> list[Result]:
    """`work(item, stop)` for each item, in `workers` threads; results in the order of `items`.

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


def _start(task: Task, arguments: tuple[object, ...]) -> tuple[Connection, Any]:
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    child = context.Process(target=_work, args=(theirs, dict(os.environ), task, arguments))
    child.start()
    theirs.close()
    return ours, child


def _converse(
    ours: Connection, child: Any, stop: threading.Event, answer: Tell, beat: Callable[[], None]
) -> Outcome | None:
    """Answer the job until it tells its outcome; None if its process ended without one."""
    told_to_stop = False
    while True:
        beat()
        if stop.is_set() and not told_to_stop:
            told_to_stop = True
            child.terminate()
        try:
            if ours.poll(timeout=1):
                message = ours.recv()
                if isinstance(message, Outcome):
                    return message
                ours.send(answer(message))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return None


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        return f"its process was killed by {signal.Signals(-exit_code).name}"
    return f"its process ended with status {exit_code}"


def _work(
    theirs: Connection,
    environment: dict[str, str],
    task: Task,
    arguments: tuple[object, ...],
) -> None:
    """The whole life of the job's process."""
    # The server that this process is forked from has the environment of its first job.
    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C reaches every process of a terminal; the one that started this one passes it on, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signals.interrupt)
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    # A backend takes all, or most, of a GPU's memory unless told otherwise; workers share it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    def tell(message: Any) -> Any:
        try:
            theirs.send(message)
            return theirs.recv()
        except (EOFError, OSError):
            raise KeyboardInterrupt from None  # the starter is gone

    try:
        function = registry.load(task, {}, "task") if isinstance(task, str) else task
        outcome = Outcome("returned", function(tell, *arguments))
    except Pruned as reason:
        outcome = Outcome("pruned", text=str(reason))
    except KeyboardInterrupt:
        outcome = Outcome("interrupted", text="interrupted")
    except (InputError, OSError, MlflowException) as error:
        outcome = Outcome("refused", text=" ".join(str(error).split())[:300])
    except TrainingError as error:
        outcome = Outcome("failed", text=str(error))
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome("failed", text=f"{type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
        theirs.send(outcome)


def _end_with_the_starter() -> None:
    """Without it a job would train on, for nobody, when the process that started it is killed."""
    starter = parent_process()
    if starter is not None:
        starter.join()
        os.kill(os.getpid(), signal.SIGTERM)
