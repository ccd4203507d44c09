"""A dataset: faces, labels and the split they belong to, with a digest that names exactly these.

On disk it is a folder of three .npy files, read memory-mapped, and `dataset.json` beside them.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from pipeline import InputError
from pipeline.settings import SIDE as SIDE  # a face is as the settings know it

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Class names by FER2013's label code 0-6. The report's matrices name them in another order."""

SPLITS = ("train", "validation", "test")
"""Names of the splits by their code in split.npy."""
TRAIN, VALIDATION, TEST = range(3)
UNASSIGNED = 255
"""Split code of faces whose source has no split of its own."""
SOURCE_SPLITS = {
    TRAIN: "Training",
    VALIDATION: "PublicTest",
    TEST: "PrivateTest",
    UNASSIGNED: "unassigned",
}
"""FER2013's names (Usage) of the splits that a source comes with."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Faces:
    """Faces as a source has them.

    images: (N, 48, 48) grey levels. labels: (N,) class codes 0-6. split: (N,) the source's own
    split codes (Training, PublicTest and PrivateTest are train, validation and test) or UNASSIGNED.
    """

    images: Bytes
    labels: Bytes
    split: Bytes


@dataclass(frozen=True)
class Dataset:
    """Faces with a split: images (N, 48, 48), labels (N,) and split (N,), all uint8.

    `about` is dataset.json: source, policy, seed, counts, copies and digest.
    """

    images: Bytes
    labels: Bytes
    split: Bytes
    about: dict[str, Any]

    @property
    def digest(self) -> str:
        return self.about["digest"]

    def part(self, split: int) -> tuple[Bytes, Bytes]:
        """Images (n, 48, 48, 1) and labels (n,) of one split, in the dataset's order."""
        rows = self.split == split
        return self.images[rows][..., np.newaxis], self.labels[rows]


def assemble(
    faces: Faces, *, source: str, policy: str, seed: int, validation: float = 0.1
) -> Dataset:
    """Split `faces` by `policy` and describe the result.

    `validation` is the share of the training faces that is held out where the source has no split
    for it.
    Raises InputError where the source has no split that the policy needs, or a class is absent from
    train.
    """
    split = (
        split_at_random(len(faces.labels), seed, validation)
        if policy == "report"
        else split_officially(faces, source, seed, validation, final=policy == "final")
    )
    counts = _count_classes(faces.labels, split, dict(enumerate(SPLITS)))
    if absent := [name for name, n in zip(CLASSES, counts["train"], strict=True) if n == 0]:
        raise InputError(
            f"{source}: no face of {', '.join(absent)} in train; every class needs at least one"
        )
    about = {
        "source": source,
        "policy": policy,
        "validation": validation,
        "seed": seed,
        "classes": list(CLASSES),
        "source_counts": _count_classes(faces.labels, faces.split, SOURCE_SPLITS),
        "counts": counts,
        "copies": count_copies(faces.images, faces.labels, split),
        "digest": digest(faces.images, faces.labels, split),
    }
    return Dataset(faces.images, faces.labels, split, about)


def _count_classes(labels: Bytes, split: Bytes, names: dict[int, str]) -> dict[str, list[int]]:
    """Faces by class for each name of a split code."""
    return {
        name: np.bincount(labels[split == code], minlength=len(CLASSES)).tolist()
        for code, name in names.items()
    }


def split_at_random(count: int, seed: int, validation: float = 0.1) -> Bytes:
    """The report's policy: a tenth for test, then a share of the rest for validation, unstratified.

    35,887 faces become 29,068 / 3,230 / 3,589, the report's own sizes.
    """
    if count < 10:
        raise InputError(f"{count} faces are too few to split; at least 10 are needed")
    rest, test = train_test_split(np.arange(count), test_size=0.1, random_state=seed)
    _, held_out = train_test_split(rest, test_size=validation, random_state=seed)
    split = np.full(count, TRAIN, np.uint8)
    split[test], split[held_out] = TEST, VALIDATION
    return split


def split_officially(
    faces: Faces, source: str, seed: int, validation: float, *, final: bool = False
) -> Bytes:
    """The source's own split; if `final`, its validation rows are there to be trained on.

    Where it has no validation or no test rows beside its training rows, the rows that it holds out
    are test, and the share `validation` of train, stratified by class, is validation. In a final
    split it is always that share, and there may be no test rows.
    """
    held_out = np.isin(faces.split, (VALIDATION, TEST))
    if np.any(faces.split == UNASSIGNED) or not held_out.any():
        raise InputError(f"{source}: has no split of its own; use split=report")
    split = faces.split.copy()
    if final:
        split[split == VALIDATION] = TRAIN
    elif np.any(split == VALIDATION) and np.any(split == TEST):
        return split
    else:
        split[held_out] = TEST
    train = np.flatnonzero(split == TRAIN)
    if not len(train):
        raise InputError(f"{source}: has no training face of its own; use split=report")
    split[_stratified_share(train, faces.labels[train], validation, seed, source)] = VALIDATION
    return split


