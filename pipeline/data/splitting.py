"""Split policies: assign faces to train, validation and test."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from pipeline.data import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION
from pipeline.data.dataset import (
    SOURCE_SPLITS,
    Bytes,
    Dataset,
    Faces,
    count_classes,
    count_copies,
    digest,
    face_ids,
)
from pipeline.errors import InputError
from pipeline.percent import percent


def assemble(
    faces: Faces, *, source: str, policy: str, seed: int, validation: float = 0.1
) -> Dataset:
    """Split `faces` by `policy` and describe the result.

    `validation` is the share of the training faces that is held out if the source has no validation
    split. Raises InputError if the source lacks a split that the policy needs, or if a class is
    absent from train.
    """
    count = len(faces.classes)
    if count < 2:
        only = f"only faces of {faces.classes[0]}" if count else "no class is left"
        raise InputError(f"{source}: {only}; expected two classes or more")
    split = (
        split_at_random(len(faces.labels), seed, validation)
        if policy == "report"
        else split_officially(faces, source, seed, validation, final=policy == "final")
    )
    counts = count_classes(faces.labels, split, dict(enumerate(SPLITS)), count)
    if absent := [name for name, n in zip(faces.classes, counts["train"], strict=True) if n == 0]:
        raise InputError(
            f"{source}: no face of {', '.join(absent)} in train; every class needs at least one, "
            f"or leave it out with drop={','.join(absent)}"
        )
    votes = [] if faces.votes is None else [faces.votes]
    about = {
        "source": source,
        "policy": policy,
        "validation": validation,
        "seed": seed,
        "classes": list(faces.classes),
        "source_counts": count_classes(faces.labels, faces.split, SOURCE_SPLITS, count),
        "counts": counts,
        "copies": count_copies(faces.images, faces.labels, split),
        **faces.about,
        "digest": digest(faces.images, faces.labels, split, *votes, classes=faces.classes),
    }
    return Dataset(faces.images, faces.labels, split, about, *votes)


def split_at_random(count: int, seed: int, validation: float = 0.1) -> Bytes:
    """The published report's split: 10 % test, then `validation` of the rest, not stratified.

    35,887 faces become 29,068 / 3,230 / 3,589, as in the report.
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
    """The source's own split; with `final`, its validation rows become train.

    If the source has only one held-out split, that one is test, and the share `validation` of
    train, stratified by class, becomes validation. A final split always takes that share, and may
    have no test rows.
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
    split[_stratified_share(train, faces, validation, seed, source)] = VALIDATION
    return split


def _stratified_share(
    rows: NDArray[np.intp], faces: Faces, share: float, seed: int, source: str
) -> Any:
    labels = faces.labels[rows]
    counts = np.bincount(labels, minlength=len(faces.classes))
    if few := [name for name, n in zip(faces.classes, counts, strict=True) if n == 1]:
        raise InputError(f"{source}: a single training face of {few[0]} can't be split in two")
    if share * len(rows) < np.count_nonzero(counts):
        raise InputError(
            f"{source}: {len(rows)} training faces are too few to hold {percent(share, 0)} of them "
            "out"
        )
    return train_test_split(rows, test_size=share, random_state=seed, stratify=labels)[1]


def folds(dataset: Dataset, count: int, seed: int) -> list[NDArray[np.intp]]:
    """The train faces in `count` parts, stratified by class; copies of a face are in one part.

    Raises InputError if a class has fewer training faces than parts.
    """
    train = np.flatnonzero(dataset.split == TRAIN)
    labels = dataset.labels[train]
    counts = np.bincount(labels, minlength=len(dataset.classes))
    if counts.min() < count:
        few = dataset.classes[int(counts.argmin())]
        raise InputError(f"folds={count}: {few} has only {counts.min()} training faces")
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    ids = face_ids(dataset.images[train])
    return [train[part] for _, part in splitter.split(train, labels, ids)]


def subsample(dataset: Dataset, count: int, seed: int) -> Dataset:
    """`dataset` with `count` train faces, stratified by class; the other splits are unchanged.

    The same seed draws the same faces. A count of 0, or of all train faces, returns the dataset.
    Raises InputError if `count` is too small for one face of each class.
    """
    train = np.flatnonzero(dataset.split == TRAIN)
    if count in (0, len(train)):
        return dataset
    counts = np.bincount(dataset.labels[train], minlength=len(dataset.classes))
    if few := [name for name, n in zip(dataset.classes, counts, strict=True) if n == 1]:
        raise InputError(
            f"max_train_faces={count}: expected 0 (all), since {few[0]} has a single training face"
        )
    classes = np.count_nonzero(counts)
    if not classes <= count <= len(train) - classes:
        raise InputError(
            f"max_train_faces={count}: expected 0 (all), or {classes} to {len(train) - classes}"
        )
    chosen = train_test_split(
        train, train_size=count, random_state=seed, stratify=dataset.labels[train]
    )[0]
    return dataset.take(np.sort(np.concatenate([chosen, np.flatnonzero(dataset.split != TRAIN)])))
