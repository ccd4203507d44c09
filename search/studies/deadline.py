"""Deadline of a command: its `timeout`, counted from the start of its process."""

import os
import time

import psutil


class Deadline:
    """The end of a command that may take `seconds`, 0 for no limit."""

    def __init__(self, seconds: float) -> None:
        since_start = time.time() - psutil.Process(os.getpid()).create_time()
        self._end = time.monotonic() + seconds - since_start if seconds else None

    @property
    def left(self) -> float:
        """Seconds until the end; infinite without a limit."""
        return float("inf") if self._end is None else self._end - time.monotonic()

    def is_over(self, reserve: float = 0.0) -> bool:
        """Whether no more than `reserve` seconds are left."""
        return self.left <= reserve
