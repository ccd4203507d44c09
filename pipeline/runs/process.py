"""Process identity: host, id and start time, and whether that process is still alive."""

import os
import socket

import psutil


def this_process() -> str:
    return name_of(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process, named as by `this_process`, belongs to this host and has ended."""
    return _is_here(process) and not _is_alive(process)


def is_running(process: str) -> bool:
    """Whether a process, named as by `this_process`, belongs to this host and is alive."""
    return _is_here(process) and _is_alive(process)


def _is_here(process: str) -> bool:
    return process.startswith(f"{socket.gethostname()}:")


def name_of(pid: int) -> str:
    """Unique name of a process, host:pid:start time. Raises psutil.NoSuchProcess."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.0f}"


def _is_alive(process: str) -> bool:
    _, pid, started = process.split(":")
    try:
        found = psutil.Process(int(pid))
        if found.status() == psutil.STATUS_ZOMBIE:  # ended, but not yet reaped by its parent
            return False
        # psutil computes the start time from the system clock, which may have been adjusted.
        return abs(found.create_time() - float(started)) < 5
    except psutil.NoSuchProcess:
        return False
