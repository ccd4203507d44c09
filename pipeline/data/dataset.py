"""Datasets: faces, labels and splits, with a digest that identifies the content.

On disk a dataset is a folder of three .npy files (images are memory-mapped) and `dataset.json`;
a fourth, votes.npy, is there if several people have voted on each face.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.data import CLASSES, SIDE, SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION
from pipeline.data.classes import are_classes
from pipeline.errors import InputError, reason

SOURCE_SPLITS = {
    TRAIN: "Training",
    VALIDATION: "PublicTest",
    TEST: "PrivateTest",
    UNASSIGNED: "unassigned",
}
"""FER2013's names (column Usage) of a source's splits."""
Bytes = NDArray[np.uint8]


class _Rows:
    """What `Faces` and `Dataset` share: arrays with a row a face."""

    images: Bytes
    labels: Bytes
    split: Bytes
    votes: Bytes | None

    def take(self, rows: NDArray[Any]) -> Self:
        """The faces of a mask (N,) or of indices."""
        return replace(
            self,  # type: ignore[type-var]  # a dataclass in both
            images=self.images[rows],
            labels=self.labels[rows],
            split=self.split[rows],
            votes=None if self.votes is None else self.votes[rows],
        )


@dataclass(frozen=True)
class Faces(_Rows):
    """Faces of a source, all arrays uint8.

    images: (N, 48, 48) grey levels. labels: (N,) class codes, places in `classes`. split: (N,) the
    source's own split codes (Training, PublicTest and PrivateTest are train, validation and test)
    or UNASSIGNED. votes: (N, classes) numbers of people who chose a class, all 0 for a face without
    enough of them.
    """

    images: Bytes
    labels: Bytes
    split: Bytes
    classes: tuple[str, ...] = CLASSES
    about: dict[str, Any] = field(default_factory=dict)
    """What dataset.json says beside the usual."""
    votes: Bytes | None = None

    def of_classes(self, classes: tuple[str, ...]) -> "Faces":
        """The faces of `classes`, with their codes by these."""
        absent = len(classes)
        codes = [classes.index(name) if name in classes else absent for name in self.classes]
        coded = replace(self, labels=np.array(codes, np.uint8)[self.labels], classes=classes)
        return coded if absent not in codes else coded.take(coded.labels < absent)


@dataclass(frozen=True)
class Dataset(_Rows):
    """Faces with a split: images (N, 48, 48), labels (N,), split (N,), votes (N, classes), all
    uint8.

    `about` is the content of dataset.json: source, policy, seed, classes, counts, copies, digest.
    """

    images: Bytes
    labels: Bytes
    split: Bytes
    about: dict[str, Any]
    votes: Bytes | None = None

    @property
    def digest(self) -> str:
        return self.about["digest"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by their code in `labels`."""
        return tuple(self.about.get("classes", CLASSES))

    def part(self, split: int) -> tuple[Bytes, Bytes]:
        """Images (n, 48, 48, 1) and labels (n,) of one split, in the dataset's order."""
        rows = self.split == split
        return self.images[rows][..., np.newaxis], self.labels[rows]


def face_ids(images: Bytes) -> NDArray[np.int64]:
    """An integer id for each face, (N,); pixel-identical faces have the same id."""
    ids: dict[bytes, int] = {}
    pixels = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.fromiter((ids.setdefault(row.tobytes(), len(ids)) for row in pixels), np.int64)


def unseen(images: Bytes, training_images: Bytes) -> NDArray[np.bool_]:
    """Mask (N,) of the `images` that have no pixel-identical copy in `training_images`."""
    count = len(images)
    flat = [np.asarray(a).reshape(len(a), SIDE, SIDE) for a in (images, training_images)]
    ids = face_ids(np.concatenate(flat))
    return ~np.isin(ids[:count], ids[count:])


def count_copies(images: Bytes, labels: Bytes, split: Bytes) -> dict[str, int]:
    """Counts of pixel-identical copies: redundant, in conflict by label, and across splits."""
    ids = face_ids(images)
    pairs = np.unique(np.stack([ids, labels]), axis=1)
    groups_with_label_conflict = np.count_nonzero(np.bincount(pairs[0]) > 1)
    in_train = np.isin(ids, ids[split == TRAIN])
    return {
        "redundant": len(ids) - len(np.unique(ids)),
        "groups_with_label_conflict": int(groups_with_label_conflict),
        "validation_in_train": int(np.count_nonzero(in_train & (split == VALIDATION))),
        "test_in_train": int(np.count_nonzero(in_train & (split == TEST))),
    }


def digest(*arrays: Bytes, classes: tuple[str, ...] = CLASSES) -> str:
    """First 16 hexadecimal digits of the SHA-256 over the arrays' bytes.

    `check` fixes their types and shapes, so that the same bytes are the same content. Class names
    other than FER2013's are a part of it.
    """
    sha = hashlib.sha256()
    if classes != CLASSES:
        sha.update(json.dumps(classes).encode())
    for array in arrays:
        if array.dtype != np.uint8:
            raise ValueError(f"an array of {array.dtype}; expected uint8")
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:16]


