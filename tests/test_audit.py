"""Tests of the audit: what doubts a label has not learnt it, and the test split is not touched."""

import io
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from pipeline.data import CLASSES, TRAIN, splitting
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.reports import doubts
from pipeline.settings import AuditSettings
from pipeline.steps import checks
from pipeline.steps.audit import audit
from tests.tiny import TINY

needs_cleanlab = pytest.mark.skipif(not find_spec("cleanlab"), reason="the extra audit")


def test_copies_of_a_face_are_never_on_both_sides_of_a_fold(dataset: Dataset) -> None:
    train = np.flatnonzero(dataset.split == TRAIN)
    images = np.array(dataset.images)
    images[train[:10]] = images[train[10:20]]
    copied = replace(dataset, images=images)
    parts = splitting.folds(copied, 3, seed=1)
    assert np.array_equal(np.sort(np.concatenate(parts)), train)
    place = {row: number for number, part in enumerate(parts) for row in part}
    assert all(place[a] == place[b] for a, b in zip(train[:10], train[10:20], strict=True))
    other = splitting.folds(copied, 3, seed=2)
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def test_a_class_with_fewer_faces_than_folds_is_named(dataset: Dataset) -> None:
    fewest = np.bincount(dataset.labels[dataset.split == TRAIN]).min()
    with pytest.raises(InputError, match=rf"disgust has only {fewest} training faces"):
        splitting.folds(dataset, int(fewest) + 1, seed=0)


@pytest.mark.skipif(find_spec("cleanlab") is not None, reason="cleanlab is installed")
def test_without_cleanlab_one_line_says_how_to_install_it() -> None:
    with pytest.raises(InputError, match="pip install -r requirements-audit.txt"):
        checks.audit(AuditSettings())


@needs_cleanlab
def test_wrong_labels_are_doubted_most_and_their_votes_stand_beside_them() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 700).astype(np.uint8)
    drawn = rng.dirichlet(np.full(7, 0.5), 700)
    probabilities = (0.3 * drawn + 0.7 * np.eye(7)[true]).astype(np.float32)
    labels = true.copy()
    labels[:30] = (true[:30] + 1) % 7
    cast = 10 * np.eye(7, dtype=np.uint8)[true]
    found = doubts.table(np.arange(700) + 5, labels, probabilities, CLASSES, cast)
    assert set(found["row"][:30]) == set(range(5, 35))
    assert found["doubt"].is_monotonic_decreasing
    assert found["flagged"][:30].mean() > 0.8
    assert found["flagged"][30:].mean() < 0.05
    first = found.iloc[0]
    assert first["majority"] == first["predicted"] != first["label"]
    assert f"votes: {first['majority']} 10" in doubts.captions(found[:1], CLASSES)[0]
    assert "% of all, are not the votes' majority" in doubts.text(found)


@needs_cleanlab
@pytest.mark.slow
def test_an_audit_lists_every_training_face_and_no_other(dataset: Dataset, data: str) -> None:
    run_id = audit(AuditSettings(data=data, network=TINY, folds=2, epochs=1, faces=6))
    run = MlflowClient().get_run(run_id)
    assert (run.info.status, run.data.tags["step"]) == ("FINISHED", "audit")
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/doubts.csv")
    table = pd.read_csv(io.StringIO(text))
    places = np.flatnonzero(dataset.split == TRAIN)
    assert sorted(table["row"]) == places.tolist()
    names = [CLASSES[code] for code in dataset.labels[table["row"]]]
    assert table["label"].tolist() == names
    assert "majority" not in table
    assert run.data.metrics["audit/flagged"] == table["flagged"].sum()
    with Image.open(Path(run.info.artifact_uri.removeprefix("file://")) / "doubts.png") as sheet:
        assert sheet.width > 1000
