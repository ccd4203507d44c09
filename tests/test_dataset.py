"""Tests of datasets: splits, copies, digest, saving and loading."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import TEST, TRAIN, VALIDATION, dataset, splitting
from pipeline.data.dataset import Dataset, Faces
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble
from pipeline.errors import InputError


def test_the_report_policy_gives_the_reports_sizes() -> None:
    split = splitting.split_at_random(35_887, seed=0)
    assert np.bincount(split).tolist() == [29_068, 3_230, 3_589]


def test_the_seed_decides_the_random_split() -> None:
    assert np.array_equal(splitting.split_at_random(500, 3), splitting.split_at_random(500, 3))
    assert not np.array_equal(splitting.split_at_random(500, 3), splitting.split_at_random(500, 4))


def with_split(faces: Faces, sizes: dict[int, int]) -> Faces:
    split = np.repeat(list(sizes), list(sizes.values())).astype(np.uint8)
    return Faces(faces.images[: len(split)], faces.labels[: len(split)], split)


def test_an_official_split_with_all_three_parts_is_kept(faces: Faces) -> None:
    given = with_split(faces, {TRAIN: 90, VALIDATION: 15, TEST: 15})
    made = assemble(given, source="drawn", policy="official", seed=0)
    assert np.array_equal(made.split, given.split)


@pytest.mark.parametrize("held_out", [VALIDATION, TEST])
def test_without_a_third_part_the_held_out_faces_are_test_and_a_tenth_of_train_validates(
    faces: Faces, held_out: int
) -> None:
    given = with_split(faces, {TRAIN: 100, held_out: 20})
    made = assemble(given, source="drawn", policy="official", seed=0)
    assert np.array_equal(made.split == TEST, given.split == held_out)
    assert np.bincount(made.split).tolist() == [90, 10, 20]
    assert made.about["source_counts"]["Training"] == np.bincount(faces.labels[:100]).tolist()


@pytest.mark.parametrize("test", [0, 15])
def test_a_final_split_trains_on_the_sources_validation_faces_and_never_on_its_test_faces(
    faces: Faces, test: int
) -> None:
    given = with_split(faces, {TRAIN: 70, VALIDATION: 30, TEST: test})
    made = assemble(given, source="drawn", policy="final", seed=0)
    assert np.bincount(made.split, minlength=3).tolist() == [90, 10, test]
    assert np.array_equal(made.split == TEST, given.split == TEST)
    with pytest.raises(InputError, match="no test faces") if not test else nullcontext():
        dataset.require_test(made, "drawn")


@pytest.mark.parametrize(
    ("policy", "sizes"), [("official", [80, 20, 20]), ("report", [86, 22, 12])]
)
def test_another_share_for_validation_leaves_test_as_it_is(
    faces: Faces, policy: str, sizes: list[int]
) -> None:
    given = with_split(faces, {TRAIN: 100, TEST: 20})
    made = assemble(given, source="drawn", policy=policy, seed=0, validation=0.2)
    tenth = assemble(given, source="drawn", policy=policy, seed=0)
    assert np.bincount(made.split).tolist() == sizes
    assert np.array_equal(made.split == TEST, tenth.split == TEST)


def test_a_share_that_misses_a_class_is_refused(faces: Faces) -> None:
    given = with_split(faces, {TRAIN: 100, TEST: 20})
    with pytest.raises(InputError, match="too few to hold 2 % of them out"):
        assemble(given, source="drawn", policy="official", seed=0, validation=0.02)


@pytest.mark.parametrize("policy", ["official", "final"])
def test_a_source_of_test_faces_alone_is_refused(faces: Faces, policy: str) -> None:
    with pytest.raises(InputError, match="no training face"):
        assemble(with_split(faces, {TEST: 120}), source="drawn", policy=policy, seed=0)


def test_a_source_without_a_split_has_no_official_one(faces: Faces) -> None:
    with pytest.raises(InputError, match="use split=report"):
        assemble(faces, source="drawn", policy="official", seed=0)


def test_a_class_absent_from_train_is_named(faces: Faces) -> None:
    kept = faces.labels != 1
    some = Faces(faces.images[kept], faces.labels[kept], faces.split[kept])
    with pytest.raises(InputError, match="no face of disgust in train"):
        assemble(some, source="drawn", policy="report", seed=0)


def test_copies_are_counted_across_splits_and_where_labels_disagree() -> None:
    images = np.stack([np.full((48, 48), value, np.uint8) for value in (1, 1, 2, 2, 2, 3)])
    labels = np.array([0, 0, 1, 2, 1, 3], np.uint8)
    split = np.array([TRAIN, TEST, TRAIN, VALIDATION, VALIDATION, TEST], np.uint8)
    assert dataset.count_copies(images, labels, split) == {
        "redundant": 3,
        "groups_with_label_conflict": 1,
        "validation_in_train": 2,
        "test_in_train": 1,
    }
    assert dataset.unseen(images[split == TEST], images[split == TRAIN]).tolist() == [False, True]


def test_a_saved_dataset_comes_back_memory_mapped_and_equal(made: Dataset, tmp_path: Path) -> None:
    dataset.save(made, tmp_path / "d")
    back = dataset.load(tmp_path / "d")
    assert isinstance(back.images, np.memmap)
    assert np.array_equal(back.images, made.images)
    assert back.about == made.about


def test_training_is_handed_no_test_face(made: Dataset, tmp_path: Path) -> None:
    dataset.save(made, tmp_path / "d")
    kept = dataset.load_without_test(tmp_path / "d")
    assert set(kept.split) == {TRAIN, VALIDATION}
    assert len(kept.images) == np.count_nonzero(made.split != TEST)


def test_a_changed_label_is_noticed(made: Dataset, tmp_path: Path) -> None:
    dataset.save(made, tmp_path / "d")
    labels = made.labels.copy()
    labels[5] = (labels[5] + 1) % 7
    np.save(tmp_path / "d" / "labels.npy", labels)
    with pytest.raises(InputError, match="differ from dataset.json's digest"):
        dataset.load(tmp_path / "d")


@pytest.mark.parametrize("broken", ["images.npy", "labels.npy", "dataset.json"])
def test_half_a_dataset_is_refused(made: Dataset, tmp_path: Path, broken: str) -> None:
    dataset.save(made, tmp_path / "d")
    (tmp_path / "d" / broken).write_bytes(b"")
    with pytest.raises(InputError, match="is no dataset"):
        dataset.load(tmp_path / "d")
    (tmp_path / "d" / broken).unlink()
    with pytest.raises(InputError, match="is no dataset"):
        dataset.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("written", "read_as"),
    [(b"'|u1'", b"'|i1'"), (b"'|u1'", b"'|b1'"), (b"'|u1'", b"'|S1'"), (b"48, 48)", b"24, 96)")],
)
def test_pixels_of_another_type_or_shape_are_refused_though_the_bytes_are_the_same(
    made: Dataset, tmp_path: Path, written: bytes, read_as: bytes
) -> None:
    dataset.save(made, tmp_path / "d")
    file = tmp_path / "d" / "images.npy"
    file.write_bytes(file.read_bytes().replace(written, read_as, 1))
    with pytest.raises(InputError, match=r"images is .*, expected uint8 \(120, 48, 48\)"):
        dataset.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("labels", 7, "a label is 7"), ("split", 3, "a split code is 3"), ("split", 255, "is 255")],
)
def test_codes_out_of_range_are_refused_under_a_right_digest(
    made: Dataset, tmp_path: Path, name: str, code: int, said: str
) -> None:
    arrays = {"labels": made.labels.copy(), "split": made.split.copy()}
    arrays[name][0] = code
    right = dataset.digest(made.images, arrays["labels"], arrays["split"])
    about = made.about | {"digest": right}
    dataset.save(Dataset(made.images, about=about, **arrays), tmp_path / "d")
    with pytest.raises(InputError, match=said):
        dataset.load(tmp_path / "d")


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}", "[" * 100_000, '{"digest": 1}'])
def test_a_description_that_is_none_is_refused(made: Dataset, tmp_path: Path, text: str) -> None:
    dataset.save(made, tmp_path / "d")
    (tmp_path / "d" / "dataset.json").write_text(text)
    with pytest.raises(InputError):
        dataset.load(tmp_path / "d")


def test_the_split_code_that_is_unknown_is_named(faces: Faces) -> None:
    split = faces.split.copy()  # all unassigned, which is the highest code
    split[7] = 9
    with pytest.raises(InputError, match="a split code is 9, expected one of"):
        dataset.check(faces.images, faces.labels, split, "source=x", dataset.SOURCE_SPLITS)


def test_counts_that_are_not_those_of_the_arrays_are_refused(made: Dataset, tmp_path: Path) -> None:
    counts = made.about["counts"]
    about = made.about | {"counts": counts | {"test": counts["train"]}}
    dataset.save(replace(made, about=about), tmp_path / "d")
    with pytest.raises(InputError, match="does not describe the arrays"):
        dataset.load(tmp_path / "d")


def test_dataset_json_tells_where_the_faces_are_from(made: Dataset, tmp_path: Path) -> None:
    dataset.save(made, tmp_path / "d")
    about = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert (about["source"], about["policy"], about["seed"]) == ("drawn", "report", 0)
    assert sum(map(sum, about["counts"].values())) == 120


def test_drawn_faces_are_distinct_balanced_and_the_same_every_time() -> None:
    images, labels = draw(count=200, seed=5)
    again, _ = draw(count=60, seed=5)
    assert images.shape == (200, 48, 48)
    assert np.array_equal(images[:60], again)
    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200
    counts = np.bincount(labels, minlength=7)
    assert counts.argmin() == 1, "disgust is the rarest, as in FER2013"
    assert counts.min() >= 10


@pytest.fixture
def made(faces: Faces) -> Dataset:
    return assemble(faces, source="drawn", policy="report", seed=0)
