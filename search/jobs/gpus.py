"""GPUs of this computer, and which one each of several trainings uses.

A framework puts a training on the first GPU that it sees, so parallel trainings need one each.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice, takewhile
from pathlib import Path
from queue import SimpleQueue

from pipeline.errors import InputError

VARIABLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/proc/driver/nvidia/gpus")


def visible() -> list[str]:
    """Names of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else indexes.

    No framework is imported, because that would take memory on a GPU.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        return list(takewhile(lambda name: name not in ("", "-1"), names))  # as CUDA reads it
    return [str(index) for index in range(_number())]


def chosen(wanted: str) -> list[str]:
    """GPUs of the setting `gpus`: all visible ones (auto), or those named. Raises InputError."""
    found = visible()
    if wanted == "auto":
        return found
    names = [name.strip() for name in wanted.split(",")]
    if missing := [name for name in names if name not in found]:
        known = ", ".join(found) or "none"
        raise InputError(f"gpus={wanted}: no GPU {missing[0]}; visible here: {known}")
    return names


class Gpus:
    """GPUs for `workers` trainings at a time, in turn if there are fewer GPUs than workers."""

    def __init__(self, names: list[str], workers: int) -> None:
        self.names = names[:workers]
        self._free: SimpleQueue[str] = SimpleQueue()
        for name in islice(cycle(names), workers):
            self._free.put(name)

    @contextmanager
    def one(self) -> Iterator[Mapping[str, str]]:
        """Environment of one training, whose GPU is free again after the block; empty on a CPU."""
        if not self.names:
            yield {}
            return
        name = self._free.get()
        try:
            yield environment(name)
        finally:
            self._free.put(name)


def environment(name: str) -> dict[str, str]:
    """Environment of a process that uses the GPU `name` alone."""
    # nvidia-smi counts by the slot. CUDA does too if told so; else the fastest GPU comes first.
    order = {} if VARIABLE in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {VARIABLE: name, **order}


def _number() -> int:
    """Number of NVIDIA GPUs, by nvidia-smi or the driver's folder."""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "-L"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return 0
        return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0
