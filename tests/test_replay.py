"""Recorded trainings, packed and replayed by searches; the curves here are drawn, not trained."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from benchmarks import cross_validate, pack, recorded, search
from benchmarks.recorded import Recorded
from pipeline.errors import InputError
from search.methods.unit_cube import UnitCube

EPOCHS = 6
SPACE = {
    "lr": FloatDistribution(1e-4, 0.1, log=True),
    "batch_size": IntDistribution(8, 128, log=True),
    "optimizer": CategoricalDistribution(("adam", "momentum")),
    "momentum": FloatDistribution(0.7, 0.98),
}
WHEN = {"momentum": ("optimizer", "momentum")}
START = {"lr": 0.001, "batch_size": 128, "optimizer": "adam"}
ABOUT = {
    "space": {name: distribution_to_json(bounds) for name, bounds in SPACE.items()},
    "when": WHEN,
    "start": START,
    "base": {"network": "compact", "epochs": EPOCHS, "image_size": 32, "resize_at": 0.5},
}
NOISE = 0.02
SETTINGS = 60
FAILED = 4


def accuracy(point: dict[str, Any]) -> float:
    """At most 0.6: at a learning rate of 0.01, better with small batches and with momentum."""
    off = abs(np.log10(point["lr"] / 0.01)) / 2 + np.log2(point["batch_size"] / 8) / 16
    return float(0.6 - 0.2 * off - (0 if "momentum" in point else 0.05))


def trainings() -> Iterator[dict[str, Any]]:
    """Settings, of which every fifth is repeated; one training fails after two epochs."""
    rng = np.random.default_rng(0)
    cube = UnitCube(SPACE, WHEN)
    numbers = count()
    for k in range(SETTINGS):
        point = cube.params(cube.uniform(rng, 1)[0]) if k else START
        kind = "uniform" if k else "recipe"
        of = next(numbers)
        for number in [of] if k % 5 else [of, next(numbers)]:
            true = accuracy(point) * (1 - 0.5 ** np.arange(1, EPOCHS + 1))
            seen = true + rng.normal() * NOISE
            epochs = 2 if number == FAILED else EPOCHS
            yield {
                "number": number, "kind": kind, "of": of, "seed": number - of, "point": point,
                "val_accuracy": seen[:epochs].tolist(), "true_accuracy": true[:epochs].tolist(),
                "error": "the loss is nan" if number == FAILED else "",
            }  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "about.json").write_text(json.dumps(ABOUT))
    for one in trainings():
        (folder / f"{one['number']:04d}.json").write_text(json.dumps(one))
    pack.main(pack.Packing(folder, folder / "packed"))
    return folder / "packed"


@pytest.fixture(scope="module")
def halves(packed: Path) -> dict[str, Recorded]:
    """The two benchmarks, with a surrogate that is quick to fit."""
    return {one.name: replace(one, surrogate="forest") for one in recorded.read(packed)}


def test_each_setting_is_in_one_half_with_its_repeats_and_the_recipe_in_both(
    halves: dict[str, Recorded],
) -> None:
    tune, report = (halves[f"wide_{half}"].setting.tolist() for half in ("tune", "report"))
    assert set(tune) & set(report) == {0}
    both = sorted(tune + report)
    assert both == sorted([one["of"] for one in trainings()] + [0, 0])
    assert abs(len(set(tune)) - len(set(report))) <= 2


def test_a_packed_recording_holds_what_was_trained(halves: dict[str, Recorded]) -> None:
    tune = halves["wide_tune"]
    assert dict(tune.space) == SPACE
    assert tune.small_epochs == 3
    of_half = [one for one in trainings() if pack.half_of(one["of"]) in (0, None)]
    for row, curve, one in zip(tune.rows, tune.curves, of_half, strict=True):
        assert row == pytest.approx(tune.cube.nearest(one["point"]), abs=1e-6, nan_ok=True)
        if one["number"] == FAILED:
            one["true_accuracy"] += [1 / 7] * 4
        assert curve == pytest.approx(one["true_accuracy"])
    assert any(one["number"] == FAILED for one in of_half)


def test_a_search_sees_the_truth_with_the_noise_of_the_recording(
    halves: dict[str, Recorded],
) -> None:
    tune = halves["wide_tune"]
    seen = np.array([tune.curve(START, seed) for seed in range(100)])
    assert seen[:, -1].std() == pytest.approx(NOISE, rel=0.5)
    assert seen.mean(axis=0) == pytest.approx(tune.predict(tune.rows[:1])[0], abs=NOISE / 2)
    assert tune.curve(START, 3).tolist() == seen[3].tolist()


def test_the_surrogate_ranks_settings_that_it_was_not_given(halves: dict[str, Recorded]) -> None:
    true, predicted = cross_validate.held_out(halves["wide_report"], "forest")
    assert len(true) == len(set(halves["wide_report"].setting))
    assert min(cross_validate.rank_correlations(true, predicted)[:3]) > 0.6


@pytest.mark.parametrize("method", ["ours", "random"])
def test_a_replay_is_measured_by_the_truth(halves: dict[str, Recorded], method: str) -> None:
    tune = halves["wide_tune"]
    best = search.best_by_epoch(search.METHODS[method], tune, tune.start, 0, trainings=7)
    assert len(best) == 7 * EPOCHS
    assert best[:EPOCHS] == pytest.approx([tune.value(START)] * EPOCHS)
    again = search.best_by_epoch(search.METHODS[method], tune, tune.start, 0, trainings=7)
    assert again.tolist() == best.tolist()
    free = replace(tune, noise=np.zeros((1, EPOCHS)))  # then the best seen is the best
    best = search.best_by_epoch(search.METHODS[method], free, tune.start, 0, trainings=7)
    assert best[-1] == max(best) > tune.value(START)


def test_the_replay_reports_points_above_the_start(
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(search, "AFTER", (1, 2, 6))
    file = tmp_path / "results.json"
    replay = search.Replay(packed, seeds=1, methods="ours,random", surrogate="forest", json=file)
    search.main(replay)
    results = json.loads(file.read_text())
    assert len(results) == 4
    assert all(one["points"]["1"] == 0 for one in results)
    assert all(one["points"].keys() == one["regret"].keys() for one in results)
    assert "points of true accuracy above" in " ".join(capsys.readouterr().out.split())


def test_a_recording_without_the_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training of the recipe"):
        pack.main(pack.Packing(tmp_path, tmp_path / "packed"))
