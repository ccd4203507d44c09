"""Names of classes: known ones and their spellings, and what a dataset's or a network's may be."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pipeline.data import CLASSES
from pipeline.errors import InputError

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


@dataclass
class Names:
    """Classes of folders and codes by their names, in lower case; `used` are those asked for."""

    classes: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of(self, name: str) -> str | None:
        """The class that a folder's name, in any case, stands for; None if it is not known."""
        key = name.lower()
        self.used |= {key} & self.classes.keys()
        return self.classes.get(key) or SPELLINGS.get(key)


def parse_names(text: str | None) -> list[Names]:
    """The setting `names`, `1:surprise,2:fear`: one for all sources, or with semicolons one each.

    Raises InputError for what is no such list, or a class that is probably mistyped.
    """
    return [_parse_names(part, str(text)) for part in (text or "").split(";")]


def _parse_names(part: str, text: str) -> Names:
    found = Names()
    for pair in filter(None, map(str.strip, part.split(","))):
        folder, colon, name = (word.strip().lower() for word in pair.partition(":"))
        if not (folder and colon) or folder in found.classes:
            raise InputError(f"names={text}: {pair}: expected FOLDER:CLASS, each folder once")
        found.classes[folder] = _class_name(name, f"names={text}")
    return found


def _class_name(name: str, setting: str) -> str:
    """A known class by any spelling, or a new one that resembles none."""
    if name in SPELLINGS:
        return SPELLINGS[name]
    if close := difflib.get_close_matches(name, SPELLINGS, 1, cutoff=0.8):
        raise InputError(f"{setting}: {name} is not a class; is it {SPELLINGS[close[0]]}?")
    if not is_name(name):
        raise InputError(
            f"{setting}: {name!r} can't be a class; expected {', '.join(KNOWN)}, or another word"
        )
    return name


def parse_drop(text: str | None) -> tuple[str, ...]:
    """The setting `drop`: classes, by any spelling, or class folders, with commas between."""
    names = [name.strip().lower() for name in (text or "").split(",")]
    return tuple(SPELLINGS.get(name, name) for name in names if name)
