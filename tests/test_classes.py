"""Datasets of other classes than FER2013's: names, folders by other names, several sources."""

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from pipeline.data import CLASSES, TEST, TRAIN, UNASSIGNED, VALIDATION, dataset, sources
from pipeline.data.classes import KNOWN, in_order
from pipeline.data.dataset import Faces
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble
from pipeline.errors import InputError
from pipeline.exported import network
from pipeline.networks import files
from pipeline.networks.build import build
from pipeline.runs import addresses, queries
from pipeline.settings import IngestSettings, TrainSettings
from tests import commands
from tests.conftest import Command
from tests.tiny import TINY

RAF_DB = "1:surprise,2:fear,3:disgust,4:happy,5:sad,6:angry,7:neutral"


def write_folders(place: Path, folders: Sequence[str], each: int, seed: int = 0) -> str:
    """Class folders with different drawn faces, whose expression says nothing about the folder."""
    images, _ = draw(count=each * len(folders), seed=seed)
    for k, image in enumerate(images):
        folder = place / folders[k % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{k}.png")
    return str(place)


def named(faces: Faces) -> Mapping[str, int]:
    return Counter(faces.classes[label] for label in faces.labels)


def test_the_known_classes_begin_with_those_of_fer2013_and_others_follow_the_alphabet() -> None:
    assert (*CLASSES, "contempt") == KNOWN
    given = ("yawn", "contempt", "neutral", "bored", "angry")
    assert in_order(given) == ("angry", "neutral", "contempt", "bored", "yawn")


def test_contempt_comes_after_the_seven_and_without_neutral_there_are_seven(store: Path) -> None:
    ck = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
    read = sources.read(write_folders(store / "CK+48", ck, each=2), seed=0)
    assert read.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "contempt")
    assert named(read) == dict.fromkeys(read.classes, 2)


def test_numbered_folders_are_named(store: Path) -> None:
    folder = write_folders(store / "raf" / "DATASET" / "train", "1234567", each=2)
    (store / "raf" / "DATASET" / "train_labels.csv").write_text("image,label\n0.png,1\n")
    read = sources.read(str(store / "raf"), seed=0, names=RAF_DB)
    assert read.classes == CLASSES
    assert set(read.split) == {TRAIN}
    with Image.open(f"{folder}/1/0.png") as first:  # surprise
        assert any((np.asarray(first) == face).all() for face in read.images[read.labels == 5])


def test_new_names_of_classes_and_folders_that_mean_the_same(store: Path) -> None:
    folder = write_folders(store / "faces", ("Smile", "grin", "Joy", "bored"), each=2)
    read = sources.read(folder, seed=0, names="smile:happy, grin:HAPPINESS, bored:bored")
    assert named(read) == {"happy": 6, "bored": 2}
    assert read.classes == ("happy", "bored")


