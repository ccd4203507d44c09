"""Groups of seeds: trained, continued, evaluated and compared as one."""

import base64
import io
import signal
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image
from scipy import stats

from pipeline.data import TEST, UNASSIGNED, dataset
from pipeline.data.dataset import Faces
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble
from pipeline.errors import InputError
from pipeline.reports import plots, seeds
from pipeline.runs import addresses, queries
from pipeline.settings import EvaluateSettings, TrainSettings
from pipeline.steps import groups
from search.comparisons import exhibits
from search.comparisons.compare import candidate, compare
from search.comparisons.paired_tests import (
    Candidate,
    Predictions,
    component_test,
    every_pair,
)
from search.settings import CompareSettings
from tests.conftest import Start
from tests.tiny import TINY

QUICK = {"network": TINY, "epochs": 3, "batch_size": 32, "lr": 0.002}


def group(data: str, **settings: object) -> str:
    return groups.train(TrainSettings(data=data, **(QUICK | settings)))  # type: ignore[arg-type]


def test_a_spread_is_students() -> None:
    values = [0.70, 0.72, 0.71]
    found = seeds.spread(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.std == pytest.approx(0.01)
    assert set(seeds.summarise([{"a": 1.0, "a_low": 0.0, "b": 1.0}, {"a": 2.0, "a_low": 1.0}])) == {
        "a", "a_std", "a_low", "a_high",
    }  # fmt: skip


@pytest.mark.parametrize("given", ["1", "1,1", "1,x", "-1,2", "1,4294967296", "", "1,"])
def test_seeds_that_make_no_group_are_refused(given: str) -> None:
    with pytest.raises(InputError, match="two or more different seeds"):
        TrainSettings(seeds=given)
    assert TrainSettings(seeds=" 3, 1").seed_list == [3, 1]


@pytest.mark.slow
def test_a_group_is_trained_evaluated_and_compared_over_seeds_and_faces(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = group(data, seeds="0,1,2", calibrate=True)
    run = MlflowClient().get_run(first)
    members = queries.members(first)
    assert [member.data.params["seed"] for member in members] == ["0", "1", "2"]
    assert {member.data.tags["mlflow.parentRunId"] for member in members} == {first}
    accuracies = [member.data.metrics["val/best_accuracy"] for member in members]
    metrics = run.data.metrics
    assert metrics["val/best_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-5)
    assert metrics["val/best_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-5)
    table = pd.read_csv(io.StringIO(mlflow.artifacts.load_text(f"runs:/{first}/seeds.csv")))
    assert list(table["run"]) == [member.info.run_id for member in members]
    curve = queries.curves(first, plots.CURVES)["val/accuracy"]
    each = [queries.curves(m.info.run_id, plots.CURVES)["val/accuracy"] for m in members]
    assert curve == pytest.approx(np.mean(each, axis=0), abs=1e-5)
    for member in members:  # a temperature never makes the log-loss that it is fitted to worse
        one = member.data.metrics
        assert one["val/log_loss"] <= one["val/log_loss_uncalibrated"] + 1e-6

    with pytest.raises(InputError, match=f"run={first} does"):
        compare(CompareSettings(f"{first},{members[0].info.run_id}"))
    evaluated = groups.evaluate(EvaluateSettings(run=first))
    test = MlflowClient().get_run(evaluated).data.metrics
    assert test["test/accuracy_low"] <= test["test/accuracy"] <= test["test/accuracy_high"]
    assert MlflowClient().get_run(first).data.metrics["test/accuracy"] == test["test/accuracy"]
    images, labels = draw(count=40, seed=2)
    other = assemble(
        Faces(images, labels, np.full(40, UNASSIGNED, np.uint8)),
        source="drawn",
        policy="report",
        seed=0,
    )
    dataset.save(other, Path("other"))
    groups.evaluate(EvaluateSettings(run=first, data="other"))
    kept = MlflowClient().get_run(first).data.metrics["test/accuracy_high"]
    assert kept == test["test/accuracy_high"], "only figures on its own dataset are the group's"
    capsys.readouterr()
    compared = compare(CompareSettings(f"{first},{members[0].info.run_id}"))
    assert "show no significant difference" in capsys.readouterr().out
    folder = MlflowClient().download_artifacts(compared, "comparison.html")
    page = Path(folder).read_text()
    for text in ("Accuracy against training minutes", "seed=0, 1, 2", "other seeds"):
        assert text in page
    assert "http" not in page, "the page needs nothing beside it"


def test_faces_of_which_only_one_network_is_right_are_shown(trained: str) -> None:
    given = candidate(trained, [trained])
    [member] = given.members
    right = replace(given, name="B", members=(replace(member, predicted=member.labels),))
    [(first, second, faces)] = exhibits.disagreements([given, right], every_pair([given, right]))
    assert (first, second) == ("A", "B")
    wrong = np.flatnonzero(~member.correct)
    assert [face.label for face in faces] == list(member.labels[wrong])
    assert all(face.first != face.label == face.second for face in faces)
    address = addresses.dataset_of(trained)
    images, _ = dataset.load(addresses.dataset_folder(address)).part(TEST)
    encoded = faces[0].image.removeprefix("data:image/png;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert np.array_equal(shown, images[wrong[0], ..., 0])


@pytest.mark.slow
def test_an_interrupted_group_is_continued_by_the_same_command(data: str, start: Start) -> None:
    command = {"data": data, **QUICK, "epochs": 40, "seeds": "0,1"}
    child = start("pipeline.train", **command)
    child.wait_for("seed 1")
    child.send(signal.SIGINT)
    assert child.end() == 130
    [stopped] = queries.search("tags.step = 'train_seeds'")
    assert stopped.info.status == "KILLED"
    again = start("pipeline.train", **command)
    assert again.end() == 0, again.stderr
    [run] = queries.search("tags.step = 'train_seeds'")
    assert (run.info.run_id, run.info.status) == (stopped.info.run_id, "FINISHED")
    assert [m.data.params["seed"] for m in queries.members(run.info.run_id)] == ["0", "1"]
    finished = queries.search("tags.step = 'train' and attributes.status = 'FINISHED'")
    assert len(finished) == 2, "the finished seed is not trained again"


def test_the_test_over_seeds_and_faces_keeps_its_level_and_finds_what_is_there() -> None:
    """400 pairs of groups without a difference, and 100 with one of 6 points."""
    random = np.random.default_rng(0)

    def masks(gain: float, easy: np.ndarray) -> list[np.ndarray]:
        levels = 0.7 + gain + random.normal(0, 0.02, 3)
        return [random.random(len(easy)) < np.clip(easy + level - 0.7, 0, 1) for level in levels]

    def p_value(gain: float) -> float:
        easy = np.clip(random.normal(0.7, 0.25, 1000), 0, 1)
        return component_test(masks(gain, easy), masks(0, easy))[2]

    found = np.array([p_value(0) for _ in range(400)])
    assert np.mean(found < 0.05) < 0.075, "three standard errors above the level"
    assert np.mean(found < 0.5) > 0.3, "not so careful that it finds nothing"
    assert np.mean([p_value(0.06) < 0.05 for _ in range(100)]) > 0.6


def test_one_seed_on_each_side_leaves_the_faces_alone() -> None:
    random = np.random.default_rng(1)
    first, second = random.random((2, 500)) < 0.6
    low, high, p = component_test([first], [second])
    expected = stats.ttest_rel(first.astype(float), second.astype(float))
    assert p == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx(expected.confidence_interval())


def test_a_single_face_proves_nothing_and_ten_do() -> None:
    def p_value(faces: int) -> float:
        return component_test([np.ones(faces)] * 3, [np.zeros(faces)] * 3)[2]

    assert p_value(1) == 1
    assert p_value(10) < 0.01


def test_the_interval_of_a_group_ends_at_all_faces() -> None:
    labels = np.array(["sad"] * 50)
    faces = np.arange(50)
    members = tuple(
        Predictions(labels, np.where(faces == seed, "fear", labels), faces >= 0, faces)
        for seed in range(2)
    )
    group = Candidate("A", {}, "id", "digest", "test", True, members)
    low, high = group.interval
    assert 0.9 < low < group.accuracy < high == 1
