"""Trials a minute of a study, and the CPU time that a trial costs beside its training.

    python -m benchmarks.throughput --workers 1 2 4 8 16

Trials sleep instead of training. They are proposed, placed, reported after each epoch and recorded
as real ones are; the study is not ended. Efficiency is the share of the time of the workers in
which their trials sleep. The study lies in `--storage` and its records where MLFLOW_TRACKING_URI
points to, by default both in a temporary folder. CPU time is that of this command and its trials,
and that of the servers on this machine whose process ids are given.
"""

import os
import tempfile
import time
from contextlib import chdir, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import processor, run, sleeping
from pipeline.data import UNASSIGNED
from pipeline.data.dataset import Faces, save
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble
from pipeline.runs import queries, tracking
from search.jobs import job
from search.settings import SearchSettings
from search.studies import storage, trial
from search.studies.deadline import Deadline
from search.studies.display import Display
from search.studies.lease import Leases
from search.studies.plan import Plan
from search.studies.study import Worker, open_study, prepare

FACES = 280
EPOCHS = 10


@dataclass(frozen=True)
class Throughput:
    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Trials at a time, each measured on its own."""
    seconds: float = 10.0
    """Seconds that a trial sleeps."""
    rounds: int = 3
    """Trials of each worker."""
    storage: str = "sqlite:///optuna.db"
    """Database of the studies."""
    servers: tuple[int, ...] = ()
    """Process ids of MLflow's server and of PostgreSQL, if they run on this machine."""


@dataclass(frozen=True)
class Result:
    """Measured of one number of workers; CPU seconds are those of all trials."""

    trials: int
    seconds: float
    command: float
    servers: float


def cpu_seconds(*roots: int) -> float:
    """CPU seconds of processes and their descendants, ended ones included."""
    found = [psutil.Process(root) for root in roots]
    total = 0.0
    for one in {*found, *(child for root in found for child in root.children(recursive=True))}:
        with suppress(psutil.NoSuchProcess):
            total += sum(one.cpu_times()[:4])  # user and system, its own and of ended children
    return total


def measure(options: Throughput, workers: int, data: str) -> Result:
    """Run a study of sleeping trials up to its end."""
    settings = SearchSettings(
        study=f"{workers} workers since {time.time():.0f}", workers=workers,
        trials=workers * options.rounds, storage=options.storage, data=data,
        epochs=EPOCHS, fix=f"epochs={EPOCHS}", grid="none", sampler="random", pruner="none",
    )  # fmt: skip
    leases, database = Leases(settings.storage), storage.open_storage(settings.storage)
    study = open_study(settings, database)
    with tracking.record("study", settings, name=settings.study) as parent:
        plan = Plan(settings, prepare(study, settings, parent), {})
        with plan.slots as slots, Display(plan, Deadline(0)) as display:
            slots.check()  # starts the fork server, too
            threads = [
                Worker(number, plan, database, leases, parent.id, Deadline(0), display)
                for number in range(workers)
            ]
            before = cpu_seconds(os.getpid()), cpu_seconds(*options.servers)
            begin = time.perf_counter()
            job.run_parallel(workers, Worker.run, threads)
            seconds = time.perf_counter() - begin
            after = cpu_seconds(os.getpid()), cpu_seconds(*options.servers)
    return Result(settings.trials, seconds, after[0] - before[0], after[1] - before[1])


def main(options: Throughput) -> None:
    job.PRELOADED.extend(["benchmarks.sleeping", "search.studies.study", "rich.table"])
    # The fork server, which imports once for all trials, looks for modules in its working folder.
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *os.environ.get("PYTHONPATH", "").split()])
    trial.TRAIN_TRIAL = partial(sleeping.train_trial, options.seconds / EPOCHS)  # type: ignore
    images, labels = draw(FACES)
    faces = Faces(images, labels, np.full(FACES, UNASSIGNED, np.uint8))
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        queries.use_store()
        save(assemble(faces, source="drawn", policy="report", seed=0), Path("faces"))
        data = str(Path("faces").resolve())
        load = os.getloadavg()[0]
        results = {n: measure(options, n, data) for n in options.workers}
    show(options, results, load)


def show(options: Throughput, results: dict[int, Result], load: float) -> None:
    title = f"trials that sleep {options.seconds:g} s"
    columns = ("workers", "trials", "trials a minute", "efficiency", "CPU s a trial: command")
    table = Table(*columns, "servers", title=title)
    for workers, one in results.items():
        rate = one.trials / one.seconds
        table.add_row(
            str(workers), str(one.trials), f"{60 * rate:.1f}",
            f"{rate * options.seconds / workers:.2f}", f"{one.command / one.trials:.2f}",
            f"{one.servers / one.trials:.2f}" if options.servers else "",
        )  # fmt: skip
    Console().print(table, f"load before {load:.1f}, {processor()}")


if __name__ == "__main__":
    run(main, Throughput)
