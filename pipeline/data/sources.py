"""Data sources: CSV, image folders, Kaggle, drawn sample, or a user's function."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.progress import track

from pipeline import registry
from pipeline.data import CLASSES, SIDE, TEST, TRAIN, UNASSIGNED, VALIDATION, fer_csv, sample
from pipeline.data.dataset import Faces
from pipeline.errors import InputError
from pipeline.registry import REFERENCE

SPELLINGS = {name: code for code, name in enumerate(CLASSES)} | {
    spelling: CLASSES.index(name)
    for name, spellings in {
        "angry": ("anger",),
        "disgust": ("disgusted",),
        "fear": ("fearful", "afraid", "scared"),
        "happy": ("happiness", "joy"),
        "sad": ("sadness",),
        "surprise": ("surprised",),
    }.items()
    for spelling in spellings
}
"""Class code of a class folder's name, in lower case."""
SPLIT_FOLDERS = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION, "publictest": VALIDATION,
    "test": TEST, "testing": TEST, "privatetest": TEST,
}  # fmt: skip
"""Split code of a split folder's name, in lower case."""
PICTURES = {".png", ".jpg", ".jpeg"}
CSVS = {".csv", ".gz", ".zip"}
KAGGLE = "kaggle:"


def require(source: str) -> None:
    """Raise InputError if the name of `source` shows that it can't be read; reads no data."""
    if source == "sample" or source.startswith(KAGGLE) or REFERENCE.fullmatch(source):
        return
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"{source}: no such file or folder; give sample, a CSV, a folder or kaggle:…"
        )
    if path.is_file() and path.suffix.lower() not in CSVS:
        raise InputError(f"{source}: expected .csv, .csv.gz, .csv.zip or a folder of class folders")


def read(source: str, seed: int) -> Faces:
    """Faces of `source`, with the source's own split if it has one.

    `seed` is used by the drawn sample and by a user's function (`package.module:function`).
    Raises InputError if the source can't be read.
    """
    require(source)
    if source == "sample":
        images, labels = sample.draw(seed=seed)
        return Faces(images, labels, np.full(len(labels), UNASSIGNED, np.uint8))
    if REFERENCE.fullmatch(source) and not source.startswith(KAGGLE):
        return _checked(registry.load(source, {}, "source")(seed), source)
    path = _download(source.removeprefix(KAGGLE)) if source.startswith(KAGGLE) else Path(source)
    return read_folders(path) if path.is_dir() else fer_csv.read_csv(path)


def _checked(faces: Faces, source: str) -> Faces:
    """The same faces, from a user's function. Raises InputError if a shape or type is wrong."""
    count = len(faces.labels)
    expected = {"images": (count, SIDE, SIDE), "labels": (count,), "split": (count,)}
    for name, shape in expected.items():
        array = getattr(faces, name)
        if array.dtype != np.uint8 or array.shape != shape:
            raise InputError(
                f"source={source}: {name} is {array.dtype} {array.shape}, expected uint8 {shape}"
            )
    if count and faces.labels.max() >= len(CLASSES):
        raise InputError(f"source={source}: a label is {faces.labels.max()}, expected 0 to 6")
    return faces


def read_folders(folder: Path) -> Faces:
    """Faces of `<split>/<class>/*` or `<class>/*`, png or jpg, resized to 48x48 grey levels.

    Sorted by path. Raises InputError for a folder that is neither a class nor a split, for a
    picture that can't be read, and if there is no picture.
    """
    pictures = sorted(_pictures(folder))
    if not pictures:
        raise InputError(
            f"{folder}: no .png or .jpg in class folders; expected train/<class>/*.jpg"
        )
    images = np.empty((len(pictures), SIDE, SIDE), np.uint8)
    for i, (path, _, _) in enumerate(track(pictures, "reading pictures", transient=True)):
        images[i] = read_picture(path)
    codes = np.array([codes for _, *codes in pictures], np.uint8)
    return Faces(images, codes[:, 0].copy(), codes[:, 1].copy())


def _pictures(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield path, class code and split code of each picture below `folder`."""
    folders = _visible_folders(folder)
    splits = {path: SPLIT_FOLDERS.get(path.name.lower(), UNASSIGNED) for path in folders}
    if any(code != UNASSIGNED for code in splits.values()):
        class_folders = []
        for path, code in splits.items():
            if code == UNASSIGNED:
                raise InputError(
                    f"{path}: not a split folder, as others beside it are; rename it to train, "
                    "validation or test, or move it away"
                )
            class_folders += [(below, code) for below in _visible_folders(path)]
    else:
        class_folders = [(path, UNASSIGNED) for path in folders]
    for path, split in class_folders:
        label = SPELLINGS.get(path.name.lower())
        if label is None:
            raise InputError(f"{path}: not a class folder; expected one of {', '.join(CLASSES)}")
        for picture in path.iterdir():
            if picture.suffix.lower() in PICTURES and not picture.name.startswith("."):
                yield picture, label, split


def _visible_folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def read_picture(path: str | Path) -> np.ndarray:
    """A picture as (48, 48) grey levels, upright. Raises InputError if it can't be read."""
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a pixel")  # Pillow would clip them to white
            grey = ImageOps.exif_transpose(picture).convert("L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} can't be read as a picture: {error}; replace or remove it"
        ) from error
    return np.asarray(grey if grey.size == (SIDE, SIDE) else grey.resize((SIDE, SIDE)))


def _download(name: str) -> Path:
    """Folder or CSV of the Kaggle dataset `OWNER/NAME`, downloaded once to kagglehub's cache."""
    if name.count("/") != 1:
        raise InputError(f"kaggle:{name}: expected kaggle:OWNER/NAME")

    import kagglehub  # slow to import

    try:
        with contextlib.redirect_stdout(None):
            folder = Path(kagglehub.dataset_download(name))
    # The remedy is the same for every error of kagglehub and of the network.
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"kaggle:{name} can't be downloaded ({type(error).__name__}: {reason}). Create an API "
            "token at kaggle.com/settings and put it into KAGGLE_API_TOKEN or ~/.kaggle/kaggle.json"
        ) from error
    for wanted in ("fer2013.csv", "icml_face_data.csv", "train"):
        for found in sorted(folder.rglob(wanted)):
            return found.parent if found.is_dir() else found
    return folder
