"""Tests of the data sources; errors name the file and the row."""

import contextlib
import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipeline.data import CLASSES, TEST, TRAIN, UNASSIGNED, VALIDATION, sources
from pipeline.data.dataset import Faces
from pipeline.data.fer_csv import read_csv
from pipeline.data.pictures import read_picture
from pipeline.errors import InputError

USAGE = {TRAIN: "Training", VALIDATION: "PublicTest", TEST: "PrivateTest"}


def row(face: np.ndarray) -> str:
    return " ".join(map(str, face.ravel().tolist()))


def write_kaggle(file: Path, faces: Faces) -> Path:
    """fer2013.csv's form: emotion,pixels,Usage."""
    lines = ["emotion,pixels,Usage"]
    for image, label, split in zip(faces.images, faces.labels, faces.split, strict=True):
        lines.append(f"{label},{row(image)},{USAGE.get(int(split), '')}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def some(faces: Faces) -> Faces:
    split = np.array([TRAIN] * 8 + [VALIDATION] * 2 + [TEST] * 2, np.uint8)
    return Faces(faces.images[:12], faces.labels[:12], split)


def same(a: Faces, b: Faces) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("images", "labels", "split"))


def named(faces: Faces) -> list[str]:
    return [faces.classes[label] for label in faces.labels]


def test_kaggles_fer2013_csv_is_read(tmp_path: Path, some: Faces) -> None:
    assert same(read_csv(write_kaggle(tmp_path / "fer2013.csv", some)), some)


def test_icml_face_data_with_blanks_in_its_header_and_another_order_is_read(
    tmp_path: Path, some: Faces
) -> None:
    lines = ["emotion, Usage, pixels"]
    for image, label, split in zip(some.images, some.labels, some.split, strict=True):
        lines.append(f"{label},{USAGE[int(split)]},{row(image)}")
    file = tmp_path / "icml_face_data.csv"
    file.write_text("\n".join(lines))  # without a newline at the end
    assert same(read_csv(file), some)


def test_quotes_carriage_returns_a_byte_order_mark_and_further_columns_do_not_matter(
    tmp_path: Path, some: Faces
) -> None:
    lines = ['\ufeff"Emotion","name","Pixels","USAGE"']
    for k, (image, label, split) in enumerate(
        zip(some.images, some.labels, some.split, strict=True)
    ):
        lines.append(f'"{label}",face {k},"{row(image)} ", "{USAGE[int(split)]}"')
    file = tmp_path / "quoted.csv"
    file.write_bytes("\r\n".join([*lines, "", ""]).encode())
    assert same(read_csv(file), some)


def test_a_csv_without_usage_has_no_split_of_its_own(tmp_path: Path, some: Faces) -> None:
    file = tmp_path / "train.csv"
    file.write_text(
        "emotion,pixels\n" + "".join(f"{k % 7},{row(f)}\n" for k, f in enumerate(some.images))
    )
    assert set(read_csv(file).split) == {UNASSIGNED}


@pytest.mark.parametrize("archive", ["fer2013.csv.gz", "fer2013.zip"])
def test_an_archive_is_read_like_the_file_in_it(tmp_path: Path, some: Faces, archive: str) -> None:
    plain = write_kaggle(tmp_path / "fer2013.csv", some)
    packed = tmp_path / archive
    if archive.endswith(".gz"):
        packed.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
            out.write(plain, "fer2013.csv")
            out.writestr("README.txt", "not a table")
    assert same(sources.read(str(packed), seed=0), some)


def test_blocks_of_any_size_give_the_same_faces(
    tmp_path: Path, some: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_kaggle(tmp_path / "fer2013.csv", some)
    for size in (97, 5_000, 20_011):
        monkeypatch.setattr("pipeline.data.fer_csv.BLOCK_BYTES", size)
        assert same(read_csv(file), some)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    images=arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(48), st.just(48))), data=st.data()
)
def test_any_grey_levels_come_back_as_they_were_written(
    tmp_path: Path, images: np.ndarray, data: st.DataObject
) -> None:
    n = len(images)
    labels = data.draw(arrays(np.uint8, n, elements=st.integers(0, 6)))
    split = data.draw(arrays(np.uint8, n, elements=st.integers(0, 2)))
    written = Faces(images, labels, split)
    assert same(read_csv(write_kaggle(tmp_path / "any.csv", written)), written)


FACE = " ".join(["7"] * 2304)


