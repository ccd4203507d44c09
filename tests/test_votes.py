"""Tests of votes: joined to a source's faces, learnt as shares, and named beside every figure."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipeline.data import CLASSES, TEST, TRAIN, UNASSIGNED, VALIDATION, dataset, votes
from pipeline.data.batches import Batches
from pipeline.data.dataset import Dataset, Faces
from pipeline.data.splitting import assemble
from pipeline.errors import InputError
from pipeline.networks import files
from pipeline.reports import metrics
from pipeline.reports.majority import against_votes
from pipeline.runs import addresses, queries
from pipeline.settings import EvaluateSettings, TrainSettings
from pipeline.steps.evaluate import evaluate
from pipeline.steps.train import train
from tests.tiny import TINY

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
COLUMNS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear")
NOT_A_FACE, TIED = 3, 8
"""Faces of `ferplus` that nobody takes for one, and that two classes have five votes each for."""


def line(usage: str, label: int, number: int) -> str:
    """A row of FER+: seven votes for the label, two for the next class, one for unknown."""
    given = dict.fromkeys(range(7), 0)
    if number != NOT_A_FACE:
        first, second = (5, 5) if number == TIED else (7, 2)
        given[label], given[(label + 1) % 7] = first, second
    others = {NOT_A_FACE: "0,0,10", TIED: "0,0,0"}.get(number, "0,1,0")
    classes = ",".join(str(given[CLASSES.index(name)]) for name in COLUMNS)
    return f"{usage},fer{number:07}.png,{classes},{others}"


@pytest.fixture
def source(faces: Faces) -> Faces:
    """120 faces: 100 for training and 20 of PublicTest."""
    return replace(faces, split=np.repeat([TRAIN, VALIDATION], [100, 20]).astype(np.uint8))


def write(faces: Faces, file: Path, change: Callable[[list[str]], object] | None = None) -> Path:
    """FER+'s file for the faces, with PrivateTest rows that they lack; its lines are changed."""
    usage = ["Training"] * 100 + ["PublicTest"] * 20
    lines = [line(u, int(k), n) for n, (u, k) in enumerate(zip(usage, faces.labels, strict=True))]
    lines += [line("PrivateTest", 0, 120 + n) for n in range(10)]
    if change:
        change(lines)
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    return file


@pytest.fixture
def voted(source: Faces, tmp_path: Path) -> Dataset:
    """A dataset with votes: 90 faces to train on, 10 to validate and 20 to test."""
    joined = votes.join(source, write(source, tmp_path / "votes.csv"))
    return assemble(joined, source="drawn", policy="official", seed=0)


def test_votes_are_joined_by_usage_and_row_and_other_answers_are_no_votes(
    source: Faces, tmp_path: Path
) -> None:
    found = votes.join(source, write(source, tmp_path / "votes.csv")).votes
    assert found is not None
    assert (found.dtype, found.shape) == (np.uint8, (120, 7))
    assert not found[NOT_A_FACE].any()
    usual = np.delete(np.arange(120), [NOT_A_FACE, TIED])
    assert (found[usual, source.labels[usual]] == 7).all()
    assert (found[usual].sum(axis=1) == 9).all(), "the vote for unknown does not count"


def test_a_source_without_usage_is_joined_by_row(faces: Faces, tmp_path: Path) -> None:
    file = write(faces, tmp_path / "votes.csv", lambda lines: lines.__delitem__(slice(120, None)))
    assert set(faces.split) == {UNASSIGNED}
    assert votes.join(faces, file).votes is not None


def shift(lines: list[str]) -> None:
    """Lose the votes of row 1, and have those of the last training row twice."""
    lines[:100] = [*lines[1:100], lines[99]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines.pop(50), "99 rows of Training, the source has 100"),
        (shift, "rows 1 to .*: the votes' majority is the label of .* of these faces"),
        (
            lambda lines: lines.insert(20, lines.pop(110)),
            "row 21: Usage is PublicTest, that of row 21 of the source is Training",
        ),
        (
            lambda lines: lines.__setitem__(6, lines[6].replace(",7,", ",-7,")),
            "row 7: '-7' is no number of votes",
        ),
        (lambda lines: lines.__setitem__(8, "Training,fer.png"), "row 9: 2 columns, the header"),
        (lambda lines: lines.__setitem__(0, "Test" + lines[0][8:]), "row 1: unknown Usage"),
        (lambda lines: lines.clear(), "no row after the header"),
    ],
)
def test_what_does_not_fit_the_source_is_refused_by_its_row(
    source: Faces, tmp_path: Path, change: Callable[[list[str]], object], said: str
) -> None:
    with pytest.raises(InputError, match=rf"votes\.csv:? {said}"):
        votes.join(source, write(source, tmp_path / "votes.csv", change))


