"""Measurements, each a module to run: both sides in one run, with what measured them."""

import os

import pipeline  # noqa: F401  # before Keras: it settles what TensorFlow reads at its import
from pipeline.training.device import describe


def processor() -> str:
    """The processor and its cores, to stand under every table."""
    return f"{describe(0).processor}, {os.cpu_count()} cores"
