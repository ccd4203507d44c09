"""Property tests of what reads foreign bytes and texts: it answers, or refuses in one line.

A few hundred cases are in the suite; `make fuzz` tries many more (FUZZ, a factor).
"""

import csv
import gzip
import io
import json
import os
import shlex
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import cli, secrets
from pipeline.data import CLASSES, UNASSIGNED, dataset, pictures, sources, splitting, votes
from pipeline.data.dataset import Faces
from pipeline.data.fer_csv import read_csv
from pipeline.data.sample import draw
from pipeline.errors import InputError, one_line
from pipeline.networks import files
from pipeline.settings import EvaluateSettings, IngestSettings, Settings, TrainSettings
from pipeline.training import checkpoint
from search.settings import CompareSettings, GridSettings, SearchSettings

FACTOR = int(os.environ.get("FUZZ", "1"))
"""How many times as many cases as in the suite."""
Change = Callable[[bytes], bytes]


def cases(count: int) -> Any:
    """Settings of a property that is tried `count` times in the suite."""
    return settings(
        max_examples=count * FACTOR,
        deadline=None,
        database=None,
        derandomize=FACTOR == 1,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def in_one_line() -> Iterator[None]:
    """Let a block refuse its input, in one line that can be printed."""
    try:
        yield
    except InputError as error:
        said = str(error)
        assert said, "no word about it"
        assert said.isprintable(), said


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def changes(draw_one: st.DrawFn) -> Change:
    """A change to bytes: some are replaced, cut out, doubled or inserted, at a share of the way."""
    kind = draw_one(st.sampled_from(("flip", "cut", "end", "double", "insert")))
    share = draw_one(st.floats(0, 1, exclude_max=True))
    size = draw_one(st.sampled_from((1, 2, 8, 100, 5000)))
    new = draw_one(st.binary(min_size=1, max_size=12) | st.sampled_from(TOKENS))

    def change(whole: bytes) -> bytes:
        at = int(share * len(whole))
        match kind:
            case "flip":
                return whole[:at] + new + whole[at + len(new) :]
            case "cut":
                return whole[:at] + whole[at + size :]
            case "end":
                return whole[:at]
            case "double":
                return whole[: at + size] + whole[at:]
            case _:
                return whole[:at] + new + whole[at:]

    return change


TOKENS = [
    b'"',
    b'""',
    b",",
    b";",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\x1b[2J",
    b"emotion",
    b"256",
    b"-1",
]


@cache
def faces() -> Faces:
    images, labels = draw(count=14, seed=3)
    return Faces(images, labels, np.full(14, UNASSIGNED, np.uint8))


@cache
def csv_text() -> bytes:
    some = faces()
    rows = [
        f"{label},{' '.join(map(str, image.ravel()))},Training"
        for image, label in zip(some.images[:3], some.labels[:3], strict=True)
    ]
    return "\n".join(["emotion,pixels,Usage", *rows, ""]).encode()


def as_strict_csv(text: bytes) -> list[tuple[int, list[int]]] | None:
    """Labels and pixels as Python's strict csv module reads them; None where it does not."""
    lines = io.StringIO(text.decode("utf-8-sig"), newline="")
    separator = max(",;\t", key=text.split(b"\n")[0].decode("utf-8-sig").count)
    try:
        header, *rows = [
            row
            for row in csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
            if row
        ]
    except csv.Error:
        return None
    names = [name.strip().lower() for name in header]
    columns = names.index("emotion"), names.index("pixels")
    return [(int(row[columns[0]]), [*map(int, row[columns[1]].split())]) for row in rows]


@cases(60)
@given(st.lists(changes(), min_size=1, max_size=3), st.sampled_from((".csv", ".csv.gz")))
def test_a_changed_csv_is_refused_or_read_as_a_strict_reader_does(
    changed: list[Change], suffix: str
) -> None:
    text = csv_text()
    for change in changed:
        text = change(text)
    with folder() as place, in_one_line():
        file = place / f"a{suffix}"
        file.write_bytes(gzip.compress(text, 1) if suffix.endswith("gz") else text)
        read = read_csv(file)
        if b"\n" in text.split(b"\r")[0] or b"\r" not in text:  # not of an old Mac
            expected = as_strict_csv(text)
            assert expected is not None
            assert [label for label, _ in expected] == read.labels.tolist()
            assert [pixels for _, pixels in expected] == read.images.reshape(-1, 2304).tolist()


@cases(60)
@given(st.lists(changes(), min_size=1, max_size=3))
def test_changed_votes_are_refused_or_numbers_of_people(changed: list[Change]) -> None:
    some = faces()
    rows = [",x," + ",".join(map(str, 9 * np.eye(10, dtype=int)[label])) for label in some.labels]
    header = "Usage,name,anger,disgust,fear,happiness,sadness,surprise,neutral,contempt,unknown,NF"
    text = "\n".join([header, *("Training" + row for row in rows), ""]).encode()
    for change in changed:
        text = change(text)
    with folder() as place, in_one_line():
        (place / "votes.csv").write_bytes(text)
        read = votes.join(some, place / "votes.csv").votes
        assert read is not None
        assert (read.dtype, read.shape) == (np.uint8, (14, 7))
        assert read.any()


@cache
def archive(kind: str) -> bytes:
    """A small archive of two pictures in class folders and a CSV."""
    with folder() as place:
        (place / "a" / "train" / "happy").mkdir(parents=True)
        for k in range(2):
            Image.fromarray(faces().images[k]).save(place / "a" / "train" / "happy" / f"{k}.png")
        (place / "a" / "notes.csv").write_bytes(csv_text()[:3000])
        if kind == "lzma":
            with zipfile.ZipFile(place / "b", "w", zipfile.ZIP_LZMA) as out:
                out.write(place / "a" / "notes.csv", "fer2013.csv")
            return (place / "b").read_bytes()
        return Path(shutil.make_archive(str(place / "b"), kind, place, "a")).read_bytes()


@cases(50)
@given(
    st.sampled_from(("zip", "lzma", "tar", "gztar", "bztar", "xztar")),
    st.lists(changes(), min_size=1, max_size=3),
)
def test_a_changed_archive_is_read_or_refused(kind: str, changed: list[Change]) -> None:
    data = archive(kind)
    for change in changed:
        data = change(data)
    with folder() as place, in_one_line():
        (place / "a.zip").write_bytes(data)
        read = sources.read(str(place / "a.zip"), seed=0)
        assert read.images.shape == (len(read.labels), 48, 48)
        assert read.labels.max() < len(CLASSES)


@cache
def picture(kind: str) -> bytes:
    out = io.BytesIO()
    grey = Image.fromarray(faces().images[0])
    (grey.convert("RGB") if kind in ("QOI", "ICO") else grey).save(out, kind)
    return out.getvalue()


@cases(100)
@given(
    st.sampled_from(("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA", "AVIF",
                     "QOI", "ICO", "SGI", "PCX", "DDS", "EPS")),
    st.sampled_from((".png", ".tga", ".eps", ".unknown", "")),
    st.lists(changes(), min_size=1, max_size=3),
)  # fmt: skip
def test_a_changed_picture_is_a_face_none_or_refused(
    kind: str, suffix: str, changed: list[Change]
) -> None:
    data = picture("PNG" if kind == "DDS" else kind)
    data = b"DDS |" + data[5:] if kind == "DDS" else data
    for change in changed:
        data = change(data)
    with in_one_line():
        face = pictures.decode(data, Path(f"a{suffix}"))
        assert face is None or (face.shape == (48, 48) and face.dtype == np.uint8)


NAMES = st.sampled_from(
    ("train", "test", "val", "happy", "sad", "Anger", "suprise", "bored", "__MACOSX", "@eaDir",
     ".hidden", "a b", "x\ny", "\x1b[31m", "[red]", "1", "images")
)  # fmt: skip
FILES = st.sampled_from(
    ("1.png", "2.JPG", "3.webp", ".DS_Store", "Thumbs.db", "._1.png", "notes.txt", "x.csv",
     "fer2013.csv", "no suffix", "n\nl.png")
)  # fmt: skip


@cases(60)
@given(
    st.lists(st.tuples(st.lists(NAMES, max_size=4), FILES), min_size=1, max_size=8),
    st.sampled_from(("folder", "zip", "tar")),
)
def test_any_tree_is_read_or_refused_and_no_picture_is_lost_in_silence(
    entries: list[tuple[list[str], str]], kind: str
) -> None:
    with folder() as place:
        root = place / "root"
        for folders, name in entries:
            where = root.joinpath(*folders)
            where.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(csv_text() if name.endswith(".csv") else picture("PNG"))
        source = str(root) if kind == "folder" else shutil.make_archive(str(root), kind, root)
        said = io.StringIO()
        with in_one_line(), redirect_stderr(said):
            read = sources.read(source, seed=0)
            seen = [f for f in root.rglob("*") if f.is_file() and not is_junk(f.relative_to(root))]
            if len(read.labels) < len(seen):
                assert "left out" in said.getvalue()
            assert said.getvalue().count("\n") <= 1


def is_junk(path: Path) -> bool:
    return any(p.startswith(".") or p in ("__MACOSX", "@eaDir", "Thumbs.db") for p in path.parts)


@cache
def saved_dataset() -> dict[str, bytes]:
    images, labels = draw(count=70, seed=3)
    cast = 9 * np.eye(7, dtype=np.uint8)[labels]
    about = {"votes": "votes.csv"}
    some = Faces(images, labels, np.full(70, UNASSIGNED, np.uint8), about=about, votes=cast)
    made = splitting.assemble(some, source="drawn", policy="report", seed=4)
    with folder() as place:
        dataset.save(made, place / "d")
        return {file.name: file.read_bytes() for file in (place / "d").iterdir()}


@cases(100)
@given(
    st.sampled_from(("images.npy", "labels.npy", "split.npy", "votes.npy", "dataset.json")),
    st.lists(changes(), min_size=1, max_size=2) | st.sampled_from(("i1", "b1", "S1", "f8")),
)
def test_a_changed_dataset_is_refused_or_has_the_same_content(
    name: str, changed: "list[Change] | str"
) -> None:
    whole = saved_dataset()
    data = whole[name]
    if isinstance(changed, str):
        data = data.replace(b"|u1", b"|" + changed.encode(), 1)
    else:
        for change in changed:
            data = change(data)
    with folder() as place:
        for file, content in (whole | {name: data}).items():
            (place / file).write_bytes(content)
        with in_one_line():
            read = dataset.load(place)
            with folder() as other:
                for file, content in whole.items():
                    (other / file).write_bytes(content)
                first = dataset.load(other)
            for array in ("images", "labels", "split", "votes"):
                assert np.array_equal(getattr(read, array), getattr(first, array))


@cache
def saved_checkpoint() -> bytes:
    variables = [keras.Variable(np.arange(12, dtype=np.float32).reshape(3, 4)), keras.Variable(1.5)]
    state = checkpoint.TrainState([{"val/accuracy": 0.5}], 1, [np.ones((3, 4), np.float32)])
    with folder() as place:
        checkpoint.save(place / "c.npz", variables, state)
        return (place / "c.npz").read_bytes()


@cases(60)
@given(st.lists(changes(), min_size=1, max_size=2))
def test_a_changed_checkpoint_is_refused_or_the_same(changed: list[Change]) -> None:
    data = saved_checkpoint()
    for change in changed:
        data = change(data)
    with folder() as place:
        (place / "a.npz").write_bytes(data)
        (place / "b.npz").write_bytes(saved_checkpoint())
        with in_one_line():
            assert contents(place / "a.npz") == contents(place / "b.npz")


def contents(file: Path) -> dict[str, bytes]:
    """What a checkpoint sets, as bytes."""
    variables, state = (
        [keras.Variable(np.zeros((3, 4))), keras.Variable(0.0)],
        checkpoint.TrainState(),
    )
    checkpoint.load(file, variables, state)
    arrays = [*files.get_state(variables), *state.best_weights]
    return {str(k): array.tobytes() for k, array in enumerate(arrays)} | {
        "about": json.dumps([state.history, state.best_epoch]).encode()
    }


@cache
def saved_network() -> bytes:
    images = keras.Input((48, 48, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(images))
    with folder() as place:
        keras.Model(images, keras.layers.Dense(7, activation="softmax")(x)).save(place / "n.keras")
        return (place / "n.keras").read_bytes()


@cases(12)
@given(
    st.lists(changes(), min_size=1, max_size=2)
    | st.tuples(
        st.sampled_from(('"units": 7', '"softmax"', '"Dense"', "[8, 8]", "48", '"float32"')),
        st.sampled_from(("1000000000", '"linear"', '"Lambda"', "[1, 1]", "0", "-1", '"int8"', "{}",
                         "[[[[]]]]", '"units": 100000000')),
    )
)  # fmt: skip
def test_a_changed_network_is_refused_or_gives_probabilities(
    changed: "list[Change] | tuple[str, str]",
) -> None:
    data = saved_network()
    if isinstance(changed, tuple):
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "config.json":
                    content = content.replace(changed[0].encode(), changed[1].encode(), 1)
                target.writestr(name, content)
        data = out.getvalue()
    else:
        for change in changed:
            data = change(data)
    with folder() as place, in_one_line():
        (place / "n.keras").write_bytes(data)
        model = files.load(place / "n.keras")
        answers = files.predict(model, faces().images[:2, ..., np.newaxis])
        assert np.allclose(answers.sum(axis=1), 1, atol=0.01)


CLASSES_OF_SETTINGS = (
    IngestSettings, TrainSettings, EvaluateSettings, SearchSettings, GridSettings, CompareSettings,
)  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ("", "None", "true", "latest", "1e308", "-1", "nan", "9" * 5000, "a:b", "x.y:z")
    ),
)


@cases(80)
@given(st.sampled_from(CLASSES_OF_SETTINGS), st.data())
def test_any_command_line_gives_settings_or_one_line(
    settings_class: type[Settings], data: st.DataObject
) -> None:
    names = st.sampled_from([*settings_class.fields()]) | st.text(max_size=10)
    arguments: list[str] = []
    for name, value in data.draw(st.lists(st.tuples(names, VALUES), max_size=4)):
        arguments += [f"--{name}={value}"] if data.draw(st.booleans()) else [f"--{name}", value]
    if {"--help", "-h"} & {argument.partition("=")[0] for argument in arguments}:
        return
    with in_one_line():
        found = cli.parse(settings_class, arguments)
        for name, field in settings_class.fields().items():
            assert field.accepts(getattr(found, name)), shlex.join(arguments)


SECRET = st.text("abcXYZ019@:/?#&=%+;!$ é", min_size=3, max_size=12).map(lambda s: f"Q7{s}Z9")


@cases(100)
@given(
    SECRET,
    st.sampled_from(
        ("postgresql://alice:{}@host/db", "mysql+pymysql://a:{}@h:1/d?x=1", "http://u:{}@h/p#f",
         "postgresql://h/d?user=alice&password={}", "redis://:{}@h", "x://h/?odbc_connect=PWD%3D{}",
         "https://{}@h/")
    ),
    st.sampled_from(("{}", "can't reach {}: no", "a\n{}\nb", "'{}'", "({})")),
)  # fmt: skip
def test_no_secret_is_left_in_a_line(secret: str, address: str, text: str) -> None:
    full = address.format(secret)
    assert "Q7" not in secrets.masked(full)
    assert "Q7" not in secrets.without_user(full)
    secrets.remember(full)
    assert "Q7" not in one_line(text.format(full)), full
    secrets._addresses.clear()
    secrets._known.clear()
    secrets._users.clear()


@cases(60)
@given(st.text(max_size=200))
def test_any_text_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert str(InputError(text)).isprintable()


@cases(20)
@given(st.binary(max_size=600), st.sampled_from((".csv", ".zip", ".tar.gz", ".gz")))
def test_random_bytes_are_refused(data: bytes, suffix: str) -> None:
    with folder() as place, in_one_line():
        (place / f"a{suffix}").write_bytes(data)
        sources.read(str(place / f"a{suffix}"), seed=0)
        raise AssertionError("accepted")


@cases(20)
@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=30), st.sampled_from("0125xgL")), max_size=4)
)
def test_a_tar_with_any_members_is_read_or_refused(members: list[tuple[str, str]]) -> None:
    with folder() as place, in_one_line():
        with tarfile.open(place / "a.tar", "w", errors="replace", encoding="utf-8") as out:
            for name, kind in members:
                member = tarfile.TarInfo(name.replace("\0", ""))
                member.type = kind.encode()
                content = picture("PNG") if kind == "0" else b""
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
        sources.read(str(place / "a.tar"), seed=0)
