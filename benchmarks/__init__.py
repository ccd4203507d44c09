"""Benchmarks, each a module to run; they print the processor below their results."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

import pipeline  # noqa: F401  # before Keras: sets the environment that TensorFlow reads
from pipeline.errors import InputError

Options = TypeVar("Options")


def run(main: Callable[[Options], None], options: type[Options]) -> None:
    """Call `main` with the command line's options; a mistake of the user is a line and status 2."""
    try:
        main(tyro.cli(options))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def processor() -> str:
    """The processor and its number of cores, as a line below a table."""
    # Not before: Keras' import would count as memory of what `benchmarks.ingest` measures.
    from pipeline.training.device import describe

    return f"{describe(0).processor}, {os.cpu_count()} cores"
