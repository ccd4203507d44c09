"""Benchmarks, each a module to run; they print the processor below their results."""

import os

import pipeline  # noqa: F401  # before Keras: sets the environment that TensorFlow reads


def processor() -> str:
    """The processor and its number of cores, as a line below a table."""
    # Not before: Keras' import would count as memory of what `benchmarks.ingest` measures.
    from pipeline.training.device import describe

    return f"{describe(0).processor}, {os.cpu_count()} cores"
