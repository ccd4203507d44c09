"""Run params: settings as MLflow holds them, as text, and back."""

import re
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
"""What runs that were made before version 0.2 call settings, and their values, today."""


def recorded_settings(
    recorded: Mapping[str, str], settings_class: type[Settings]
) -> dict[str, Any]:
    """Values of a run's params by the names of `settings_class`, without those that it lacks."""
    params = {FORMER_NAMES.get(name, name): _unquoted(text) for name, text in recorded.items()}
    found = {}
    for name, field in settings_class.fields().items():
        if name in params:
            text = FORMER_VALUES.get(name, {}).get(params[name], params[name])
            found[name] = field.parse(text)
    return found


def has_settings(recorded: Mapping[str, str], settings: Hyperparameters) -> bool:
    """Whether a run trained with these settings; the threads, which don't change it much, aside.

    A setting that is younger than the run had what is now its default there.
    """
    values = asdict(Hyperparameters()) | recorded_settings(recorded, Hyperparameters)
    wanted = {name: getattr(settings, name) for name in values}
    return values | {"threads": 0} == wanted | {"threads": 0}


def is_value(recorded: str, value: object) -> bool:
    """Whether a param as `mlflow run` logs it (2e-4, or 'a path' in quotes) stands for `value`."""
    text = _unquoted(recorded)
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    return text == str(value) or (isinstance(value, float) and float(text) == value)


def _unquoted(recorded: str) -> str:
    """A param as it was given: `mlflow run` puts quotes around one with a blank or the like."""
    is_quoted = len(recorded) > 1 and recorded[0] == recorded[-1] == "'"
    return "".join(shlex.split(recorded)) if is_quoted else recorded


def without_password(address: str) -> str:
    """A database's address as it may be shown and put on record."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", address)
