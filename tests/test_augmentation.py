"""Tests of the augmentation: it follows the settings, and the same seed gives the same faces."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.data import TRAIN, augmentation
from pipeline.data.batches import TrainBatches, side_at
from pipeline.data.dataset import Dataset
from pipeline.settings import Hyperparameters, TrainSettings, recipe

PLAIN = Hyperparameters()


def augment(
    images: NDArray[np.uint8], settings: Hyperparameters, *, mirror: bool = False, side: int = 48
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    targets = np.eye(7, dtype=np.float32)[np.arange(len(images)) % 7]
    mirrored = np.full(len(images), mirror)
    rng = np.random.default_rng(0)
    return augmentation.augment(images, targets, mirrored, settings, side, rng)


@pytest.fixture
def images(dataset: Dataset) -> NDArray[np.uint8]:
    return dataset.images[:20, ..., np.newaxis]


def test_a_mirrored_face_is_its_mirror_image_to_the_pixel(images: NDArray[np.uint8]) -> None:
    assert np.array_equal(augment(images, PLAIN, mirror=True)[0], images[:, :, ::-1])


def test_a_moved_face_is_the_face_elsewhere(images: NDArray[np.uint8]) -> None:
    moved, _ = augment(images, replace(PLAIN, shift=3))
    assert moved.shape == images.shape
    # After the inverse shift, searched in steps of half a pixel, the face's inside is unchanged.
    found = []
    for before, after in zip(images[..., 0], moved[..., 0], strict=True):
        inside = after[6:-6, 6:-6].astype(float)
        errors = {
            (y, x): np.abs(inside - before[6 + y : 42 + y, 6 + x : 42 + x]).mean()
            for y in range(-3, 4)
            for x in range(-3, 4)
        }
        assert min(errors.values()) < np.median(list(errors.values())) / 1.5
        found.append(min(errors, key=lambda move: errors[move]))
    downwards, sideways = np.transpose(found)
    for moves in (downwards, sideways):
        assert moves.min() <= -2
        assert moves.max() >= 2
    assert not np.array_equal(downwards, sideways)


@pytest.mark.parametrize("settings", [Hyperparameters(zoom=0.2), Hyperparameters(rotate=20.0)])
def test_a_scaled_or_turned_face_keeps_its_middle(
    images: NDArray[np.uint8], settings: Hyperparameters
) -> None:
    changed, _ = augment(images, settings)
    difference = np.abs(changed.astype(float) - images).mean(axis=(0, 3))
    assert difference[22:26, 22:26].mean() < difference[[0, -1]].mean()
    assert difference.max() > 5


def test_a_smaller_face_is_the_whole_face(images: NDArray[np.uint8]) -> None:
    small, _ = augment(images, PLAIN, side=24)
    assert small.shape == (20, 24, 24, 1)
    average = images.reshape(20, 24, 2, 24, 2, 1).mean(axis=(2, 4))
    assert small == pytest.approx(average, abs=1)


def test_a_blanked_square_has_the_faces_mean_grey(images: NDArray[np.uint8]) -> None:
    blanked, _ = augment(images, replace(PLAIN, cutout=16))
    changed = blanked != images
    assert 0 < changed.mean() < (16 / 48) ** 2
    sides = []
    for before, after, where in zip(images, blanked, changed, strict=True):
        assert set(after[where]) <= {round(float(before.mean()))}
        rows, columns, _ = np.nonzero(where)
        sides += [np.ptp(rows) + 1, np.ptp(columns) + 1] if len(rows) else []
    assert 13 <= max(sides) <= 16


def test_mixed_faces_have_targets_mixed_by_the_same_share() -> None:
    levels = np.arange(7, dtype=np.uint8) * 30  # a grey level of its own for each class
    flat = np.broadcast_to(levels[:, None, None, None], (7, 48, 48, 1))
    mixed, targets = augment(flat, replace(PLAIN, mixup=1.0))
    assert targets.sum(axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    assert (targets.max(axis=1) < 0.95).any()
    assert mixed[:, 5, 5, 0] == pytest.approx(targets @ levels.astype(np.float32), abs=0.51)


def test_the_same_seed_shows_the_same_faces_and_every_other_epoch_mirrors_them(
    dataset: Dataset,
) -> None:
    settings = replace(recipe(TrainSettings, "strong"), batch_size=16)

    def shown(settings: TrainSettings, epoch: int) -> NDArray[np.uint8]:
        batches = TrainBatches(dataset, settings)
        batches.start_epoch(epoch)
        return np.concatenate([batches[i][0] for i in range(len(batches))])

    assert np.array_equal(shown(settings, 3), shown(settings, 3))
    assert not np.array_equal(shown(settings, 3), shown(settings, 4))
    assert not np.array_equal(shown(settings, 3), shown(replace(settings, seed=1), 3))

    moved = TrainBatches(dataset, TrainSettings(shift=3))
    placed = []
    for epoch in (3, 5):
        moved.start_epoch(epoch)
        moved.order = np.arange(len(moved.images))
        placed.append(moved[0][0])
    assert not np.array_equal(placed[0], placed[1]), (
        "the same face stands elsewhere in another epoch"
    )

    batches = TrainBatches(dataset, TrainSettings(flip=True))
    images, _ = dataset.part(TRAIN)
    for epoch in (0, 1):
        batches.start_epoch(epoch)
        rows, (faces, _) = batches.rows(0), batches[0]
        mirrored = [np.array_equal(f, images[r][:, ::-1]) for f, r in zip(faces, rows, strict=True)]
        assert mirrored == ((rows + epoch) % 2 == 1).tolist()


def test_faces_grow_once() -> None:
    settings = replace(recipe(TrainSettings, "compact"), epochs=10, image_size=32, resize_at=0.4)
    assert [side_at(settings, epoch) for epoch in range(10)] == [32] * 4 + [48] * 6
    assert {side_at(Hyperparameters(), epoch) for epoch in range(30)} == {48}
