"""Run params: conversion of MLflow's text to settings, and comparison with settings."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.settings import Hyperparameters, Settings

FORMER_NAMES = {
    "averaging": "ema",
    "views": "tta",
    "recalibrate": "recalibrate_bn",
    "side": "image_size",
    "grow_at": "resize_at",
    "erase": "cutout",
    "keep": "keep_epoch",
    "start": "init_from",
    "faces": "max_train_faces",
}
FORMER_VALUES = {
    "tta": {"one": "none", "ten": "ten_crop", "turned": "flip_rotate"},
    "init_from": {"none": "None"},
    "resume": {"none": "None"},
}
"""Present names and values of settings in runs of versions before 0.2."""


def recorded_settings(
    recorded: Mapping[str, str], settings_class: type[Settings]
) -> dict[str, Any]:
    """Values of a run's params that are fields of `settings_class`, by the field's name."""
    params = {FORMER_NAMES.get(name, name): _unquoted(text) for name, text in recorded.items()}
    found = {}
    for name, field in settings_class.fields().items():
        if name in params:
            text = FORMER_VALUES.get(name, {}).get(params[name], params[name])
            found[name] = field.parse(text)
    return found


def has_settings(recorded: Mapping[str, str], settings: Hyperparameters) -> bool:
    """Whether a run was trained with these settings, except for the number of threads.

    A setting that was added after the run had its present default in it.
    """
    values = asdict(Hyperparameters()) | recorded_settings(recorded, Hyperparameters)
    expected = {name: getattr(settings, name) for name in values}
    return values | {"threads": 0} == expected | {"threads": 0}


def is_value(recorded: str, value: object) -> bool:
    """Whether a param as `mlflow run` logs it (2e-4, or 'a path' in quotes) equals `value`."""
    text = _unquoted(recorded)
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    return text == str(value) or (isinstance(value, int | float) and float(text) == value)


def _unquoted(recorded: str) -> str:
    """A param without the shell quotes that `mlflow run` adds to one with blanks."""
    is_quoted = len(recorded) > 1 and recorded[0] == recorded[-1] == "'"
    return "".join(shlex.split(recorded)) if is_quoted else recorded
