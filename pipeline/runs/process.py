"""Process identity: host, id and start time, and whether that process is still alive."""

import os
import socket

import psutil


def this_process() -> str:
    return name_of(os.getpid())


def is_gone(process: str) -> bool:
    """Whether a process that `this_process` named is one of this host and has ended."""
    return _is_here(process) and not _is_alive(process)


def is_running(process: str) -> bool:
    """Whether a process that `this_process` named is one of this host and has not ended."""
    return _is_here(process) and _is_alive(process)


def _is_here(process: str) -> bool:
    return process.startswith(f"{socket.gethostname()}:")


def name_of(pid: int) -> str:
    """host:pid:start, which no later process shares; psutil raises if there is none."""
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.0f}"


def _is_alive(process: str) -> bool:
    _, pid, started = process.split(":")
    try:
        found = psutil.Process(int(pid))
        if found.status() == psutil.STATUS_ZOMBIE:  # ended, and its parent has not noticed yet
            return False
        # The start is reckoned from the clock, which may have been set since.
        return abs(found.create_time() - float(started)) < 5
    except psutil.NoSuchProcess:
        return False