def test_classes_are_left_out_of_folders_and_of_a_csv(
    store: Path, csv: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folders(store / "faces", ("happy", "sad", "Contempt", "unknown"), each=2)
    (store / "faces" / "unknown" / "broken.png").write_bytes(b"no picture")
    read = sources.read(folder, seed=0, drop="contempt,unknown")
    assert named(read) == {"happy": 2, "sad": 2}
    assert "left out 5 files of contempt, unknown" in capsys.readouterr().err
    whole, left = sources.read(csv, seed=0), sources.read(csv, seed=0, drop="disgusted")
    assert left.classes == tuple(name for name in CLASSES if name != "disgust")
    assert named(left) == {name: n for name, n in named(whole).items() if name != "disgust"}
    assert "faces of disgust" in capsys.readouterr().err


def test_a_csv_with_an_eighth_code_needs_its_name(store: Path, csv: str) -> None:
    text = Path(csv).read_text()
    Path(csv).write_text(f"{text}\n7{text.splitlines()[1][1:]}\n")
    with pytest.raises(InputError, match=r"row 121: emotion is not a class code 0-6.*names=7:con"):
        sources.read(csv, seed=0)
    read = sources.read(csv, seed=0, names="7:contempt")
    assert read.classes == KNOWN
    assert read.labels[-1] == 7


@pytest.mark.parametrize(
    ("names", "drop", "said"),
    [
        (None, None, "1: not a class folder.*names=1:CLASS, or leave it out, drop=1"),
        (f"{RAF_DB},8:contempt", None, "has no class folder and no code 8"),
        (RAF_DB, "contempt", "drop=contempt: .* has the classes angry, disgust"),
        (RAF_DB, "hapy", "drop=hapy: .* has the classes angry"),
        (f"{RAF_DB};{RAF_DB}", None, "2 lists for 1 sources"),
    ],
)
def test_what_does_not_fit_the_folders_is_refused_in_a_line(
    store: Path, names: str | None, drop: str | None, said: str
) -> None:
    folder = write_folders(store / "faces", "1234567", each=1)
    with pytest.raises(InputError, match=said):
        sources.read(folder, seed=0, names=names, drop=drop)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("1:suprise", "suprise is not a class; is it surprise?"),
        ("1", "1: expected FOLDER:CLASS, each folder once"),
        ("1:sad,1:happy", "1:happy: expected FOLDER:CLASS, each folder once"),
        ("1:a/b", "'a/b' can't be a class"),
        ("1:macro avg", "'macro avg' can't be a class"),
    ],
)
def test_a_mistyped_name_is_refused_before_anything_is_read(names: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        IngestSettings(source="missing", names=names)
    assert said in str(error.value)


def test_a_forgotten_picture_of_a_class_is_told_with_the_remedy(store: Path) -> None:
    folder = write_folders(store / "faces", ("happy", "sad"), each=6)
    (store / "faces" / "fear").mkdir()
    read = sources.read(folder, seed=0)
    with pytest.raises(InputError, match=r"no face of fear in train.*drop=fear"):
        assemble(read, source=folder, policy="report", seed=0)
    alone = sources.read(folder, seed=0, drop="happy,fear")
    with pytest.raises(InputError, match="only faces of sad"):
        assemble(alone, source=folder, policy="report", seed=0)


def test_joined_sources_keep_each_image_once_that_of_the_test_split_first(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, _ = draw(count=6, seed=3)
    for place, face in (
        ("a/train/happy/0", 0), ("a/train/happy/1", 0), ("a/train/sad/2", 1), ("a/test/sad/3", 2),
        ("b/train/contempt/0", 2), ("b/test/happy/1", 1), ("b/val/happy/2", 3), ("b/train/sad/3", 4)
    ):  # fmt: skip
        file = store / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[face]).save(file)
    read = sources.read("a, b", seed=0)
    found = [
        (int(np.flatnonzero((images == face).all(axis=(1, 2)))[0]), read.classes[label], int(split))
        for face, label, split in zip(read.images, read.labels, read.split, strict=True)
    ]
    assert read.classes == ("happy", "sad", "contempt")
    assert sorted(found) == [
        (0, "happy", TRAIN), (1, "happy", TEST), (2, "sad", TEST), (3, "happy", VALIDATION),
        (4, "sad", TRAIN),
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "2 sources joined: 3 pixel-identical copies removed (2 of a, 1 of b)" in said
    assert said.count("\n") == 1
    assert read.about["joined"][1] == {"source": "b", "faces": 4, "copies_removed": 1}


def test_each_of_several_sources_has_its_own_numbers_or_all_the_same(store: Path) -> None:
    write_folders(store / "raf", "14", each=2, seed=1)
    write_folders(store / "ck", "15", each=2, seed=2)
    read = sources.read("raf,ck", seed=0, names="1:surprise,4:happy;1:angry,5:happy")
    assert named(read) == {"surprise": 2, "angry": 2, "happy": 4}
    same = sources.read("raf,ck", seed=0, names="1:surprise,4:happy,5:sad")
    assert named(same) == {"surprise": 4, "happy": 2, "sad": 2}


@pytest.mark.parametrize("source", ["sample,missing.csv", "sample,"])
def test_each_of_several_sources_must_be_there(source: str) -> None:
    with pytest.raises(InputError, match=r"missing.csv: no such file or folder|expected sample"):
        sources.require(IngestSettings(source=source).source)


def test_a_table_of_labels_is_read_as_the_document_shows(store: Path) -> None:
    document = (commands.ROOT / "docs" / "data.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    (store / "my_table.py").write_text(code)
    images, labels = draw(count=4, seed=2)
    lines = ["image,label"]
    for k, image in enumerate(images):
        Image.fromarray(image).save(store / f"{k}.png")
        lines.append(f"{k}.png,{labels[k]}")
    (store / "labels.csv").write_text("\n".join(lines))
    read = sources.read("my_table:faces", seed=0)
    assert np.array_equal(read.images, images)
    assert np.array_equal(read.labels, labels)


def test_parquet_is_refused_with_the_way_to_read_it(store: Path) -> None:
    (store / "hub").mkdir()
    (store / "hub" / "train.parquet").write_bytes(b"PAR1")
    for source in ("hub", "hub/train.parquet"):
        with pytest.raises(InputError, match=r"by a function of your own, as docs/data.md shows"):
            sources.read(source, seed=0)


def other_classes(faces: Faces, classes: tuple[str, ...]) -> dataset.Dataset:
    some = Faces(
        faces.images, faces.labels, np.full(len(faces.labels), UNASSIGNED, np.uint8), classes
    )
    return assemble(some, source="drawn", policy="report", seed=0)


def test_a_dataset_keeps_its_classes_and_its_digest_tells_them_apart(
    faces: Faces, store: Path
) -> None:
    seven, other = (other_classes(faces, names) for names in (CLASSES, CLASSES[::-1]))
    assert seven.digest == dataset.digest(seven.images, seven.labels, seven.split)
    assert other.digest != seven.digest
    dataset.save(other, store / "other")
    assert dataset.load(store / "other").classes == CLASSES[::-1]
    about = (store / "other" / "dataset.json").read_text()
    for damaged in (about.replace('"sad"', '"sat"'), about.replace('"sad"', '"happy"')):
        (store / "other" / "dataset.json").write_text(damaged)
        with pytest.raises(InputError, match="other"):
            dataset.load(store / "other")


def test_a_dataset_of_an_earlier_version_has_the_seven(faces: Faces, store: Path) -> None:
    made = other_classes(faces, CLASSES)
    del made.about["classes"]
    dataset.save(made, store / "old")
    assert dataset.load(store / "old").classes == CLASSES


EIGHT = ("Anger", "0", "1", "2", "3", "4", "5", "6")
NAMES = "0:neutral,1:happy,2:sad,3:surprise,4:fear,5:disgust,6:contempt"


def run_of(done: CompletedProcess[str], step: str) -> str:
    """The id of the run that a command has told last."""
    assert done.returncode == 0, done.stderr
    [*_, line] = [line for line in done.stdout.splitlines() if line.startswith(f"{step} run ")]
    return line.split()[2].rstrip(",:")


@pytest.mark.slow
def test_eight_classes_and_five_go_through_every_command(command: Command, store: Path) -> None:
    folder = write_folders(store / "eight", EIGHT, each=12)
    small = {"network": TINY, "epochs": 1}
    ingested = command("pipeline.ingest", source=folder, names=NAMES)
    assert "8 classes: angry, disgust, fear, happy, sad, surprise, neutral, contempt\n" in (
        ingested.stdout
    )
    data = run_of(ingested, "ingest")

    # A study trains, evaluates and registers its winner.
    study = command(
        "search.optuna_study", study="s", data=data, **small, trials=2, confirm=1, grid="none",
        max_parameters=100_000,
    )  # fmt: skip
    assert study.returncode == 0, study.stderr
    champion = MlflowClient().get_model_version_by_alias("emotion", "champion")
    assert champion.tags["classes"] == ", ".join(KNOWN)
    eight = str(champion.run_id)
    figures = MlflowClient().get_run(champion.tags["evaluate_run"]).data.metrics
    assert {f"test_by_class/f1_{name}" for name in KNOWN} <= figures.keys()
    card = queries.model_text(queries.logged_model(eight) or "", "model_card.md")
    assert card
    assert "reads eight facial expressions" in card

    exported = command("pipeline.export", run=eight)
    assert exported.returncode == 0, exported.stderr
    for written in (store / "exported").iterdir():
        assert network.load(written).classes == KNOWN
    file, _ = addresses.model_file(eight)
    copied = shutil.copy(file, store / "eight.keras")
    for named_network in (eight, copied):  # by ONNX, and by Keras
        read = command("pipeline.predict", runs=named_network, images="eight/Anger", format="json")
        assert read.returncode == 0, read.stderr
        assert [*json.loads(read.stdout)[0]["probabilities"]] == [*KNOWN]

    # Five of the classes, by other means: its network starts from that of eight.
    made = command("pipeline.ingest", source=folder, names=NAMES, drop="contempt,fear,0")
    assert "disgust, happy, sad, surprise; FER2013's fear, neutral not among them" in made.stdout
    five_data = run_of(made, "ingest")
    trained = command("pipeline.train", data=five_data, init_from=eight, width=0.25, **small)
    five = run_of(trained, "train")
    columns = [f"p_{name}" for name in ("angry", "disgust", "happy", "sad", "surprise")]
    evaluated = []
    for run, said in ((five, ""), (eight, "probabilities of fear, neutral, contempt are left")):
        tested = command("pipeline.evaluate", run=run, data=five_data)
        assert said in tested.stdout
        evaluated.append(run_of(tested, "evaluate"))
        table = read_table(evaluated[-1])
        assert np.allclose(table[columns].sum(axis=1), 1, atol=1e-4)
        assert [*table.filter(like="p_")] == columns
    compared = command("search.compare", runs=",".join(evaluated))
    assert compared.returncode == 0, compared.stderr
    other = command("pipeline.evaluate", run=five, data=data)
    assert "faces of fear, neutral, contempt are left out" in other.stdout
    labels = {*read_table(run_of(other, "evaluate"))["label"]}
    assert labels <= {"angry", "disgust", "happy", "sad", "surprise"}


def read_table(evaluate_run: str) -> pd.DataFrame:
    text = mlflow.artifacts.load_text(f"runs:/{evaluate_run}/predictions.csv")
    return pd.read_csv(io.StringIO(text))


def test_a_network_without_classes_in_common_with_a_dataset_is_refused(
    faces: Faces, store: Path, command: Command
) -> None:
    names = ("bored", "calm", "cross", "glad", "sad", "shy", "yawning")
    dataset.save(other_classes(faces, names), store / "other")
    network_file = commands.ROOT / "models" / "compact.keras"
    done = command("pipeline.evaluate", run=network_file, data="other")
    assert done.returncode == 2
    assert "the dataset has bored, calm" in done.stderr
    assert "at least two classes in common are needed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_weights_of_other_classes_are_copied_by_name() -> None:
    settings = TrainSettings(network=TINY)
    old, new = ("a", "b", "c"), ("c", "d", "a")
    initial, model = (build(settings, precision="float32", classes=3) for _ in range(2))
    drawn = model.get_weights()[-2]
    files.copy_weights(model, initial, "x", new, old)
    kernel, its = model.get_weights()[-2], initial.get_weights()[-2]
    assert np.array_equal(kernel, np.stack([its[:, 2], drawn[:, 1], its[:, 0]], axis=1))
    assert np.array_equal(model.get_weights()[0], initial.get_weights()[0])
