"""Compilation by numba, kept on disk where there is a place for it."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(*signature: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a cache; without one where no cache folder can be written."""

    def compile_function(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # no folder to cache in, or a full disk
            return njit(*signature, **options)(function)

    return compile_function
