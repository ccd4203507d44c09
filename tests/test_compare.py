"""Tests of comparisons: paired tests on the same faces, their page, and the champion."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipeline.data import CLASSES
from pipeline.errors import InputError
from pipeline.networks.build import build
from pipeline.reports import metrics
from pipeline.runs import queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings, TrainSettings
from search.comparisons.compare import compare
from search.settings import CompareSettings
from search.studies import champion
from tests.tiny import TINY

FACES = 700
LABELS = np.arange(FACES, dtype=np.uint8) % 7
Evaluated = Callable[..., str]


def predictions(wrong: int, seed: int = 0) -> NDArray[np.float32]:
    """Probabilities (700, 7) that get the `wrong` first faces of a random order wrong."""
    predicted = LABELS.copy()
    rows = np.random.default_rng(seed).permutation(FACES)[:wrong]
    predicted[rows] = (predicted[rows] + 1) % 7
    return np.eye(7, dtype=np.float32)[predicted]


def record_training(parent: Run | None = None, **settings: object) -> str:
    """A train run with these settings, without a network."""
    with tracking.record("train", TrainSettings(**settings), parent=parent) as run:  # type: ignore[arg-type]
        run.tag(dataset_digest="d1")
    return run.id


def record_evaluation(
    train_run: str,
    wrong: int,
    *,
    seed: int = 0,
    digest: str = "d1",
    faces: str = "f1",
    trained_on: int = 0,
    **tags: object,
) -> str:
    """An evaluate run of a train run's network, as `pipeline.evaluate` records it.

    The network was trained on copies of the first `trained_on` faces.
    """
    with tracking.record("evaluate", EvaluateSettings(train_run)) as run:
        run.tag(trained_by=train_run, dataset_digest=digest, faces_digest=faces, **tags)
        result = metrics.compute(LABELS, predictions(wrong, seed))
        unseen = np.arange(FACES) >= trained_on
        run.log_text(metrics.predictions_csv(result, unseen), "predictions.csv")
    return run.id


def forget_param(run_id: str, name: str) -> None:
    """Delete a param, as in a run of a version without it."""
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("delete from params where run_uuid = ? and key = ?", (run_id, name))


def retype_param(run_id: str, name: str, typed: str) -> None:
    """Change a param to the text that `mlflow run` would record."""
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute(
            "update params set value = ? where run_uuid = ? and key = ?", (typed, run_id, name)
        )


def page_of(run_id: str) -> str:
    folder = MlflowClient().download_artifacts(run_id, "comparison.html")
    return Path(folder).read_text()


def test_a_clear_difference_is_told_and_a_small_one_is_not(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [record_training(lr=lr) for lr in (0.001, 0.002, 0.003)]
    good, as_good, bad = trained
    evaluated = [
        record_evaluation(good, 100),
        record_evaluation(as_good, 104, digest="d2"),  # the same faces, another validation split
        record_evaluation(bad, 300),
    ]
    # Train runs and evaluate runs are both accepted.
    run_id = compare(CompareSettings(",".join([good, evaluated[1], bad])))
    said = capsys.readouterr().out
    assert "A and B show no significant difference" in said
    assert "A is better than C, by 28.6 points" in said
    assert "lr=0.001" in said
    assert "epochs" not in said, "settings that are the same are left out"
    page = page_of(run_id)
    assert "no significant difference" in page
    assert "A is better" in page
    assert "src=" not in page
    assert "href=" not in page, "the page needs nothing beside it"
    assert all(name in page for name in CLASSES)
    assert queries.get(run_id, "compare").info.status == "FINISHED"


def test_settings_are_compared_by_their_values_however_they_were_typed(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = record_training(lr=0.0002, flip=True)
    other = record_training(lr=0.0002, flip=True, batch_size=32)
    for name, text in (("lr", "2e-4"), ("flip", "true")):
        retype_param(typed, name, text)
    compare(CompareSettings(",".join(record_evaluation(r, 100) for r in (typed, other))))
    said = capsys.readouterr().out
    assert "batch_size=32" in said
    assert not re.search("lr=|flip=", said)


def test_a_network_that_was_not_evaluated_is_named_in_one_line(store: Path) -> None:
    tested, untested = record_training(lr=0.001), record_training(lr=0.002)
    record_evaluation(tested, 100)
    with pytest.raises(InputError) as refused:
        compare(CompareSettings(f"{tested},{untested}"))
    assert str(refused.value) == (
        f"run {untested} was not evaluated on test yet; -e evaluate -P run={untested} does"
    )


def test_faces_that_one_network_was_trained_on_are_left_out(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [record_training(lr=lr) for lr in (0.001, 0.002)]
    knows_them = record_evaluation(trained[0], 100, trained_on=600)
    does_not = record_evaluation(trained[1], 300, digest="d2", trained_on=20)
    run_id = compare(CompareSettings(f"{knows_them},{does_not}"))
    assert "600 more were left out" in capsys.readouterr().out
    assert "2 networks on the same 100 test faces" in page_of(run_id)

    knows_all = record_evaluation(trained[0], 100, trained_on=FACES)
    with pytest.raises(InputError, match="each of these test faces is one that"):
        compare(CompareSettings(f"{knows_all},{does_not}"))


def test_what_a_network_may_have_learnt_before_is_said(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [record_training(lr=0.001), record_training(lr=0.002, init_from="given.keras")]
    runs = [
        record_evaluation(trained[0], 100, learnt_all_known=True),
        record_evaluation(trained[1], 50, learnt_all_known=False),
    ]
    run_id = compare(CompareSettings(",".join(runs)))
    warning = "Not all training faces of B are known: some may be among these."
    assert warning in capsys.readouterr().out
    assert warning in page_of(run_id)


def test_a_setting_that_is_younger_than_a_run_makes_no_difference(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = record_training(), record_training(lr=0.002)
    runs = [record_evaluation(run, 100) for run in (old, new)]
    forget_param(old, "start")
    assert "start" not in queries.get(old, "train").data.params
    compare(CompareSettings(",".join(runs)))
    assert "start" not in capsys.readouterr().out


def test_networks_that_saw_different_faces_are_not_compared(store: Path) -> None:
    trained = [record_training(lr=lr) for lr in (0.001, 0.002)]
    runs = [record_evaluation(run, 100, faces=run) for run in trained]
    with pytest.raises(InputError, match="measured on different faces"):
        compare(CompareSettings(",".join(runs)))


@pytest.mark.parametrize("runs", ["none", "abc", "abc,abc", "abc,"])
def test_fewer_than_two_runs_are_refused(runs: str) -> None:
    with pytest.raises(InputError, match="two or more different run ids"):
        CompareSettings(runs)


def test_mcnemar_looks_only_at_the_faces_on_which_two_disagree() -> None:
    first = np.array([1] * 50 + [1] * 12 + [0] * 3 + [0] * 35, bool)
    second = np.array([1] * 50 + [0] * 12 + [1] * 3 + [0] * 35, bool)
    only_first, only_second, p = metrics.mcnemar(first, second)
    assert (only_first, only_second) == (12, 3)
    assert p == pytest.approx(binomtest(3, 15).pvalue)
    assert metrics.mcnemar(first, first) == (0, 0, 1.0)


def test_holm_corrects_for_the_number_of_tests() -> None:
    assert metrics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert metrics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert metrics.holm([]) == []


def test_a_champion_is_replaced_only_by_a_network_that_beats_it(store: Path) -> None:
    first, equal, better, worse = (record_network(lr) for lr in (0.001, 0.002, 0.003, 0.004))
    verdicts = []
    for run_id, wrong in ((first, 200), (equal, 196), (better, 100), (worse, 250)):
        parent = Run(run_id)
        tested = record_evaluation(run_id, wrong)
        verdicts.append(champion.register(run_id, tested, "none", parent))
    assert [v.alias for v in verdicts] == ["champion", "challenger", "champion", "challenger"]
    assert "no significant difference" in verdicts[1].reason
    assert "It beats version 1" in verdicts[2].reason
    assert "The champion is better" in verdicts[3].reason
    client = MlflowClient()
    assert client.get_model_version_by_alias("emotion", "champion").run_id == better
    assert client.get_model_version_by_alias("emotion", "challenger").run_id == worse

    again = champion.register(
        better, queries.evaluation_of(better, faces_digest="f1") or "", "none", Run(better)
    )
    assert again.reason == "It is the champion already."
    assert len(client.search_model_versions("name = 'emotion'")) == 4

    # On other faces the champion, whose run is deleted, can not be evaluated; the study still ends.
    new = record_network(0.005)
    client.delete_run(better)
    verdict = champion.register(new, record_evaluation(new, 0, faces="f2"), "none", Run(new))
    assert verdict.alias == "challenger"
    assert "can't be compared with the champion" in verdict.reason


def record_network(lr: float) -> str:
    """A train run with an untrained network as its model."""
    with tracking.record("train", TrainSettings(lr=lr)) as run:
        run.tag(dataset_digest="d1")
        run.log_model(build(TrainSettings(network=TINY), precision="float32"))
    return run.id