def test_a_file_without_ferplus_columns_is_refused(source: Faces, tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n0,1 2 3,Training\n")
    with pytest.raises(InputError, match="the header has no column angry; expected FER"):
        votes.join(source, tmp_path / "fer2013.csv")


def test_votes_are_part_of_a_dataset_and_of_its_digest(
    voted: Dataset, source: Faces, tmp_path: Path
) -> None:
    dataset.save(voted, tmp_path / "d")
    back = dataset.load(tmp_path / "d")
    assert back.votes is not None
    assert voted.votes is not None
    assert np.array_equal(back.votes, voted.votes)
    assert np.array_equal(back.labels, voted.labels), "the hard labels are kept"
    without = dataset.digest(voted.images, voted.labels, voted.split)
    assert assemble(source, source="drawn", policy="official", seed=0).digest == without
    assert back.digest != without
    changed = back.votes.copy()
    changed[5, 0] += 1
    np.save(tmp_path / "d" / "votes.npy", changed)
    with pytest.raises(InputError, match="differ from dataset.json's digest"):
        dataset.load(tmp_path / "d")
    (tmp_path / "d" / "votes.npy").unlink()
    with pytest.raises(InputError, match="is no dataset"):
        dataset.load(tmp_path / "d")


def test_training_faces_have_votes_and_validation_faces_a_clear_majority(voted: Dataset) -> None:
    assert voted.votes is not None
    chosen = votes.for_training(voted, "auto")
    first, is_clear = votes.majority(voted.votes)
    assert is_clear.sum() == 118
    for split, kept in ((TRAIN, voted.votes.any(axis=1)), (VALIDATION, is_clear)):
        rows = (voted.split == split) & kept
        assert np.array_equal(chosen.part(split)[0], voted.images[rows][..., None])
        assert np.array_equal(chosen.part(split)[1], first[rows])
    assert np.array_equal(votes.for_training(chosen, "votes").images, chosen.images)


def test_targets_are_the_shares_of_the_votes_or_one_hot_labels(voted: Dataset) -> None:
    soft = Batches(votes.for_training(voted, "votes"), TRAIN, 32).targets
    assert np.allclose(soft.sum(axis=1), 1)
    assert np.unique(soft) == pytest.approx([0, 2 / 9, 0.5, 7 / 9])
    hard = Batches(votes.for_training(voted, "hard"), TRAIN, 32).targets
    assert np.array_equal(hard.argmax(axis=1), voted.part(TRAIN)[1])
    assert len(hard) == np.count_nonzero(voted.split == TRAIN)


def test_votes_that_are_not_there_can_not_be_learnt(dataset: Dataset) -> None:
    assert votes.for_training(dataset, "auto").votes is None
    with pytest.raises(InputError, match="this dataset has no votes; ingest it with labels="):
        votes.for_training(dataset, "votes")


def test_test_faces_keep_their_hard_label(voted: Dataset) -> None:
    assert np.array_equal(voted.part(TEST)[1], voted.labels[100:])


def test_an_evaluation_against_the_majority_leaves_ties_and_faces_without_votes_out() -> None:
    cast = np.zeros((6, 7), np.uint8)
    cast[range(4), [0, 1, 2, 3]] = 6
    cast[4, [2, 5]] = 5  # a tie; nobody voted for the last face
    labels = np.array([0, 1, 3, 3, 2, 6], np.uint8)
    probabilities = np.eye(7, dtype=np.float32)[[0, 2, 2, 3, 2, 6]]
    result = metrics.compute(labels, probabilities)
    assert result.accuracy == 4 / 6
    found = against_votes(result, cast)
    assert found is not None
    assert found.figures("test") == pytest.approx(
        {
            "test/accuracy_votes": 3 / 4,
            "test/accuracy_votes_low": metrics.accuracy_interval(3, 4)[0],
            "test/accuracy_votes_high": metrics.accuracy_interval(3, 4)[1],
            "test/labels_agree_votes": 3 / 4,
        }
    )
    assert "4 faces with one class on top" in str(found)
    assert against_votes(result, np.zeros((6, 7), np.uint8)) is None


@pytest.mark.slow
def test_every_figure_names_the_labels_that_it_is_against(voted: Dataset, store: Path) -> None:
    dataset.save(voted, store / "faces")
    settings = TrainSettings(network=TINY, epochs=1, lr=0.002, data=str(store / "faces"))
    votes_run, hard_run = train(settings), train(replace(settings, targets="hard"))
    tags = [MlflowClient().get_run(run).data.tags for run in (votes_run, hard_run)]
    assert [its["labels"] for its in tags] == ["votes", "hard"]
    assert "10 images), against the votes' majority" in tags[0]["mlflow.note.content"]
    assert "10 images), against the dataset's labels" in tags[1]["mlflow.note.content"]

    run = MlflowClient().get_run(evaluate(EvaluateSettings(run=votes_run)))
    file, _ = addresses.model_file(votes_run)
    images, labels = voted.part(TEST)
    predicted = files.predict(files.load(file), images).argmax(axis=1)
    assert run.data.metrics["test/accuracy"] == pytest.approx((predicted == labels).mean())
    assert voted.votes is not None
    top = voted.votes[100:].argmax(axis=1)
    assert run.data.metrics["test/accuracy_votes"] == pytest.approx((predicted == top).mean())
    against = "20 images), against the dataset's labels"
    by_votes = "20 faces with one class on top"
    model_id = queries.logged_model(votes_run)
    assert model_id is not None
    card = queries.model_text(model_id, "model_card.md")
    assert card is not None
    assert "Its targets were the votes in `votes.csv`" in card
    trained = MlflowClient().get_run(votes_run).data
    for text in (run.data.tags["mlflow.note.content"], trained.tags["mlflow.note.content"], card):
        assert against in text
        assert by_votes in text
    assert trained.metrics["test/accuracy_votes"] == run.data.metrics["test/accuracy_votes"]
