"""Placement: where jobs run, on this computer or on the nodes of a Ray cluster.

A slot is a place for one job at a time, with a GPU or a share of the cores.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

from pipeline.errors import InputError
from search.jobs import CHECK_DEVICE, gpus, job
from search.jobs.job import Outcome, Task

Run = Callable[..., Outcome]
"""`job.run`, or a function that is called as it and runs the job elsewhere."""
NODE_LOST = "its node, or the process of its slot there, was lost"
TRIES = 3
"""Times that a job is begun whose node is lost."""
PAUSE = 1.0
"""Seconds between two tries to get a free slot."""


class Slots(Protocol):
    """The slots of a command, open within a `with` block."""

    threads: int
    """Threads of a job."""

    def __enter__(self) -> "Slots": ...
    def __exit__(self, *error: object) -> None: ...

    def check(self) -> None:
        """Self-test the devices. Raises TrainingError."""

    def one(self) -> AbstractContextManager[Run | None]:
        """A slot for the block; None if none is free now."""


def slots(ray: str | None, wanted_gpus: str, workers: int) -> Slots:
    """Slots for `workers` jobs at a time by the settings `ray` and `gpus`. Raises InputError."""
    if ray is None:
        return LocalSlots(gpus.chosen(wanted_gpus), workers)
    try:
        from search.jobs.ray_slots import RaySlots
    except ImportError:
        remedy = "pip install -r requirements-ray.txt"
        raise InputError(f"ray={ray}: Ray is not installed; {remedy}") from None
    return RaySlots(ray, wanted_gpus, workers)


def run(slots: Slots, task: Task, *arguments: object, stop: threading.Event, **how: Any) -> Outcome:
    """Run a job in the next slot that is free; it is begun again if its node is lost."""
    tries = 0
    while not stop.is_set():
        with slots.one() as run_there:
            if run_there:
                tries += 1
                outcome = run_there(task, *arguments, stop=stop, **how)
                if outcome.text != NODE_LOST or tries == TRIES:
                    return outcome
        stop.wait(PAUSE)
    return Outcome("interrupted", text="interrupted")


class LocalSlots:
    """Slots of this computer: a GPU each, if there are any."""

    def __init__(self, names: list[str], workers: int) -> None:
        self.threads = job.threads_each(workers)
        self._gpus = gpus.Gpus(names, workers)

    def __enter__(self) -> "LocalSlots":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self) -> None:
        names = self._gpus.names
        environments = [gpus.environment(name) for name in names] or [{}]

        def test(environment: dict[str, str], stop: threading.Event) -> Outcome:
            return job.run(CHECK_DEVICE, "auto", stop=stop, environment=environment)

        outcomes = job.run_parallel(len(environments), test, environments)
        for name, outcome in zip(names or [""], outcomes, strict=True):
            job.value_of(outcome, f"the self-test of GPU {name}" if name else "the self-test")

    @contextmanager
    def one(self) -> Iterator[Run | None]:
        with self._gpus.one() as environment:
            yield partial(job.run, environment=environment)
