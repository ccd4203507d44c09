"""Tests of predict, with the networks in models/."""

import pytest
from PIL import Image

from pipeline.data import CLASSES
from pipeline.data.sample import draw
from tests.commands import ROOT
from tests.conftest import Command

MODELS = sorted((ROOT / "models").glob("*.keras"))
COMPACT = ROOT / "models" / "compact.keras"


@pytest.mark.slow
def test_every_network_in_models_and_a_run_say_a_word_for_each_drawn_face(
    command: Command, trained: str
) -> None:
    done = command("pipeline.predict", runs=",".join([*map(str, MODELS), trained]), cold=True)
    assert (done.returncode, done.stderr) == (0, ""), "TensorFlow's import says nothing"
    rows = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    answers = {row[1].strip(): row[2:-1] for row in rows if row[1].strip()}
    assert answers.keys() == {*CLASSES}
    words = answers["surprise"]
    assert len(words) == len(MODELS) + 1
    assert all("surprise" in word for word in words[: len(MODELS)])
    assert words[-1].split()[0] in CLASSES


@pytest.mark.slow
def test_a_picture_of_ones_own_gets_a_word_and_a_bad_one_a_line(command: Command) -> None:
    Image.fromarray(draw(count=1)[0][0]).resize((200, 200)).convert("RGB").save("me.png")
    done = command("pipeline.predict", runs=COMPACT, images="me.png")
    assert done.returncode == 0, done.stderr
    assert "me.png" in done.stdout
    assert "%" in done.stdout

    done = command("pipeline.predict", runs=COMPACT, images="nobody.png")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert errors == [
        "error: nobody.png can't be read as a picture: [Errno 2] No such file or directory: "
        "'nobody.png'; replace or remove it"
    ]
