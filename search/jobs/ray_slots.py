"""Slots of a Ray cluster: actors, each of which holds a GPU or some cores of a node.

Ray places the actors, and tells when a node is lost. A job is a child process of its actor (without
Ray it is one of the command): a Ray worker that has trained does not always end properly.
(Of a machine that fell silent Ray's tasks failed after five minutes, its actors after one.)
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayActorError

from pipeline.errors import InputError, note, reason
from search.jobs import CHECK_DEVICE, gpus, job
from search.jobs.job import Outcome, Send, Task
from search.jobs.placement import NODE_LOST, Run

POLL = 1.0
"""Seconds that an actor waits for the next message of its job, and a command for its actor."""
PATIENCE = 30.0
"""Seconds without room for any slot after which the command says so."""
PASSED_ON = ("MLFLOW_", "KERAS_", "TF_", "XLA_", "OMP_")
"""Variables of the command's environment that jobs on other nodes get, by their beginnings."""


class _Slot:
    """The actor. Its methods are called one at a time, by the command."""

    def __init__(self, folder: str) -> None:
        with suppress(OSError):  # a node without the command's folder
            os.chdir(folder)
        self._messages: SimpleQueue[Any] = SimpleQueue()
        self._replies: SimpleQueue[Any] = SimpleQueue()
        self._stop = threading.Event()

    def ready(self) -> None:
        """Return as soon as the actor has its place."""

    def start(self, task: Task, arguments: tuple[object, ...], given: Mapping[str, str]) -> None:
        self._stop.clear()

        def work() -> None:
            how: Any = {"stop": self._stop, "on_message": self._ask, "environment": given}
            try:
                outcome = job.run(task, *arguments, **how)
            except Exception as error:
                outcome = Outcome("failed", text=f"{type(error).__name__}: {error}")
            self._messages.put(outcome)

        threading.Thread(target=work, daemon=True).start()

    def next(self) -> Any:
        """The job's next message or its outcome; None if there is none yet."""
        try:
            return self._messages.get(timeout=POLL)
        except Empty:
            return None

    def reply(self, value: object) -> None:
        self._replies.put(value)

    def stop(self) -> None:
        self._stop.set()

    def _ask(self, message: Any) -> Any:
        self._messages.put(message)
        return self._replies.get()


@dataclass(eq=False)
class _Place:
    """An actor as the command knows it."""

    actor: Any
    is_tested: bool = False
    is_lost: bool = False


class RaySlots:
    """`workers` actors; those for which there is no place wait for it, or for an autoscaler."""

    def __init__(self, address: str, wanted_gpus: str, workers: int) -> None:
        """Connect to the cluster. Raises InputError."""
        number = None if wanted_gpus == "auto" else _number(wanted_gpus)
        _connect(address)
        total = ray.cluster_resources()
        cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        self.threads = max(1, int(min(total.get("CPU", 0) // workers, max(cores, default=0))))
        number = float("GPU" in total) if number is None else number
        need = {"num_gpus": number, "num_cpus": 1 if number else self.threads}
        self._need = f"{number:g} GPUs" if number else f"{self.threads} cores"
        # Ray leaves all GPUs of a node visible to an actor that asked for none.
        self._own = {} if number else {gpus.VARIABLE: ""}
        self._make = ray.remote(_Slot).options(max_restarts=0, **need).remote
        self._workers = workers
        self._lock = threading.Lock()
        self._waiting: dict[Any, _Place] = {}  # by the reference of `ready`
        self._free: list[_Place] = []
        self._since = time.monotonic()

    def __enter__(self) -> "RaySlots":
        with self._lock:
            for _ in range(self._workers):
                self._open()
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()  # ends the actors, too

    def check(self) -> None:
        """Nothing: a slot tests its device before its first job."""

    @contextmanager
    def one(self) -> Iterator[Run | None]:
        place = self._take()
        if place is None:
            yield None
            return
        try:
            if not place.is_tested:
                outcome = self._run(place, CHECK_DEVICE, "auto", stop=threading.Event())
                if not place.is_lost:
                    job.value_of(outcome, "the self-test of a node")
                place.is_tested = True
            yield None if place.is_lost else partial(self._run, place)
        finally:
            with self._lock:
                if place.is_lost:
                    self._open()
                else:
                    self._free.append(place)

    def _open(self) -> None:
        """Ask for a further actor. Hold the lock."""
        place = _Place(self._make(str(Path.cwd())))
        self._waiting[place.actor.ready.remote()] = place

    def _take(self) -> _Place | None:
        with self._lock:
            refs = list(self._waiting)
            done = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
            self._free += [self._waiting.pop(ref) for ref in done]
            if len(self._waiting) < self._workers:
                self._since = time.monotonic()
            elif time.monotonic() - self._since > PATIENCE:
                self._since = float("inf")  # once is enough
                note(f"no node of the Ray cluster has {self._need} for a trial; waiting for one")
            return self._free.pop() if self._free else None

    def _run(
        self,
        place: _Place,
        task: Task,
        *arguments: object,
        stop: threading.Event,
        on_message: Send = lambda message: None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Run a job in an actor, as `job.run` does in this process."""
        given = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)} | self._own
        is_told = False
        actor = place.actor
        try:
            _wait(actor.start.remote(task, arguments, given), heartbeat)
            while True:
                if stop.is_set() and not is_told:
                    is_told = True
                    actor.stop.remote()
                message = _wait(actor.next.remote(), heartbeat)
                if isinstance(message, Outcome):
                    return message
                if message is not None:
                    actor.reply.remote(on_message(message))
        except RayActorError as error:
            place.is_lost = True
            if error.actor_init_failed:
                why = str(error).strip().splitlines()[-1]
                raise InputError(f"a node of the Ray cluster can't run trials ({why})") from None
            ray.kill(actor)  # it may only be out of reach
            return Outcome("killed", text=NODE_LOST)
        except BaseException:
            place.is_lost = True
            ray.kill(actor)
            raise


def _wait(reference: Any, heartbeat: Callable[[], None]) -> Any:
    """The value of a reference; a heartbeat at least every `POLL` seconds until it is there."""
    while not ray.wait([reference], timeout=POLL)[0]:
        heartbeat()
    heartbeat()
    return ray.get(reference)


def _number(wanted: str) -> float:
    """GPUs a job. Raises InputError."""
    try:
        number = float(wanted)
    except ValueError:
        number = -1.0
    if 0 <= number <= 1 or (number.is_integer() and number > 0):
        return number
    raise InputError(f"gpus={wanted}: with ray, GPUs a trial: auto, or a number such as 1 or 0.5")


def _connect(address: str) -> None:
    """Connect to a cluster, or start one on this computer. Raises InputError."""
    if ray.is_initialized():
        return
    if address != "auto":
        _require_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that is started here
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=None if address == "auto" else address,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"ray={address}: no Ray cluster answers ({reason(error, 150)})") from None
    finally:
        if is_main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray's own handler ends the process at once


def _require_answer(address: str) -> None:
    """Raise InputError if nobody answers there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        why = reason(error, 150)
        raise InputError(f"ray={address}: no Ray cluster answers at HOST:PORT ({why})") from None
