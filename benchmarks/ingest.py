"""Time and memory to read FER2013's CSV: this project's reader and the usual notebook code.

    python -m benchmarks.ingest fer2013.csv

The notebook code uses pandas, then a list of ints for each row. Each reading runs in a new process,
alternating; the times exclude imports and compilation.
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import processor
from pipeline.data.fer_csv import read_csv


@dataclass(frozen=True)
class Reading:
    csv: Annotated[Path, tyro.conf.Positional]
    """The CSV to read."""
    n: int = 5
    """Readings of each side."""
    way: str = ""
    """Read once with this reader and print the seconds (used by the benchmark itself)."""


def notebook(csv: Path) -> None:
    table = pd.read_csv(csv)
    rows = [list(map(int, row.split())) for row in table["pixels"]]
    np.array(rows, np.uint8).reshape(-1, 48, 48)


def ours(csv: Path) -> None:
    read_csv(csv)


WAYS = {"notebook": notebook, "ours": ours}


def read_once(reading: Reading) -> None:
    with tempfile.TemporaryDirectory() as folder:  # numba compiles, or loads from its cache
        one = Path(folder) / "one.csv"
        one.write_text("emotion,pixels\n0," + " ".join(["0"] * 2304) + "\n")
        read_csv(one)
    started = time.perf_counter()
    WAYS[reading.way](reading.csv)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main(reading: Reading) -> None:
    if reading.way:
        read_once(reading)
        return
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(reading.n):
        for way in WAYS:
            command = [sys.executable, "-m", __spec__.name, str(reading.csv), "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[way].append(json.loads(done.stdout))
    size = reading.csv.stat().st_size / 1e6
    table = Table("way", "seconds (min-max)", "peak GiB", "ratio", title=f"{size:,.0f} MB")
    ratios = [
        a["seconds"] / b["seconds"]
        for a, b in zip(results["notebook"], results["ours"], strict=True)
    ]
    for way, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        table.add_row(
            way,
            f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})",
            f"{max(run['peak'] for run in runs):.2f}",
            f"{statistics.median(ratios):.1f}" if way == "ours" else "1",
        )
    Console().print(table, f"n={reading.n}, {processor()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main(tyro.cli(Reading))