HEADER = "emotion,pixels,Usage\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        (HEADER, "no row after the header"),
        (f"{HEADER}\n\n", "no row after the header"),
        ("emotion,Usage\n0,Training\n", "the header has no column pixels"),
        (f"{HEADER}0,{FACE} 7,Training\n", "row 1: 2,305 pixels, expected 2,304"),
        (f"{HEADER}0,{FACE[2:]},Training\n", "row 1: 2,303 pixels, expected 2,304"),
        (f"{HEADER}0,{FACE},Training\n0,{FACE[:-1]}256,Training\n", "row 2: pixel 2,304 is not"),
        (f"{HEADER}0,-1{FACE[1:]},Training\n", "row 1: pixel 1 is not a whole number from 0 to"),
        (f"{HEADER}0,{FACE[:-1]}x,Training\n", "row 1: pixel 2,304 is not a whole number"),
        (f"{HEADER}0,1.5{FACE[1:]},Training\n", "row 1: pixel 1 is not a whole number"),
        (f"{HEADER}7,{FACE},Training\n", "row 1: emotion is not a class code 0-6"),
        (f"{HEADER},{FACE},Training\n", "row 1: emotion is not a class code 0-6"),
        (f"{HEADER}0,{FACE},Holiday\n", "row 1: unknown Usage"),
        (f"{HEADER}0,{FACE}\n", "row 1: 2 columns"),
        (f"{HEADER}0,{FACE},Training,1\n", "row 1: 4 columns"),
        ("emotion,emotion,pixels\n0,0,{FACE}\n", "two columns emotion"),
        (f"pixels,emotion,PIXELS\n{FACE},0,{FACE}\n", "two columns pixels"),
        ('emotion,"pixels\n', "damaged quotation marks in the header"),
        (f'{HEADER}0,{FACE[2:-1]}1"2,Training\n', "row 1: pixel 2,303 is not"),
        (f'{HEADER}0,"{FACE},Training\n', "row 1: a damaged quotation mark in column 2"),
        (f'{HEADER}0,"{FACE}" 7,Training\n', "row 1: a damaged quotation mark in column 2"),
        (f"{HEADER}0,{FACE},Training\n0," + "7" * (3 << 20), "row 2: longer than 1 MB"),
        (HEADER + "\n" * (33 << 20), "row 1: longer than 1 MB"),
        ("emotion,pixels" + "," * (1 << 20), "its first line is longer than 64 kB"),
        ("\x1b[31mred\x07,\x00\n1,2\n", r"no column emotion: \x1b[31mred\x07,\x00"),
    ],
)
def test_a_broken_csv_is_refused_by_name_and_row(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "fer2013.csv"
    file.write_text(content)
    with pytest.raises(InputError, match="fer2013.csv") as error:
        read_csv(file)
    assert said in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "written_by",
    [
        lambda text: text.replace("\n", "\r").encode(),  # an old Mac
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace("\n", '\n"a; b, ""c"".png",').replace("emo", '"path, a",emo', 1)
        .removesuffix('"a; b, ""c"".png",').encode(),
    ],
    ids=["cr", "semicolons", "tabs", "commas in quotes"],
)  # fmt: skip
def test_a_dialect_that_is_unambiguous_is_read(
    tmp_path: Path, some: Faces, written_by: Callable[[str], bytes]
) -> None:
    file = write_kaggle(tmp_path / "fer2013.csv", some)
    file.write_bytes(written_by(file.read_text()))
    assert same(read_csv(file), some)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_utf_16_is_called_by_its_name(tmp_path: Path, some: Faces, encoding: str) -> None:
    file = write_kaggle(tmp_path / "fer2013.csv", some)
    file.write_bytes(file.read_text().encode(encoding))
    with pytest.raises(InputError, match=r"fer2013.csv is UTF-16 text; save it as UTF-8"):
        read_csv(file)


