"""Data sources: CSV, image folders, Kaggle, drawn sample, or a user's function."""

import contextlib
import difflib
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from rich.progress import track

from pipeline import paths, registry
from pipeline.data import CLASSES, SIDE, TEST, TRAIN, UNASSIGNED, VALIDATION, fer_csv, sample
from pipeline.data.archives import Files, open_archive
from pipeline.data.dataset import SOURCE_SPLITS, Faces, check
from pipeline.data.pictures import LARGEST, decode
from pipeline.errors import InputError, note, reason
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
KNOWN_CSVS = ("fer2013.csv", "icml_face_data.csv")
"""Names of FER2013's CSV, in the order of preference."""
FILES = {".csv", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz"}
KAGGLE = "kaggle:"


def require(source: str) -> None:
    """Raise InputError if the name of `source` shows that it can't be read; reads no data."""
    if source == "sample" or source.startswith(KAGGLE) or REFERENCE.fullmatch(source):
        return
    path = paths.find(source)
    if not paths.exists(path):
        remedy = "; give sample, a CSV, a folder, an archive or kaggle:OWNER/NAME"
        raise paths.missing(source, "file or folder", remedy)
    if path.is_dir():
        return
    if not path.is_file():
        raise InputError(f"{source}: a pipe, a socket or a device; give a file or a folder")
    if path.suffix.lower() not in FILES:
        raise InputError(
            f"{source}: expected .csv (also .csv.gz), a .zip or .tar archive, or a folder of class "
            "folders"
        )


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
        return _from_function(source, seed)
    path = (
        _download(source.removeprefix(KAGGLE)) if source.startswith(KAGGLE) else paths.find(source)
    )
    files = open_archive(path)
    return fer_csv.read_csv(path) if files is None else read_files(files)


def _from_function(source: str, seed: int) -> Faces:
    function = registry.load(source, {}, "source")
    try:
        faces = function(seed)
        images, labels, split = faces.images, faces.labels, faces.split
        classes = getattr(faces, "classes", CLASSES)
    except InputError:
        raise
    except Exception as error:  # a user's function can raise any error
        raise InputError(f"source={source}: {type(error).__name__}: {reason(error)}") from error
    check(images, labels, split, f"source={source}", SOURCE_SPLITS, classes)
    return Faces(images, labels, split, tuple(classes))


def read_files(files: Files) -> Faces:
    """Faces of a folder or an archive: those of the CSV in it, or of its pictures.

    A CSV of a known name comes first, then class folders, then a CSV that is the only one.
    """
    csvs = sorted(name for name in files.names if name.suffix.lower() == ".csv")
    known = [name for wanted in KNOWN_CSVS for name in csvs if name.name.lower() == wanted]
    has_classes = any(p.name.lower() in {*SPELLINGS, *SPLIT_FOLDERS} for p in files.folders)
    if known or (len(csvs) == 1 and not has_classes):
        chosen = (known or csvs)[0]
        others = [name for name in (*files.names, *files.unreadable) if name != chosen]
        _note_left_out(files.where, others, f"beside {chosen}, which is read")
        for _, file in files.read([chosen]):
            return fer_csv.read_stream(file, files.path(chosen))
    if csvs and not has_classes:
        raise InputError(
            f"{files.where}: holds {len(csvs)} CSV files, none of them {' or '.join(KNOWN_CSVS)}; "
            f"give the one to read, such as {csvs[0]}"
        )
    return _read_pictures(files)


def _read_pictures(files: Files) -> Faces:
    """Faces of `<split>/<class>/**` or `<class>/**`, sorted by path, in 48x48 grey levels.

    Raises InputError for a folder that is neither a class nor a split, for a picture that can't be
    read, and if there is no picture. What is no picture is named in one line.
    """
    classes = _class_folders(files)
    codes = {name: classes[folder] for name in files.names if (folder := _above(name, classes))}
    names = sorted(codes)
    rows = {name: row for row, name in enumerate(names)}
    images = np.empty((len(names), SIDE, SIDE), np.uint8)
    is_face = np.zeros(len(names), np.bool_)
    pictures = files.read(names)
    for name, file in track(pictures, "reading pictures", total=len(names), transient=True):
        face = decode(file.read(LARGEST + 1), files.path(name))
        if face is not None:
            images[rows[name]], is_face[rows[name]] = face, True
    if not is_face.any():
        raise InputError(
            f"{files.where}: no picture in class folders; expected train/<class>/*.jpg"
        )
    left_out = [name for name in files.names if name not in rows or not is_face[rows[name]]]
    _note_left_out(files.where, [*left_out, *files.unreadable], "that are no pictures of a class")
    labels, split = np.array([codes[name] for name in names], np.uint8)[is_face].T.copy()
    return Faces(images[is_face], labels, split)


def _note_left_out(where: Path, names: Sequence[PurePosixPath], why: str) -> None:
    if names:
        some = ", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else "")
        count = "1 file" if len(names) == 1 else f"{len(names):,} files"
        note(f"{where}: left out {count} {why}: {some}")


def _above(name: PurePosixPath, folders: Collection[PurePosixPath]) -> PurePosixPath | None:
    """The one of `folders` that `name` is below, at any depth."""
    return next((parent for parent in name.parents if parent in folders), None)


def _class_folders(files: Files) -> dict[PurePosixPath, tuple[int, int]]:
    """Class code and split code of each class folder."""
    below: dict[PurePosixPath, list[PurePosixPath]] = {}
    for folder in sorted(files.folders):
        below.setdefault(folder.parent, []).append(folder)
    tops = {folder.parent for folder in files.folders if _is_known(folder)}
    highest = min((len(top.parts) for top in tops), default=0)
    tops = {top for top in tops if len(top.parts) == highest}  # there may be folders around all
    top = tops.pop() if len(tops) == 1 else PurePosixPath()
    splits = {f: SPLIT_FOLDERS.get(f.name.lower(), UNASSIGNED) for f in below.get(top, [])}
    if all(code == UNASSIGNED for code in splits.values()):
        found = [(folder, UNASSIGNED) for folder in splits]
    else:
        found = []
        for folder, code in splits.items():
            if code == UNASSIGNED:
                raise InputError(
                    f"{files.path(folder)}: not a split folder, as others beside it are; rename it "
                    "to train, validation or test, or move it away"
                )
            found += [(inner, code) for inner in below.get(folder, [])]
    classes = {f: (_class_code(files.path(f)), split) for f, split in found}
    for folder in files.folders:
        if folder not in classes and _is_known(folder) and _above(folder, classes):
            raise InputError(
                f"{files.path(folder)}: a class or a split within a class folder; expected "
                "train/<class>/*.jpg"
            )
    return classes


def _is_known(folder: PurePosixPath) -> bool:
    return folder.name.lower() in {*SPELLINGS, *SPLIT_FOLDERS}


def _class_code(folder: Path) -> int:
    label = SPELLINGS.get(folder.name.lower())
    if label is None:
        close = difflib.get_close_matches(folder.name.lower(), SPELLINGS, 1)
        name = close[0] if close else f"the one of {', '.join(CLASSES)} that it holds"
        raise InputError(
            f"{folder}: not a class folder; expected one of {', '.join(CLASSES)}; rename it to "
            f"{name}, or move it away to leave its pictures out"
        )
    return label


def _download(name: str) -> Path:
    """Folder of the Kaggle dataset `OWNER/NAME`, downloaded once to kagglehub's cache."""
    if name.count("/") != 1:
        raise InputError(f"kaggle:{name}: expected kaggle:OWNER/NAME")

    try:
        import kagglehub  # slow to import

        with contextlib.redirect_stdout(None):
            return Path(kagglehub.dataset_download(name))
    # The remedy is the same for every error of kagglehub and of the network.
    except Exception as error:
        raise InputError(
            f"kaggle:{name} can't be downloaded ({type(error).__name__}: {reason(error, 120)}). "
            "Create an API token at kaggle.com/settings and put it into KAGGLE_API_TOKEN or "
            "~/.kaggle/kaggle.json"
        ) from error