def _stratified_share(
    rows: NDArray[np.intp], labels: Bytes, share: float, seed: int, source: str
) -> Any:
    counts = np.bincount(labels, minlength=len(CLASSES))
    if few := [name for name, n in zip(CLASSES, counts, strict=True) if n == 1]:
        raise InputError(f"{source}: a single training face of {few[0]} can't be split in two")
    if share * len(rows) < np.count_nonzero(counts):
        raise InputError(
            f"{source}: {len(rows)} training faces are too few to hold {share:.0%} of them out"
        )
    return train_test_split(rows, test_size=share, random_state=seed, stratify=labels)[1]


def face_ids(images: Bytes) -> NDArray[np.int64]:
    """An integer for each face, (N,), equal where two faces are equal pixel for pixel."""
    ids: dict[bytes, int] = {}
    pixels = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.fromiter((ids.setdefault(row.tobytes(), len(ids)) for row in pixels), np.int64)


def unseen(images: Bytes, training_images: Bytes) -> NDArray[np.bool_]:
    """Which of `images` have no pixel-identical copy in `training_images`, (N,)."""
    count = len(images)
    flat = [np.asarray(a).reshape(len(a), SIDE, SIDE) for a in (images, training_images)]
    ids = face_ids(np.concatenate(flat))
    return ~np.isin(ids[:count], ids[count:])


def count_copies(images: Bytes, labels: Bytes, split: Bytes) -> dict[str, int]:
    """Pixel-identical copies: how many are redundant, disagree in label, or cross a split."""
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


def digest(*arrays: Bytes) -> str:
    """16 hexadecimal digits of a SHA-256; of a dataset, over every pixel, label and split code."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:16]


def save(dataset: Dataset, folder: Path) -> None:
    """Write the four files of a dataset into `folder`, which must not hold one yet."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", dataset.images)
    np.save(folder / "labels.npy", dataset.labels)
    np.save(folder / "split.npy", dataset.split)
    (folder / "dataset.json").write_text(json.dumps(dataset.about, indent=2) + "\n")


def load(folder: Path) -> Dataset:
    """The whole dataset in `folder`, test faces included: for `evaluate` alone.

    Raises InputError if a file is missing or unreadable, or the arrays no longer have the digest
    that dataset.json records.
    """
    try:
        about = json.loads((folder / "dataset.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels, split = (np.load(folder / f"{name}.npy") for name in ("labels", "split"))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{folder} is no dataset: {error}; make one with ingest") from error
    if digest(images, labels, split) != about.get("digest"):
        raise InputError(f"{folder}: the arrays differ from dataset.json's digest; ingest again")
    return Dataset(images, labels, split, about)


def load_without_test(folder: Path) -> Dataset:
    """The dataset in `folder` with its test rows left out: for everything that chooses."""
    whole = load(folder)
    kept = whole.split != TEST
    return Dataset(whole.images[kept], whole.labels[kept], whole.split[kept], whole.about)


def require_test(dataset: Dataset, address: str) -> None:
    """Raise InputError if the dataset has no test faces, before hours of training are spent."""
    if not sum(dataset.about["counts"]["test"]):
        raise InputError(f"data={address}: this dataset has no test faces to measure the winner on")


def fewer(dataset: Dataset, count: int, seed: int) -> Dataset:
    """`dataset` with `count` of its train faces, each class by its share; other splits stay whole.

    The same seed draws the same faces. A count of 0, or of as many as there are, changes nothing.
    Raises InputError if there are too few for one of each class.
    """
    train = np.flatnonzero(dataset.split == TRAIN)
    if count in (0, len(train)):
        return dataset
    counts = np.bincount(dataset.labels[train], minlength=len(CLASSES))
    if few := [name for name, n in zip(CLASSES, counts, strict=True) if n == 1]:
        raise InputError(
            f"faces={count}: expected 0 (all), since {few[0]} has a single training face"
        )
    classes = np.count_nonzero(counts)
    if not classes <= count <= len(train) - classes:
        raise InputError(f"faces={count}: expected 0 (all), or {classes} to {len(train) - classes}")
    kept = train_test_split(
        train, train_size=count, random_state=seed, stratify=dataset.labels[train]
    )[0]
    rows = np.sort(np.concatenate([kept, np.flatnonzero(dataset.split != TRAIN)]))
    return Dataset(dataset.images[rows], dataset.labels[rows], dataset.split[rows], dataset.about)


def table(dataset: Dataset) -> pd.DataFrame:
    """Faces by class (and all) in each split of the source that has some, and in each of ours."""
    source, ours = dataset.about["source_counts"], dataset.about["counts"]
    columns = {f"source {name}": counts for name, counts in source.items() if sum(counts)} | ours
    counts = pd.DataFrame(columns, index=pd.Index(CLASSES, name="class"))
    counts.loc["all"] = counts.sum()
    return counts


def copies_text(dataset: Dataset) -> str:
    copies = dataset.about["copies"]
    return (
        f"{copies['redundant']:,} redundant pixel-identical copies "
        f"({copies['groups_with_label_conflict']} groups of copies disagree in label); "
        f"{copies['test_in_train']:,} test and {copies['validation_in_train']:,} validation faces "
        "stand in train too"
    )