def test_the_row_is_counted_over_blocks(
    tmp_path: Path, some: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.fer_csv.BLOCK_BYTES", 10_000)
    file = write_kaggle(tmp_path / "fer2013.csv", some)
    file.write_text(file.read_text() + "9,1 2 3,Training\n")
    with pytest.raises(InputError, match="row 13: emotion"):
        read_csv(file)


def test_a_truncated_archive_is_refused(tmp_path: Path, some: Faces) -> None:
    packed = gzip.compress(write_kaggle(tmp_path / "fer2013.csv", some).read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="cut.csv.gz can't be read"):
        read_csv(tmp_path / "cut.csv.gz")


def test_an_archive_with_a_password_is_refused(tmp_path: Path, some: Faces) -> None:
    plain = write_kaggle(tmp_path / "fer2013.csv", some)
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as out:
        out.write(plain, "fer2013.csv")
    packed = bytearray((tmp_path / "locked.zip").read_bytes())
    for flags in (6, packed.index(b"PK\x01\x02") + 8):  # of the file, and of the directory
        packed[flags] |= 1  # encrypted
    (tmp_path / "locked.zip").write_bytes(packed)
    with pytest.raises(InputError, match=r"locked.zip can't be read: .*password"):
        sources.read(str(tmp_path / "locked.zip"), seed=0)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as out:
        member = tarfile.TarInfo("video.mp4")
        member.size = 100 << 20
        out.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(InputError, match="unpacks to more than 50 times its size"):
        sources.read(str(tmp_path / "bomb.tar.gz"), seed=0)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("happy/a.png", bytes(100 << 20))
    with pytest.raises(InputError, match="unpacks to more than 50 times its size"):
        sources.read(str(tmp_path / "bomb.zip"), seed=0)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_refused(tmp_path: Path, some: Faces, method: int) -> None:
    plain = write_kaggle(tmp_path / "fer2013.csv", some)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as out:
        out.write(plain, "fer2013.csv")
    whole = (tmp_path / "a.zip").read_bytes()
    for place in (70, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(InputError):
            sources.read(str(tmp_path / "a.zip"), seed=0)


def write_tree(folder: Path, faces: Faces, suffixes: Sequence[str] = ("png",)) -> Path:
    """Class folders `train/<class>/deeper/<number>.<suffix>`, with an operating system's junk."""
    for k, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        place = folder / "train" / CLASSES[label] / f"deeper {k % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{k}.{suffixes[k % len(suffixes)]}")
    for junk in ("__MACOSX/train/happy/._1.png", "train/.DS_Store", "train/happy/Thumbs.db",
                 "train/sad/@eaDir/1.png", "train/fear/._2.png"):  # fmt: skip
        (folder / junk).parent.mkdir(parents=True, exist_ok=True)
        (folder / junk).write_bytes(b"junk")
    return folder


def pack(source: Path, name: str, kind: str) -> str:
    return shutil.make_archive(str(source.parent / name), kind, source.parent, source.name)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gztar", "xztar"])
def test_class_folders_are_read_at_any_depth_and_out_of_archives(
    tmp_path: Path, some: Faces, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tree(tmp_path / "faces", some)
    read = sources.read(str(folder) if kind == "folder" else pack(folder, "a", kind), seed=0)
    assert sorted(map(bytes, read.images)) == sorted(map(bytes, some.images))
    assert sorted(named(read)) == sorted(named(some))
    assert set(read.split) == {TRAIN}
    assert capsys.readouterr().err == "", "junk passes in silence"


@pytest.mark.parametrize(("name", "kind"), [("mac", "zip"), ("fer2013", "gztar")])
def test_the_csv_in_an_archive_is_found_among_other_files(
    tmp_path: Path, some: Faces, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fer2013"
    (folder / "__MACOSX").mkdir(parents=True)
    (folder / "__MACOSX" / "._fer2013.csv").write_bytes(b"\0\5\26\7Mac OS X")
    write_kaggle(folder / "fer2013.csv", some)
    for other in ("README", "train.csv", "example_submission.csv"):
        (folder / other).write_text("a,b\n1,2\n")
    assert same(sources.read(pack(folder, name, kind), seed=0), some)
    assert "left out 3 files beside fer2013/fer2013.csv" in capsys.readouterr().err


def test_of_csvs_with_other_names_one_has_to_be_given(tmp_path: Path, some: Faces) -> None:
    (tmp_path / "two").mkdir()
    for name in ("a.csv", "b.csv"):
        write_kaggle(tmp_path / "two" / name, some)
    with pytest.raises(InputError, match="holds 2 CSV files.*give the one to read, such as"):
        sources.read(pack(tmp_path / "two", "two", "zip"), seed=0)


def test_every_format_of_pillows_that_is_safe_is_read_and_the_rest_is_named(
    tmp_path: Path, some: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    lossless = ("png", "bmp", "tiff", "tif", "gif", "pgm", "ppm", "tga", "dib", "apng")
    folder = write_tree(tmp_path / "lossless", some, lossless)
    read = sources.read(str(folder), seed=0)
    assert sorted(map(bytes, read.images)) == sorted(map(bytes, some.images))
    folder = write_tree(tmp_path / "lossy", some, ("webp", "jpg", "jfif", "jpe", "avif", "jp2"))
    for name in ("notes.txt", "face.heic", "drawing.eps"):
        (folder / "train" / "happy" / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert len(sources.read(str(folder), seed=0).images) == 12
    said = capsys.readouterr().err
    assert "left out 3 files that are no pictures of a class: train/happy/drawing.eps" in said
    assert said.count("\n") == 1


def test_a_picture_is_told_by_its_content_where_its_name_says_nothing(
    tmp_path: Path, some: Faces
) -> None:
    folder = write_tree(tmp_path / "faces", some)
    for file in folder.rglob("*.png"):
        file.rename(file.with_suffix(".jpg_large"))
    assert len(sources.read(str(folder), seed=0).images) == 12


def test_postscript_under_a_pictures_name_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n")
    with pytest.raises(InputError, match="x.png can't be read as a picture"):
        read_picture(tmp_path / "x.png")


def test_what_is_transparent_is_white_whatever_colour_it_hides(tmp_path: Path) -> None:
    for hidden in (0, 255):
        Image.new("LA", (48, 48), (hidden, 0)).save(tmp_path / "a.png")
        assert (read_picture(tmp_path / "a.png") == 255).all()


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (8_000, 8_000)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="more than 50,000,000 pixels"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    for place in ("faces/happy/x.png", "x.csv"):
        make(tmp_path / place)
        with pytest.raises(InputError, match="a pipe, a socket or a device"):
            sources.read(str(tmp_path / place.removesuffix("/happy/x.png")), seed=0)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, some: Faces) -> None:
    folder = write_tree(tmp_path / "faces", some)
    with contextlib.chdir(folder / "train" / "happy"):
        for _ in range(20):  # a path longer than the system takes
            Path("d" * 250).mkdir()
            os.chdir("d" * 250)
    with pytest.raises(InputError, match="a folder can't be read: .* too long"):
        sources.read(str(folder), seed=0)


def test_a_split_within_a_class_folder_is_refused(tmp_path: Path, some: Faces) -> None:
    folder = write_tree(tmp_path / "faces", some)
    (folder / "train" / "happy" / "test").mkdir()
    with pytest.raises(InputError, match="happy/test: a class or a split within a class folder"):
        sources.read(str(folder), seed=0)


def test_class_folders_are_read_with_their_splits_and_spellings(
    tmp_path: Path, some: Faces
) -> None:
    for split, name, code in (("train", "Anger", 0), ("Train", "happiness", 3), ("val", "SAD", 4),
                              ("test", "neutral", 6)):  # fmt: skip
        folder = tmp_path / "faces" / split / name
        folder.mkdir(parents=True)
        Image.fromarray(some.images[code]).save(folder / "a.png")
    read = sources.read(str(tmp_path / "faces"), seed=0)
    assert read.classes == ("angry", "happy", "sad", "neutral"), "those of the folders"
    found = zip(named(read), read.split.tolist(), strict=True)
    assert dict(found) == {"angry": TRAIN, "happy": TRAIN, "sad": VALIDATION, "neutral": TEST}
    assert np.array_equal(read.images[read.labels == 2][0], some.images[4])


def test_pictures_of_any_size_and_colour_become_48_by_48_grey(tmp_path: Path) -> None:
    for name, mode, size in (
        ("happy", "RGB", (200, 160)),
        ("sad", "RGBA", (20, 20)),
        ("fear", "L", (48, 48)),
    ):
        (tmp_path / name).mkdir()
        Image.new(mode, size, 128 if mode == "L" else (128,) * len(mode)).save(
            tmp_path / name / "a.png"
        )
    Image.new("RGB", (100, 100), (128,) * 3).save(tmp_path / "happy" / "b.JPG", "jpeg")
    read = sources.read(str(tmp_path), seed=0)
    assert read.images.shape == (4, 48, 48)
    assert set(read.split) == {UNASSIGNED}
    assert np.abs(read.images.astype(int) - 128).max() <= 1


def test_a_photo_that_a_camera_held_sideways_is_read_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(
        np.repeat(np.array([0, 255], np.uint8), 24)[:, None].repeat(48, axis=1)
    )
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be rotated by 90 degrees clockwise
    upright.rotate(90).save(tmp_path / "a.png", exif=orientation)
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.asarray(upright))


def test_a_picture_of_16_bits_is_refused_and_not_read_as_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 48), 30_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="more than 8 bits a pixel"):
        read_picture(tmp_path / "a.png")


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="broken.png can't be read as a picture"):
        sources.read(str(tmp_path), seed=0)


def test_an_unknown_class_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "bored").mkdir(parents=True)
    with pytest.raises(InputError, match="bored: not a class folder; expected one of angry"):
        sources.read(str(tmp_path), seed=0)
    (tmp_path / "train" / "bored").rename(tmp_path / "train" / "suprise")
    with pytest.raises(InputError, match="rename it to surprise, or move it away"):
        sources.read(str(tmp_path), seed=0)


def test_a_mistyped_split_folder_is_named(tmp_path: Path) -> None:
    for split in ("train", "tset"):
        (tmp_path / split / "happy").mkdir(parents=True)
    with pytest.raises(InputError, match="tset: not a split folder"):
        sources.read(str(tmp_path), seed=0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.csv", "no such file or folder"),
        ("notes.txt", "expected .csv"),
        ("kaggle:fer2013", "expected kaggle:OWNER/NAME"),
        (".", "no picture in class folders"),
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=said):
        sources.read(source, seed=0)


def test_kaggle_without_credentials_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # A closed local port replaces Kaggle, so that the test needs no network.
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("KAGGLEHUB_CACHE", "kaggle")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(InputError, match="can't be downloaded .*Create an API token at kaggle.com"):
        sources.read("kaggle:nobody/nothing", seed=0)
