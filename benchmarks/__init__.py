"""Benchmarks, each a module to run; they print the processor below their results."""

import os

import pipeline  # noqa: F401  # before Keras: sets the environment that TensorFlow reads
from pipeline.training.device import describe


def processor() -> str:
    """The processor and its number of cores, as a line below a table."""
    return f"{describe(0).processor}, {os.cpu_count()} cores"
