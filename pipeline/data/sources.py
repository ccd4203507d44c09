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
from pipeline.data.classes import KNOWN, SPELLINGS, Names, in_order, parse_drop, parse_names
from pipeline.data.dataset import SOURCE_SPLITS, Faces, check, face_ids
from pipeline.data.pictures import LARGEST, decode
from pipeline.errors import InputError, note, reason
from pipeline.registry import REFERENCE

SPLIT_FOLDERS = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION, "publictest": VALIDATION,
    "test": TEST, "testing": TEST, "privatetest": TEST,
}  # fmt: skip
"""Split code of a split folder's name, in lower case."""
KNOWN_CSVS = ("fer2013.csv", "icml_face_data.csv")
"""Names of FER2013's CSV, in the order of preference."""
FILES = {".csv", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz"}
PARQUET = ".parquet"
NO_PARQUET = "parquet is read by a function of your own, as docs/data.md shows (known datasets)"
KAGGLE = "kaggle:"


def require(source: str) -> None:
    """Raise InputError if the names in `source` show that it can't be read; reads no data."""
    for one in paths.several(source):
        _require(one)


def _require(source: str) -> None:
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
    if path.suffix.lower() == PARQUET:
        raise InputError(f"{source}: {NO_PARQUET}")
    if path.suffix.lower() not in FILES:
        raise InputError(
            f"{source}: expected .csv (also .csv.gz), a .zip or .tar archive, or a folder of class "
            "folders"
        )


def read(source: str, seed: int, names: str | None = None, drop: str | None = None) -> Faces:
    """Faces of `source`, with the source's own split if it has one.

    `seed` is used by the drawn sample and by a user's function (`package.module:function`). `names`
    and `drop` are the settings. Raises InputError if the source can't be read.
    """
    require(source)
    parts, dropped, given = paths.several(source), parse_drop(drop), parse_names(names)
    if len(given) not in (1, len(parts)):
        raise InputError(f"names={names}: {len(given)} lists for {len(parts)} sources")
    each = given * len(parts) if len(given) == 1 else given
    found = [_read(one, seed, its, dropped) for one, its in zip(parts, each, strict=True)]
    faces = _joined(parts, found) if len(found) > 1 else found[0]
    if unused := [name for one in given for name in one.classes if name not in one.used]:
        raise InputError(f"names={names}: {source} has no class folder and no code {unused[0]}")
    return _without(faces, dropped, source)


def _without(faces: Faces, dropped: Sequence[str], source: str) -> Faces:
    """The faces of other classes. Raises InputError for a class that is not there."""
    for name in dropped:
        if name not in faces.classes:
            raise InputError(f"drop={name}: {source} has the classes {', '.join(faces.classes)}")
    left = faces.of_classes(tuple(name for name in faces.classes if name not in dropped))
    if count := len(faces.labels) - len(left.labels):
        note(f"{source}: left out {count:,} faces of {', '.join(dropped)}")
    return left


def _joined(sources: Sequence[str], found: Sequence[Faces]) -> Faces:
    """Faces of several sources with each image once, and a line about the copies.

    Of pixel-identical copies one of the test split is kept before one of validation, and that
    before the others, of which the first source's comes first. The classes are those of any source.
    """
    classes = found[0].classes
    if any(one.classes != classes for one in found):
        classes = in_order(name for one in found for name in one.classes)
    coded = [one.of_classes(classes) for one in found]
    images, labels, split = (
        np.concatenate([getattr(one, name) for one in coded])
        for name in ("images", "labels", "split")
    )
    ids = face_ids(images)
    first = np.lexsort((np.arange(len(ids)), ~np.isin(split, [VALIDATION, TEST]), split != TEST))
    kept = np.zeros(len(ids), np.bool_)
    kept[first[np.unique(ids[first], return_index=True)[1]]] = True
    ends = np.cumsum([len(one.labels) for one in found])[:-1]
    copies = [int(np.count_nonzero(~part)) for part in np.split(kept, ends)]
    counted = ", ".join(f"{n:,} of {name}" for n, name in zip(copies, sources, strict=True))
    note(
        f"{len(sources)} sources joined: {sum(copies):,} pixel-identical copies removed ({counted})"
    )
    joined = [
        {"source": name, "faces": len(one.labels), "copies_removed": n}
        for name, one, n in zip(sources, found, copies, strict=True)
    ]
    return Faces(images, labels, split, classes, {"joined": joined}).take(kept)


def _read(source: str, seed: int, names: Names, dropped: Collection[str]) -> Faces:
    """Faces of one source."""
    if source == "sample":
        images, labels = sample.draw(seed=seed)
        return Faces(images, labels, np.full(len(labels), UNASSIGNED, np.uint8))
    if REFERENCE.fullmatch(source) and not source.startswith(KAGGLE):
        return _from_function(source, seed)
    path = (
        _download(source.removeprefix(KAGGLE)) if source.startswith(KAGGLE) else paths.find(source)
    )
    files = open_archive(path)
    return fer_csv.read_csv(path, names) if files is None else read_files(files, names, dropped)


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


def read_files(files: Files, names: Names, dropped: Collection[str]) -> Faces:
    """Faces of a folder or an archive: those of the CSV in it, or of its pictures.

    A CSV of a known name comes first, then class folders, then a CSV that is the only one.
    """
    csvs = sorted(name for name in files.names if name.suffix.lower() == ".csv")
    known = [name for wanted in KNOWN_CSVS for name in csvs if name.name.lower() == wanted]
    has_classes = any(_is_known(folder, names, dropped) for folder in files.folders)
    if known or (len(csvs) == 1 and not has_classes):
        chosen = (known or csvs)[0]
        others = [name for name in (*files.names, *files.unreadable) if name != chosen]
        _note_left_out(files.where, others, f"beside {chosen}, which is read")
        for _, file in files.read([chosen]):
            return fer_csv.read_stream(file, files.path(chosen), names)
    if csvs and not has_classes:
        raise InputError(
            f"{files.where}: holds {len(csvs)} CSV files, none of them {' or '.join(KNOWN_CSVS)}; "
            f"give the one to read, such as {csvs[0]}"
        )
    return _read_pictures(files, names, dropped)


def _read_pictures(files: Files, names: Names, dropped: Collection[str]) -> Faces:
    """Faces of `<split>/<class>/**` or `<class>/**`, sorted by path, in 48x48 grey levels.

    Its classes are those of the folders, those `dropped` too, whose pictures are not read. Raises
    InputError for a folder that is neither a class nor a split, for a picture that can't be read,
    and if there is no picture. What is no picture is named in one line.
    """
    folders = _class_folders(files, names, dropped)
    found = {name: folders[folder] for name in files.names if (folder := _above(name, folders))}
    left_out = {name for name, (of, _) in found.items() if of in dropped}
    wanted = sorted(found.keys() - left_out)
    rows = {name: row for row, name in enumerate(wanted)}
    images = np.empty((len(wanted), SIDE, SIDE), np.uint8)
    is_face = np.zeros(len(wanted), np.bool_)
    pictures = files.read(wanted)
    for name, file in track(pictures, "reading pictures", total=len(wanted), transient=True):
        face = decode(file.read(LARGEST + 1), files.path(name))
        if face is not None:
            images[rows[name]], is_face[rows[name]] = face, True
    if not is_face.any() and any(name.suffix == PARQUET for name in files.names):
        raise InputError(f"{files.where}: {NO_PARQUET}")
    if not is_face.any():
        raise InputError(
            f"{files.where}: no picture in class folders; expected train/<class>/*.jpg"
        )
    others = [
        name
        for name in files.names
        if name not in left_out and (name not in rows or not is_face[rows[name]])
    ]
    _note_left_out(files.where, [*others, *files.unreadable], "that are no pictures of a class")
    if left_out:
        note(f"{files.where}: left out {len(left_out):,} files of {', '.join(dropped)}")
    classes = in_order(of for of, _ in folders.values())
    codes = [(classes.index(found[name][0]), found[name][1]) for name in wanted]
    labels, split = np.array(codes, np.uint8)[is_face].T.copy()
    return Faces(images[is_face], labels, split, classes)


def _note_left_out(where: Path, names: Sequence[PurePosixPath], why: str) -> None:
    if names:
        some = ", ".join(map(str, names[:3])) + (", …" if len(names) > 3 else "")
        count = "1 file" if len(names) == 1 else f"{len(names):,} files"
        note(f"{where}: left out {count} {why}: {some}")


def _above(name: PurePosixPath, folders: Collection[PurePosixPath]) -> PurePosixPath | None:
    """The one of `folders` that `name` is below, at any depth."""
    return next((parent for parent in name.parents if parent in folders), None)


def _class_folders(
    files: Files, names: Names, dropped: Collection[str]
) -> dict[PurePosixPath, tuple[str, int]]:
    """Class and split code of each class folder."""
    below: dict[PurePosixPath, list[PurePosixPath]] = {}
    for folder in sorted(files.folders):
        below.setdefault(folder.parent, []).append(folder)
    tops = {folder.parent for folder in files.folders if _is_known(folder, names, dropped)}
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
    classes = {f: (_class_of(files.path(f), names, dropped), split) for f, split in found}
    for folder in files.folders:
        known = folder.name.lower() in {*SPELLINGS, *SPLIT_FOLDERS}
        if folder not in classes and known and _above(folder, classes):
            raise InputError(
                f"{files.path(folder)}: a class or a split within a class folder; expected "
                "train/<class>/*.jpg"
            )
    return classes


def _is_known(folder: PurePosixPath, names: Names, dropped: Collection[str]) -> bool:
    return folder.name.lower() in {*SPELLINGS, *SPLIT_FOLDERS, *names.classes, *dropped}


def _class_of(folder: Path, names: Names, dropped: Collection[str]) -> str:
    """The class of a class folder; a folder that is `dropped` by its name is a class of its own."""
    name = folder.name.lower()
    known = names.of(name)
    if name in dropped:
        return name
    if known is None:
        close = difflib.get_close_matches(name, SPELLINGS, 1)
        should = close[0] if close else f"the one of {', '.join(KNOWN)} that it holds"
        raise InputError(
            f"{folder}: not a class folder; expected one of {', '.join(KNOWN)}; rename it to "
            f"{should}, or move it away to leave its pictures out; or name its class, "
            f"names={folder.name}:{close[0] if close else 'CLASS'}, or leave it out, "
            f"drop={folder.name}"
        )
    return known


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
