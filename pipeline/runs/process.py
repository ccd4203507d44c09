"""Process identity: host, id and start, and whether that process is still alive."""

import os
import socket
from functools import cache
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")
MACHINE = "4026531836"
"""Linux' number of the namespace of process ids that is the machine's own, not a container's."""


def this_process() -> str:
    return name_of(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process, named as by `this_process`, belongs to this host and has ended."""
    return _is_here(process) and not _is_alive(process)


def is_running(process: str) -> bool:
    """Whether a process, named as by `this_process`, belongs to this host and is alive."""
    return _is_here(process) and _is_alive(process)


def _is_here(process: str) -> bool:
    """Whether that process has ended, or this one sees it by its id.

    Containers may share the host's name. A process from before the machine was started has ended,
    wherever it was.
    """
    if not process.startswith(f"{socket.gethostname()}:"):
        return False
    before, is_linux, _ = process.rpartition(":")[2].partition("-")
    boot, _, container = before.partition(".")
    return not is_linux or boot != _boot() or container == _container()


def name_of(pid: int) -> str:
    """Unique name of a process, host:pid:start. Raises psutil.NoSuchProcess.

    On Linux the start is BOOT-TICKS, counted from the boot, so that setting the clock does not
    change it; in a container it is BOOT.CONTAINER-TICKS.
    """
    return f"{socket.gethostname()}:{pid}:{_start(pid)}"


def _start(pid: int) -> str:
    if not BOOT_ID.exists():
        return f"{psutil.Process(pid).create_time():.0f}"
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    container = f".{_container()}" if _container() else ""
    return (
        f"{_boot()}{container}-{after_name.split()[19]}"  # clock ticks from the boot to its start
    )


@cache
def _boot() -> str:
    return BOOT_ID.read_text()[:8]


@cache
def _container() -> str:
    """Number of the namespace of process ids that this process is in; empty for the machine's."""
    try:
        number = NAMESPACE.readlink().name.strip("pid:[]")
    except OSError:
        return ""
    return "" if number == MACHINE else number


def _is_alive(process: str) -> bool:
    _, pid, started = process.split(":")
    try:
        found = psutil.Process(int(pid))
        if found.status() == psutil.STATUS_ZOMBIE:  # ended, but not yet reaped by its parent
            return False
        if "-" in started:
            return _start(int(pid)) == started
        # Of earlier versions, by the clock, which may have been adjusted.
        return abs(found.create_time() - float(started)) < 5
    except psutil.NoSuchProcess:
        return False


def works_for(run_id: str, variable: str, begun: float) -> bool:
    """Whether a process of this host works for a run that `mlflow run` made.

    It has the run's id in the environment `variable`, or it is a `mlflow run` from before `begun`
    (seconds since 1970) that has started nothing yet.
    """
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == run_id:
                return True
            words = process.cmdline()
            is_mlflow = "run" in words and any(Path(word).stem == "mlflow" for word in words)
            if is_mlflow and process.create_time() < begun + 5 and not _has_run(process, variable):
                return True
        except (psutil.Error, OSError):
            continue
    return False


def _has_run(process: psutil.Process, variable: str) -> bool:
    return any(variable in child.environ() for child in process.children(recursive=True))
