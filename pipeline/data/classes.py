"""Names of classes: known ones and their spellings, and what a dataset's or a network's may be."""

import re
from collections.abc import Iterable
from typing import Any, TypeGuard

from pipeline.data import CLASSES

KNOWN = (*CLASSES, "contempt")
"""Classes of the usual datasets of faces, in the order in which a dataset has them."""
SPELLINGS = {name: name for name in KNOWN} | {
    spelling: name
    for name, spellings in {
        "angry": ("anger",),
        "disgust": ("disgusted",),
        "fear": ("fearful", "afraid", "scared"),
        "happy": ("happiness", "joy"),
        "sad": ("sadness",),
        "surprise": ("surprised",),
        "contempt": ("contemptuous",),
    }.items()
    for spelling in spellings
}
"""Known class of a class folder's name, in lower case."""
NAME = re.compile(r"\w[\w -]{0,39}")
"""A class name, which becomes a part of metrics' names and a column of tables."""
RESERVED = {"accuracy", "all", "macro avg", "micro avg", "weighted avg"}
"""What stands beside class names in reports."""
MOST = 255


def is_name(name: Any) -> TypeGuard[str]:
    return isinstance(name, str) and NAME.fullmatch(name) is not None and name not in RESERVED


def are_classes(names: Any) -> bool:
    """Whether `names` is a list or tuple of 2 to 255 different class names."""
    return (
        isinstance(names, list | tuple)
        and all(map(is_name, names))
        and 2 <= len({*names}) == len(names) <= MOST
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Different names: known classes in the order of `KNOWN`, then the others by the alphabet."""
    found = {*names}
    return (*(name for name in KNOWN if name in found), *sorted(found.difference(KNOWN)))
