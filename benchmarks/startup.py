"""Time from `mlflow run . -e train` to the first batch, by step.

    python -m benchmarks.startup --data INGEST_RUN_ID_OR_FOLDER

`mlflow run` itself is timed from outside, until it prints the command that it runs; the other steps
run in a new process, as in `pipeline.train`. Both write to a temporary store.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import processor
from pipeline.data import dataset
from pipeline.runs import addresses, queries, tracking
from pipeline.settings import TrainSettings
from pipeline.training import device
from pipeline.training.fit import fit
from pipeline.training.self_test import self_test

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Startup:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    n: int = 3
    """Starts measured."""
    steps: bool = False
    """Run the steps once and print their seconds (used by the benchmark itself)."""


def mlflow_run(data: str) -> float:
    """Seconds until `mlflow run` starts the project's command, which is then terminated."""
    command = ["mlflow", "run", str(ROOT), "-e", "train", "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The line that the seconds are counted to is one of MLflow's at this level.
    environment = {**os.environ, "PATH": path, "MLFLOW_LOGGING_LEVEL": "INFO"}
    started = time.perf_counter()
    child = subprocess.Popen(
        [*command, "-P", f"data={data}"], env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    for line in child.stderr:
        if "Running command" in line:
            break
    else:
        raise SystemExit("`mlflow run` ended without the line that says what it runs")
    seconds = time.perf_counter() - started
    os.killpg(child.pid, signal.SIGTERM)  # its command too, which would not notice the end so early
    child.stderr.read()
    child.wait()
    return seconds


def take_steps(data: str) -> None:
    """Run the steps of `pipeline.train` up to the first batch, and print the seconds of each."""
    marks: dict[str, float] = {}
    last = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        marks[name], last = now - last, now

    marks["Python's start and all imports"] = time.time() - psutil.Process().create_time()
    with tracking.record("train", TrainSettings(data=data)):
        mark("open the store, start the run")
        precision = device.choose_precision("auto", device.describe(device.use_threads(0)))
        self_test(precision)
        mark("self-test of the device")
        faces = dataset.load_without_test(addresses.dataset_folder(data))
        mark("load the faces, check their digest")

        def stop(*_: int) -> None:
            mark("build, compile, first batch")
            raise KeyboardInterrupt

        fit(TrainSettings(), faces, precision=precision, on_batch=stop)
    print(json.dumps(marks))


def main(startup: Startup) -> None:
    if startup.steps:
        take_steps(startup.data)
        return

    data = str(addresses.dataset_folder(startup.data).resolve())
    command = [sys.executable, "-m", __spec__.name, "--data", data, "--steps"]
    starts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as store:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        queries.use_store()  # creates the tables, which are not part of a start
        for _ in range(startup.n):
            seconds = mlflow_run(data)
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            steps = json.loads(done.stdout.splitlines()[-1])
            starts.append({"mlflow run itself": seconds} | steps)
    show(starts)


def show(starts: list[dict[str, float]]) -> None:
    """Print the median of each step's seconds."""
    title = "mlflow run . -e train, to the first batch"
    table = Table("step", "seconds (min-max)", title=title)
    rows = {name: [one[name] for one in starts] for name in starts[0]}
    for name, values in rows.items():
        table.add_row(
            name, f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"
        )
    table.add_row("all", f"{sum(map(statistics.median, rows.values())):.1f}")
    Console().print(table, f"n={len(starts)}, {processor()}")


if __name__ == "__main__":
    main(tyro.cli(Startup))
