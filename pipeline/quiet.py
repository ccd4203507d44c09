"""Import TensorFlow without the lines that it prints before it reads any setting, and warnings.

Its compiled code writes them to file descriptor 2, where no setting of Python's holds them back.
`pipeline` calls `hush` before anything else, so it holds in every process: commands, jobs, tests.
"""

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

STDERR = 2


def hush(package: str = "tensorflow") -> None:
    """Hold back standard error during the first import of `package`; show it if the import fails.

    A package that is imported already is left alone.
    """
    if package not in sys.modules:
        sys.meta_path.insert(0, _Hushed(package))


class _Hushed(MetaPathFinder):
    """Finds a package as the other finders do, and loads it within `held_back_stderr`."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.package or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def hushed_load(module: ModuleType) -> None:
                with held_back_stderr():
                    load(module)
                # Its warnings are of what Keras does within, such as a trace for each network.
                logging.getLogger(name).setLevel(logging.ERROR)

            spec.loader.exec_module = hushed_load  # type: ignore[method-assign]
        return spec


@contextmanager
def held_back_stderr() -> Iterator[None]:
    """Hold back what the process writes to standard error; show it if the block raises an error.

    That of other threads and of children that are started meanwhile is held back, too. Where there
    is no standard error, or no room for a temporary file, nothing is.
    """
    with contextlib.ExitStack() as stack:
        try:
            terminal = os.dup(STDERR)
            stack.callback(os.close, terminal)
            held = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            held = None
        if held:
            _send_stderr_to(held.fileno())
            stack.callback(_send_stderr_to, terminal)
        try:
            yield
        except Exception:
            if held:
                _send_stderr_to(terminal)
                held.seek(0)
                os.write(STDERR, held.read())
            raise


def _send_stderr_to(descriptor: int) -> None:
    """Make file descriptor 2 a copy of `descriptor`; what Python has not written yet goes first."""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # None, closed, or broken
        sys.stderr.flush()
    os.dup2(descriptor, STDERR)
