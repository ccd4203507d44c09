"""What a study with the sampler of curves proposes, on Optuna's own studies in memory."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from search.methods.curve_gp import CurveGP, Observations
from search.methods.curve_sampler import KIND, CurveSampler, recorded_space
from search.methods.samplers import make_pruner, sampler_seed, silence_optuna
from search.methods.unit_cube import UnitCube

Point = dict[str, Any]

EPOCHS = 9
SPACE: Mapping[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "batch_size": IntDistribution(8, 128, log=True),
    "optimizer": CategoricalDistribution(("adam", "momentum", "sgd")),
    "momentum": FloatDistribution(0.7, 0.98),
    "dropout": FloatDistribution(0.0, 0.6),
    "shift": IntDistribution(0, 6),
}
CONDITIONS = {"momentum": ("optimizer", "momentum")}
START = {"lr": 1e-4, "batch_size": 64, "optimizer": "adam", "dropout": 0.5, "shift": 1}


def quality(point: Point) -> float:
    """Best at 1: lr 0.01, momentum 0.9, batch size 32, dropout 0.2, shift 3."""
    off = [
        np.log10(point["lr"] / 0.01) / 2,
        np.log2(point["batch_size"] / 32) / 4,
        (point["dropout"] - 0.2) / 0.6,
        (point["shift"] - 3) / 6,
        (point["momentum"] - 0.9) * 3 if point["optimizer"] == "momentum" else 0.3,
    ]
    return float(np.exp(-3 * np.sum(np.square(off))))


def curve(point: Point) -> list[float]:
    return [quality(point) * (1 - 0.6**epoch) for epoch in range(1, EPOCHS + 1)]


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution]) -> Point:
    """A value for each parameter that applies, as the search asks for them."""
    point: Point = {}
    for name, bounds in space.items():
        other, value = CONDITIONS.get(name, (None, None))
        if other is not None and point[other] != value:
            continue
        match bounds:
            case FloatDistribution():
                point[name] = trial.suggest_float(name, bounds.low, bounds.high, log=bounds.log)
            case IntDistribution():
                point[name] = trial.suggest_int(name, bounds.low, bounds.high, log=bounds.log)
            case CategoricalDistribution():
                point[name] = trial.suggest_categorical(name, bounds.choices)
    return point


def new_study(direction: Literal["maximize", "minimize"] = "maximize") -> optuna.Study:
    silence_optuna()
    return optuna.create_study(direction=direction, pruner=make_pruner("halving", EPOCHS))


def ask(
    study: optuna.Study,
    seed: int = 0,
    space: Mapping[str, BaseDistribution] = SPACE,
    start: Mapping[str, Any] | None = START,
    earlier: optuna.Study | None = None,
) -> optuna.Trial:
    """A trial by a sampler that is made for it, as in a study of the project."""
    sampler = CurveSampler(
        space,
        conditions=CONDITIONS,
        start=start,
        seed=sampler_seed(seed, len(study.trials)),
    )
    if earlier is not None:
        sampler.learn_from(earlier.trials, earlier.direction)
    study.sampler = sampler
    return study.ask()


def run(
    study: optuna.Study,
    trials: int,
    seed: int = 0,
    space: Mapping[str, BaseDistribution] = SPACE,
    start: Mapping[str, Any] | None = START,
    train: Callable[[Point], list[float]] = curve,
    earlier: optuna.Study | None = None,
) -> list[Point]:
    """Train that many trials; their points."""
    points = []
    for _ in range(trials):
        trial = ask(study, seed, space, start, earlier)
        point = suggest(trial, space)
        points.append(point)
        finish(study, trial, train(point))
    return points


def finish(study: optuna.Study, trial: optuna.Trial, values: list[float]) -> None:
    best = max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min
    for epoch, value in enumerate(values, start=1):
        trial.report(value, epoch)
        if epoch < len(values) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, best(values))


def kinds(study: optuna.Study) -> list[str | None]:
    return [trial.system_attrs.get(KIND) for trial in study.trials]


def test_the_start_is_tried_first_then_mutations_of_it_then_uniform_trials() -> None:
    study = new_study()
    first, *others = run(study, 5)
    assert first == pytest.approx(START)
    assert kinds(study) == ["start", "mutation", "mutation", "uniform", "uniform"]
    assert all(point != first for point in others)


def test_a_start_that_was_enqueued_is_not_tried_again() -> None:
    study = new_study()
    study.enqueue_trial(START)
    points = run(study, 3)
    assert points[0] == START
    assert kinds(study) == [None, "mutation", "mutation"]


def test_a_start_beyond_the_space_is_brought_into_it() -> None:
    space = {**SPACE, "lr": FloatDistribution(1e-3, 0.1, log=True)}
    [first] = run(new_study(), 1, space=space)
    assert first == pytest.approx({**START, "lr": 1e-3})


@pytest.mark.parametrize("start", [START, None])
def test_proposals_stay_within_bounds_and_have_what_applies(start: Point | None) -> None:
    study = new_study()
    points = run(study, 30, start=start)
    assert {"adam", "momentum"} <= {point["optimizer"] for point in points}
    for point in points:
        assert ("momentum" in point) == (point["optimizer"] == "momentum")
        assert 1e-5 <= point["lr"] <= 1
        assert 8 <= point["batch_size"] <= 128
        assert 0 <= point["shift"] <= 6
    # All come from the sampler's joint proposal: nothing was left to independent draws.
    assert None not in kinds(study)


def best_after(points: list[Point]) -> float:
    return max(quality(point) for point in points)


def test_it_is_further_after_25_trials_than_random_search_after_75() -> None:
    ours = np.mean([best_after(run(new_study(), 25, seed)) for seed in range(3)])
    rng = np.random.default_rng(0)
    cube = UnitCube(SPACE, CONDITIONS)
    random = np.mean(
        [max(quality(cube.params(row)) for row in cube.uniform(rng, 75)) for _ in range(20)]
    )
    assert ours > random + 0.05


def test_a_start_that_uniform_trials_beat_is_not_clung_to() -> None:
    hopeless = {"lr": 1.0, "batch_size": 128, "optimizer": "sgd", "dropout": 0.6, "shift": 6}
    study = new_study()
    points = run(study, 20, start=hopeless)
    assert set(kinds(study)[5:]) == {"tpe", "anywhere"}
    assert best_after(points[5:]) > 10 * quality(hopeless)


def test_an_earlier_study_of_a_similar_task_saves_trials() -> None:
    def similar(point: Point) -> list[float]:
        """Easier, twice as many epochs, and best at another learning rate and shift."""
        moved = point | {"lr": 2 * point["lr"], "shift": point["shift"] + 1}
        return [0.2 + 0.6 * quality(moved) * (1 - 0.8**n) for n in range(1, 2 * EPOCHS + 1)]

    with_it, without = [], []
    for seed in range(3):
        earlier = new_study()
        run(earlier, 20, seed=100 + seed, train=similar)
        study = new_study()
        with_it.append(best_after(run(study, 6, seed, earlier=earlier)))
        assert kinds(study)[:4] == ["start", "replay", "replay", "near"]
        without.append(best_after(run(new_study(), 12, seed)))
    assert np.mean(with_it) > np.mean(without)


def test_what_an_earlier_study_did_not_vary_is_drawn() -> None:
    earlier, study = new_study(), new_study()
    narrower = {name: bounds for name, bounds in SPACE.items() if name != "shift"}
    run(earlier, 2, space=narrower, start=None, train=lambda point: [0.5] * EPOCHS)
    [first] = run(study, 1, start=None, earlier=earlier)
    assert kinds(study) == ["replay"]
    assert first["shift"] in range(7)


def test_a_misleading_earlier_study_is_outweighed() -> None:
    def opposite(point: Point) -> list[float]:
        return [1 - value for value in curve(point)]

    found = []
    for seed in range(3):
        earlier = new_study()
        run(earlier, 20, seed=100 + seed, train=opposite)
        found.append(best_after(run(new_study(), 20, seed, earlier=earlier)))
    assert np.mean(found) > 3 * quality(START)


def test_a_loss_is_minimised() -> None:
    study = new_study("minimize")
    points = run(study, 20, train=lambda point: [1e6 * (2 - value) for value in curve(point)])
    assert best_after(points) > 2 * quality(START)


def test_the_same_seed_and_trials_give_the_same_proposals() -> None:
    assert run(new_study(), 12) == run(new_study(), 12)
    assert run(new_study(), 12, seed=1) != run(new_study(), 12)


def test_a_study_that_is_continued_elsewhere_goes_on_as_if_it_had_not_stopped() -> None:
    whole = new_study()
    run(whole, 12)
    halved = new_study()
    run(halved, 8)
    copy = new_study()
    copy.add_trials(halved.trials)
    run(copy, 4)
    assert [t.params for t in copy.trials] == [t.params for t in whole.trials]
    assert len({str(t.params) for t in copy.trials}) == 12


def test_workers_do_not_propose_the_same() -> None:
    study = new_study()
    run(study, 8)
    running = [ask(study) for _ in range(4)]
    points = [suggest(trial, SPACE) for trial in running]
    rows = [UnitCube(SPACE, CONDITIONS).row(point) for point in points]
    apart = [np.nanmax(np.abs(a - b)) for i, a in enumerate(rows) for b in rows[:i]]  # type: ignore[operator]
    assert min(apart) > 0.02


def test_pruned_curves_teach() -> None:
    """Low learning rates were all pruned after an epoch, and nothing else differs."""
    space: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-5, 1.0, log=True)}
    study = new_study()
    for lr in np.geomspace(1e-5, 0.8, 12):
        good = lr > 0.05
        reports = {1: 0.3 + 0.01 * good, 2: 0.5, 9: 0.6} if good else {1: 0.1}
        study.add_trial(
            create_trial(
                params={"lr": float(lr)},
                distributions=space,
                state=TrialState.COMPLETE if good else TrialState.PRUNED,
                value=0.6 if good else None,
                intermediate_values=reports,
            )
        )
    proposed = []
    for trial in (ask(study, seed, space, {"lr": 0.8}) for seed in range(12)):
        proposed.append(suggest(trial, space)["lr"])
    by_model = [lr for lr, kind in zip(proposed, kinds(study)[12:], strict=True) if kind == "near"]
    assert len(by_model) >= 6
    assert min(by_model) > 0.005


def trial_of(state: TrialState, point: Point, **values: Any) -> optuna.trial.FrozenTrial:
    distributions = {name: SPACE[name] for name in point}
    return create_trial(state=state, params=point, distributions=distributions, **values)


def test_odd_trials_are_taken_as_they_are() -> None:
    study = new_study()
    study.add_trials(
        [
            trial_of(TrialState.COMPLETE, START, value=0.5),
            trial_of(TrialState.COMPLETE, START | {"lr": 0.1}, value=float("inf")),
            trial_of(TrialState.COMPLETE, START | {"lr": 0.2}, value=float("-inf")),
            trial_of(TrialState.COMPLETE, {"lr": 0.01}, value=0.6),
            trial_of(TrialState.PRUNED, START | {"lr": 0.3}, intermediate_values={1: np.nan}),
            trial_of(
                TrialState.PRUNED, START | {"lr": 0.4}, intermediate_values={0: 0.1, 7: -1e30}
            ),
            trial_of(TrialState.PRUNED, START | {"lr": 0.5}),
            trial_of(TrialState.FAIL, START | {"lr": 0.6}),
            trial_of(TrialState.FAIL, {}),
            trial_of(TrialState.RUNNING, START | {"lr": 0.7}, intermediate_values={2: 0.2}),
            trial_of(TrialState.RUNNING, {}),
            trial_of(TrialState.WAITING, {}, system_attrs={"fixed_params": START | {"lr": 0.9}}),
        ]
    )
    points = run(study, 12)
    assert points[0]["lr"] == 0.9
    assert all(1e-5 <= point["lr"] <= 1 for point in points)


def test_equal_values_and_a_single_trial_are_no_trouble() -> None:
    points = run(new_study(), 12, train=lambda point: [0.25] * EPOCHS)
    assert len({str(point) for point in points}) == 12


def test_a_space_with_one_point_has_one_proposal() -> None:
    space = {"lr": FloatDistribution(0.1, 0.1), "optimizer": CategoricalDistribution(("adam",))}
    points = run(new_study(), 8, space=space, start=None, train=lambda point: [0.5] * EPOCHS)
    assert points == [{"lr": 0.1, "optimizer": "adam"}] * 8


def test_settings_that_always_fail_are_left() -> None:
    """Trainings with adam, which the start has too, run out of memory."""
    study = new_study()
    failed = []
    for _ in range(25):
        trial = ask(study)
        point = suggest(trial, SPACE)
        failed.append(point["optimizer"] == "adam")
        if failed[-1]:
            study.tell(trial, state=TrialState.FAIL)
        else:
            finish(study, trial, curve(point))
    assert failed[0]
    assert sum(failed[12:]) <= 4


def test_a_range_may_be_narrowed_in_mid_study() -> None:
    study = new_study()
    run(study, 10)
    space = {**SPACE, "lr": FloatDistribution(1e-3, 1e-2, log=True)}
    points = run(study, 10, space=space)
    assert all(1e-3 <= point["lr"] <= 1e-2 for point in points)
    inside = [t for t in study.trials[:10] if 1e-3 <= t.params["lr"] <= 1e-2]
    curves = CurveSampler(space, conditions=CONDITIONS)._curves(
        study.trials, study.direction, EPOCHS
    )
    assert len(curves) == len(inside) + 10


def test_choices_may_be_left_out_in_mid_study() -> None:
    study = new_study()
    run(study, 10)
    space = {**SPACE, "optimizer": CategoricalDistribution(("sgd", "momentum"))}
    suggested_from = recorded_space(study.trials, space)
    assert suggested_from["optimizer"] == SPACE["optimizer"]
    for _ in range(10):
        trial = ask(study, space=space)
        point = suggest(trial, suggested_from)
        assert point["optimizer"] in ("sgd", "momentum")
        finish(study, trial, curve(point))


def test_a_parameter_outside_the_space_is_drawn_at_random() -> None:
    study = new_study()
    run(study, 1)
    trial = ask(study)
    suggest(trial, SPACE)
    assert 0 <= trial.suggest_float("zoom", 0, 0.2) <= 0.2


def test_a_proposal_is_quick_after_two_hundred_trials() -> None:
    study = new_study()
    rng = np.random.default_rng(0)
    cube = UnitCube(SPACE, CONDITIONS)
    for row in [cube.nearest(START), *cube.uniform(rng, 200)]:
        point = cube.params(row)
        reports = dict(enumerate(curve(point), start=1))
        study.add_trial(
            trial_of(TrialState.COMPLETE, point, value=quality(point), intermediate_values=reports)
        )
    run(study, 4)
    began = time.process_time()
    suggest(ask(study), SPACE)
    assert time.process_time() - began < 1.0  # 0.1 s on an idle core; BLAS may count every thread


def test_the_model_extrapolates_curves_that_were_cut_short() -> None:
    """Half of the settings trained to the end, the others for a third; quality is linear."""
    rng = np.random.default_rng(0)
    settings = rng.random((20, 1))
    share = [np.linspace(1, 3 if i % 2 else 9, 3) / 9 for i in range(20)]
    value = [(2 * x[0] - 1) * (0.5 + s / 2) for x, s in zip(settings, share, strict=True)]
    seen = Observations(
        settings, np.repeat(np.arange(20), 3), np.concatenate(share), np.concatenate(value)
    )
    gp = CurveGP(np.array([0]))
    gp.fit(seen, iterations=25)
    new = np.linspace(0.05, 0.95, 10)[:, None]
    mean, sd = gp.predict(new)
    assert np.abs(mean - (2 * new[:, 0] - 1)).max() < 0.15
    assert gp.predict(np.array([[5.0]]))[1][0] > 3 * sd.max()


def test_the_models_gradient_is_the_slope_of_its_loss() -> None:
    rng = np.random.default_rng(1)
    seen = Observations(
        rng.random((8, 4)),
        np.repeat(np.arange(8), 3),
        np.tile([0.3, 0.6, 1.0], 8),
        rng.normal(size=24),
    )
    gp = CurveGP(np.array([0, 1, 2, 2]))
    gp.fit(seen, iterations=1)
    theta = gp.theta + 0.3 * rng.normal(size=len(gp.theta))
    steps = 1e-5 * np.eye(len(theta))
    slope = [(gp._loss(theta + h, seen)[0] - gp._loss(theta - h, seen)[0]) / 2e-5 for h in steps]
    assert gp._loss(theta, seen)[1] == pytest.approx(slope, rel=1e-4, abs=1e-5)
