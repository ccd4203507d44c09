"""Tests of predict, with the networks in models/."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.data import CLASSES
from pipeline.data.sample import draw
from tests.commands import ROOT
from tests.conftest import Command

MODELS = sorted((ROOT / "models").glob("*.keras"))
ONNX = ROOT / "models" / "compact-votes-int8.onnx"


@pytest.mark.slow
def test_every_network_in_models_and_a_run_say_a_word_for_each_drawn_face(
    command: Command, trained: str
) -> None:
    networks = [*MODELS, ONNX, trained]
    done = command("pipeline.predict", runs=",".join(map(str, networks)), cold=True)
    assert (done.returncode, done.stderr) == (0, ""), "TensorFlow's import says nothing"
    rows = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    answers = {row[1].strip(): row[2:-1] for row in rows if row[1].strip()}
    assert answers.keys() == {*CLASSES}
    words = answers["surprise"]
    assert len(words) == len(networks)
    assert all("surprise" in word for word in words[:-1])
    assert words[-1].split()[0] in CLASSES


def test_an_onnx_file_answers_without_tensorflow_keras_and_mlflow(
    environment: dict[str, str], store: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline.predict", "--runs", str(ONNX)],
        cwd=store, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "onnxruntime" in imported
    assert not imported & {"tensorflow", "keras", "mlflow"}
    assert all(name in done.stdout for name in CLASSES)


def pictures(folder: Path) -> None:
    """A folder of three drawn faces, junk, a text, and a file that is no picture by its content."""
    (folder / "deep" / "deeper").mkdir(parents=True)
    for name, image in zip(("a.png", "deep/b.png", "deep/deeper/c.jpg"), draw(3)[0], strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / ".DS_Store").write_bytes(b"junk")
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])


def test_a_folder_is_read_and_its_broken_picture_named_at_the_end(
    command: Command, store: Path
) -> None:
    pictures(store / "faces")
    options = {"runs": ONNX, "find": "false"}
    done = command("pipeline.predict", "faces", format="csv", **options)
    assert done.returncode == 2
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert error.startswith("error: faces/broken.png can't be read as a picture: ")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    names = [row["file"] for row in rows]
    assert names == ["faces/a.png", "faces/deep/b.png", "faces/deep/deeper/c.jpg"]

    two = ("faces/a.png", "faces/deep/b.png")
    done = command("pipeline.predict", *two, format="json", out="found.json", **options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = json.loads(Path("found.json").read_text())
    for row, same in zip(rows, found, strict=False):
        assert (same["file"], same["class"]) == (row["file"], row["class"])
        assert str(same["unsure"]).lower() == row["unsure"]
        assert {name: float(row[name]) for name in CLASSES} == same["probabilities"]
        assert same["class"] == max(CLASSES, key=lambda name: same["probabilities"][name])
        assert same["unsure"] == (same["probabilities"][same["class"]] < 0.5)
        assert sum(same["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert len(found) == 2


def test_annotated_copies_have_names_of_their_own(command: Command, store: Path) -> None:
    pictures(store / "faces")
    done = command(
        "pipeline.predict", "faces/a.png", "faces/a.png", runs=ONNX, find="false", annotate="seen"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in Path("seen").iterdir()) == ["a.png-2.jpg", "a.png.jpg"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nobody.png"], "nobody.png: no such file or folder"),
        (["--runs", "missing.onnx"], "missing.onnx: no such file"),
        (["--out", "nowhere/x.csv"], "out=nowhere/x.csv: no folder nowhere"),
        (["--out", "."], "out=.: a folder; give a file"),
        (["--unsure", "2"], "unsure=2.0: expected in [0, 1]"),
        (["a.png", "--formt", "csv"], "unknown parameter"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], problem: str, command: Command) -> None:
    given = arguments if "--runs" in arguments else [*arguments, "--runs", str(ONNX)]
    done = command("pipeline.predict", *given)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert problem in line