def check(
    images: Any,
    labels: Any,
    split: Any,
    name: str,
    splits: Collection[int],
    classes: Any = CLASSES,
    votes: Any = None,
) -> None:
    """Raise InputError, naming `name`, unless the arrays and class names are those of faces.

    They are uint8, (N, 48, 48), (N,) and (N,), with codes of `classes` and split codes of `splits`;
    votes are (N, classes).
    """
    if not are_classes(classes):
        raise InputError(f"{name}: expected a tuple of two or more class names, not {classes!r}")
    count = len(labels) if np.ndim(labels) else 0
    arrays = [
        ("images", images, (count, SIDE, SIDE)),
        ("labels", labels, (count,)),
        ("split", split, (count,)),
    ]
    if votes is not None:
        arrays.append(("votes", votes, (count, len(classes))))
    for what, array, shape in arrays:
        kind, found = getattr(array, "dtype", type(array).__name__), np.shape(array)
        if kind != np.uint8 or found != shape:
            raise InputError(f"{name}: {what} is {kind} {found}, expected uint8 {shape}")
    if not count:
        raise InputError(f"{name}: no face; at least one is needed")
    if labels.max() >= len(classes):
        raise InputError(f"{name}: a label is {labels.max()}, expected 0 to {len(classes) - 1}")
    if len(unknown := split[~np.isin(split, list(splits))]):
        raise InputError(f"{name}: a split code is {unknown[0]}, expected one of {[*splits]}")


def save(dataset: Dataset, folder: Path) -> None:
    """Write the files of a dataset into `folder`, which must not exist yet."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", dataset.images)
    np.save(folder / "labels.npy", dataset.labels)
    np.save(folder / "split.npy", dataset.split)
    if dataset.votes is not None:
        np.save(folder / "votes.npy", dataset.votes)
    (folder / "dataset.json").write_text(json.dumps(dataset.about, indent=2) + "\n")


def load(folder: Path) -> Dataset:
    """The dataset in `folder` with its test split, for `evaluate` only.

    Raises InputError if a file is missing or unreadable, if types, shapes or codes are not those of
    faces, or if the arrays do not have the digest and the counts in dataset.json.
    """
    try:
        about = json.loads((folder / "dataset.json").read_text())
        # Mapped memory: a header that declares more than the file holds reserves none.
        names = ["images", "labels", "split", *(["votes"] if "votes" in about else [])]
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    # NumPy and json raise a dozen types for a damaged file.
    except Exception as error:
        problem = f"{folder} is no dataset: {reason(error)}; make one with ingest"
        raise InputError(problem) from error
    images, labels, split, *votes = (arrays[0], *map(np.array, arrays[1:]))
    classes = about.get("classes", CLASSES) if isinstance(about, dict) else CLASSES
    check(images, labels, split, str(folder), range(len(SPLITS)), classes, *votes)
    content = digest(images, labels, split, *votes, classes=tuple(classes))
    if not isinstance(about, dict) or about.get("digest") != content:
        raise InputError(f"{folder}: the arrays differ from dataset.json's digest; ingest again")
    if not _describes(about, split, len(classes)):
        raise InputError(f"{folder}: dataset.json does not describe the arrays; ingest again")
    return Dataset(images, labels, split, about, *votes)


def _describes(about: dict[str, Any], split: Bytes, classes: int) -> bool:
    """Whether dataset.json has all that is read from it, and the sizes of the splits."""
    kinds = {"source": str, "source_counts": dict, "copies": dict, "counts": dict}
    if not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
        return False
    counts = {n: c for n, c in about["counts"].items() if isinstance(c, list)}
    numbers = [n for count in counts.values() for n in count]
    return (
        [*counts] == list(SPLITS)
        and all(type(n) is int for n in numbers)
        and all(len(count) == classes for count in counts.values())
        and [sum(count) for count in counts.values()]
        == np.bincount(split, minlength=len(SPLITS)).tolist()
    )


def count_classes(
    labels: Bytes, split: Bytes, names: dict[int, str], classes: int = len(CLASSES)
) -> dict[str, list[int]]:
    """Number of faces by class, for each split in `names`."""
    return {
        name: np.bincount(labels[split == code], minlength=classes).tolist()
        for code, name in names.items()
    }


def load_without_test(folder: Path) -> Dataset:
    """The dataset in `folder` without its test split, for training and model selection."""
    full = load(folder)
    return full.take(full.split != TEST)


def rows(folder: Path, split: int) -> NDArray[np.intp]:
    """Places, in the stored arrays, of the faces of one split of a dataset that `load` accepts."""
    return np.flatnonzero(np.load(folder / "split.npy") == split)


def require_test(dataset: Dataset, address: str) -> None:
    """Raise InputError if the dataset has no test faces; called before hours of training."""
    if not sum(dataset.about["counts"]["test"]):
        raise InputError(f"data={address}: this dataset has no test faces to measure the winner on")


def table(dataset: Dataset) -> pd.DataFrame:
    """Number of faces by class and split: the source's non-empty splits, then the dataset's."""
    source, splits = dataset.about["source_counts"], dataset.about["counts"]
    columns = {f"source {name}": counts for name, counts in source.items() if sum(counts)} | splits
    counts = pd.DataFrame(columns, index=pd.Index(dataset.classes, name="class"))
    counts.loc["all"] = counts.sum()
    return counts


def copies_text(dataset: Dataset) -> str:
    copies = dataset.about["copies"]
    return (
        f"{copies['redundant']:,} redundant pixel-identical copies "
        f"({copies['groups_with_label_conflict']} groups of copies disagree in label); "
        f"{copies['test_in_train']:,} test and {copies['validation_in_train']:,} validation faces "
        "are also in train"
    )
