"""Tests of search spaces, samplers, pruners, and of the choice of the winner."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pipeline import cli
from pipeline.data import TRAIN, VALIDATION
from pipeline.data.dataset import Dataset
from pipeline.data.splitting import subsample
from pipeline.errors import InputError
from pipeline.registry import NETWORKS
from pipeline.reports.notes import command_line
from pipeline.settings import TrainSettings, recipe
from search.grids import report_grid
from search.methods import SPACES, samplers, space
from search.settings import SearchSettings
from search.studies import finalize, proposals, storage, summary
from search.studies.plan import Plan, starting_values
from search.studies.results import Finalist
from search.studies.study import open_study, require_known_choices
from search.studies.trial import comparable_epoch

REST: Any = ({}, space.make_space(SearchSettings()), 20)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SPACES)
def test_the_reports_grid_lies_within_every_space(name: str, network: str) -> None:
    settings = SearchSettings(space=name, network=network, grid="all")
    plan = Plan(settings, "faces", {})
    whole = [plan.space.complete(p, plan.base) for p in report_grid.points("all", 20)]
    assert all(plan.space.contains(point) for point in whole)
    assert len(whole) == 13


@pytest.mark.parametrize("network", ["compact", "strong"])
@pytest.mark.parametrize("name", SPACES)
def test_a_study_tries_the_networks_recipe_first(name: str, network: str) -> None:
    settings = SearchSettings(space=name, network=network, grid="none")
    plan = Plan(settings, "latest", {})
    [point] = plan.first_points()
    own = recipe(TrainSettings, network)
    tried = plan.training(point)
    of_the_study = ("epochs", "width", "threads", "keep_epoch")
    assert replace(tried, **{name: getattr(own, name) for name in of_the_study}) == own


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.1}, {"lr": 5.0}, {"optimizer": "adamm"}, {"optimizer": "momentum"},
        {"momentum": 0.9}, {"batch_size": 8.5},
    ],
)  # fmt: skip
def test_a_point_that_optuna_would_bend_is_outside(change: dict[str, object]) -> None:
    bounds = space.make_space(SearchSettings(epochs=15))
    point = {"epochs": 10, "batch_size": 16, "lr": 0.001, "optimizer": "adam"}
    assert bounds.contains(point)
    assert not bounds.contains(point | change)


@pytest.mark.parametrize(
    ("name", "network"), [("narrow", "report"), ("wide", "report"), ("wide", "compact")]
)
def test_every_proposal_can_be_trained_and_momentum_comes_with_its_optimizer(
    name: str, network: str
) -> None:
    study = optuna.create_study(direction="maximize")
    settings = SearchSettings(space=name, epochs=15, network=network)
    plan = Plan(settings, "faces", {})
    for number in range(25):
        study.sampler = samplers.make_sampler("tpe", samplers.sampler_seed(0, number), *REST)
        trial = study.ask()
        point = plan.space.suggest(trial)
        plan.training(point)
        assert ("momentum" in point) == (point["optimizer"] == "momentum")
        study.tell(trial, point["lr"])


def test_a_continued_study_never_draws_the_same_proposal_again() -> None:
    seeds = [samplers.sampler_seed(base, trials) for base in range(3) for trials in range(100)]
    assert len(set(seeds)) == len(seeds)

    study = optuna.create_study(direction="maximize")
    bounds = space.make_space(SearchSettings(epochs=15))
    for _ in range(6):
        seed = samplers.sampler_seed(0, len(study.trials))
        study.sampler = samplers.make_sampler("tpe", seed, *REST)
        trial = study.ask()
        bounds.suggest(trial)
        study.tell(trial, 0.5)
    assert len({trial.params["lr"] for trial in study.trials}) == 6


@pytest.mark.parametrize("most", [1, 2, 5, 15, 75])
def test_no_rung_stands_beyond_the_longest_training(most: int) -> None:
    assert all(1 <= epoch <= most for epoch in samplers.rungs(most))
    assert all(1 <= epoch <= most for epoch in samplers.rungs(most, small_epochs=most))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("network", NETWORKS)
def test_no_trial_is_compared_before_all_have_seen_whole_faces(name: str, network: str) -> None:
    """Otherwise a trial would be compared at a rung by the accuracy of a later epoch."""
    settings = SearchSettings(space=name, network=network)
    plan = Plan(settings, "faces", {})
    small = plan.max_small_epochs
    first, *_ = samplers.rungs(settings.epochs, small)
    whole = Plan(replace(settings, fix="image_size=48"), "faces", {})
    assert whole.max_small_epochs == 0
    study = optuna.create_study()
    for _ in range(20):
        point = plan.space.suggest(study.ask())
        assert plan.training(point).small_epochs <= small < first


def test_pruning_spares_the_best_and_ends_the_hopeless_at_a_rung() -> None:
    pruner = samplers.make_pruner("halving", 15)
    study = optuna.create_study(direction="maximize", pruner=pruner)

    def train(level: float) -> int:
        """Number of epochs until a trial with the constant accuracy `level` is pruned or ends."""
        trial = study.ask()
        for epoch in range(1, 16):
            trial.report(level, epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return epoch
        study.tell(trial, level)
        return 15

    assert train(0.5) == 15
    assert [train(level) for level in (0.3, 0.2, 0.1)] == [5, 5, 5]
    assert train(0.6) == 15
    trial = study.ask()
    for epoch, accuracy in enumerate((0.3, 0.7, 0.6, 0.2, 0.1), start=1):
        trial.report(accuracy, epoch)
    assert not trial.should_prune(), "its best epoch so far counts"


def test_pruning_by_a_loss_keeps_the_lowest_one_so_far() -> None:
    pruner = samplers.make_pruner("halving", 6)  # which compares after two epochs
    study = optuna.create_study(direction="minimize", pruner=pruner)
    for losses, pruned in (((1.5, 1.0), False), ((1.1, 1.2), True), ((9.0, 0.5), False)):
        trial = study.ask()
        for epoch, loss in enumerate(losses, start=1):
            trial.report(loss, epoch)
        assert trial.should_prune() == pruned, losses
        study.tell(trial, min(losses))


def test_samplers_and_pruners_are_those_of_their_names() -> None:
    assert isinstance(samplers.make_sampler("random", 0, *REST), optuna.samplers.RandomSampler)
    assert isinstance(samplers.make_sampler("tpe", 0, *REST), optuna.samplers.TPESampler)
    assert isinstance(samplers.make_pruner("none", 15), optuna.pruners.NopPruner)
    median = optuna.create_study(pruner=samplers.make_pruner("median", 15), direction="maximize")
    for level in (*[0.5] * 5, 0.1):
        trial = median.ask()
        for epoch in range(1, 7):
            trial.report(level, epoch)
        assert trial.should_prune() == (level < 0.5)
        median.tell(trial, level)


def test_a_training_with_a_schedule_is_compared_at_the_same_share_of_its_epochs() -> None:
    short = TrainSettings(epochs=8)
    assert comparable_epoch(short, 4, max_epochs=20) == 4
    assert comparable_epoch(replace(short, schedule="cosine"), 4, max_epochs=20) == 10
    assert comparable_epoch(replace(short, schedule="one_cycle"), 8, max_epochs=20) == 20


def test_the_finalists_are_finished_distinct_and_best_first() -> None:
    study = optuna.create_study(direction="maximize")
    bounds = space.make_space(SearchSettings(epochs=15))
    point = {"epochs": 10, "batch_size": 16, "lr": 0.001, "optimizer": "adam"}
    for value, lr in ((0.5, 0.001), (0.7, 0.002), (0.7, 0.002), (0.6, 0.003), (0.1, 0.004)):
        study.enqueue_trial(point | {"lr": lr})
        trial = study.ask()
        bounds.suggest(trial)
        study.tell(trial, value)
    assert [trial.number for trial in finalize.finalists(study, 3)] == [1, 3, 0]


@pytest.mark.parametrize(("direction", "values", "said"), [
    ("minimize", [[1.4], [1.5]], "Single seeds do not tell"),
    ("minimize", [[1.4, 1.41], [1.5]], "are significantly worse"),
    ("maximize", [[0.9], [0.2]], "are significantly worse"),
    ("maximize", [[0.9], [0.89]], "does not differ significantly from trial 1"),
])  # fmt: skip
def test_a_winner_is_called_better_only_where_seeds_or_faces_tell(
    direction: Literal["minimize", "maximize"], values: list[list[float]], said: str
) -> None:
    study = optuna.create_study(direction=direction)
    study.set_user_attr("validation_faces", 400)
    for _ in values:
        study.tell(study.ask(), 0.5)
    finalists = [
        Finalist(one, TrainSettings(), confirmed)
        for one, confirmed in zip(study.trials, values, strict=True)
    ]
    assert said in summary.uncertainty(study, finalists)


def test_the_summary_gives_a_command_that_trains_just_these_settings() -> None:
    text = command_line(TrainSettings(lr=0.00021234567, batch_size=16, data="abc"))
    assert text == "mlflow run . -e train -P lr=0.00021234567 -P batch_size=16 -P data=abc"


@pytest.mark.parametrize("network", NETWORKS)
def test_the_command_of_the_summary_is_read_as_the_settings_that_won(network: str) -> None:
    settings = replace(
        recipe(TrainSettings, network),
        lr=1 / 3000,
        optimizer="sgd",
        keep_epoch="best",
        flip=False,
        data="my faces",
    )
    words = shlex.split(command_line(settings))
    assert words[:5] == ["mlflow", "run", ".", "-e", "train"]
    assert set(words[5::2]) == {"-P"}
    arguments = [part for word in words[6::2] for part in f"--{word}".split("=", 1)]
    assert cli.parse(TrainSettings, arguments) == settings


def test_fewer_faces_are_the_same_for_every_trial_and_keep_the_validation_split(
    dataset: Dataset,
) -> None:
    few, again, other = (subsample(dataset, 40, seed) for seed in (0, 0, 1))
    assert len(few.part(TRAIN)[1]) == 40
    assert (few.part(TRAIN)[0] == again.part(TRAIN)[0]).all()
    assert not (few.part(TRAIN)[0] == other.part(TRAIN)[0]).all()
    assert (few.part(VALIDATION)[0] == dataset.part(VALIDATION)[0]).all()
    assert set(few.part(TRAIN)[1]) == set(dataset.part(TRAIN)[1])
    with pytest.raises(InputError, match="max_train_faces=3: expected 0"):
        subsample(dataset, 3, 0)
    kept = (dataset.labels != 1) | (np.cumsum(dataset.labels == 1) == 1)
    single = Dataset(dataset.images[kept], dataset.labels[kept], dataset.split[kept], {})
    single.split[single.labels == 1] = TRAIN
    with pytest.raises(InputError, match="disgust has a single training face"):
        subsample(single, 40, 0)


SPACE_FILE = """
parameters:
  lr: {min: 1e-4, max: 1e-2, distribution: log_uniform_values}
  batch_size: {values: [32, 64]}
  optimizer: {values: [adam, momentum]}
  momentum: {min: 0.8, max: 0.95, when: {optimizer: momentum}}
  label_smoothing: {min: 0, max: 0.2, when: {loss: cross_entropy}}
  dropout: {value: 0.3}
  rotate:
"""


def test_a_space_from_a_file_gives_trainings_within_its_bounds(store: Path) -> None:
    (store / "mine.yaml").write_text(SPACE_FILE)
    plan = Plan(SearchSettings(space="mine.yaml", grid="none", fix="tta=flip"), "faces", {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        point = plan.space.suggest(study.ask())
        training = plan.training(point)
        assert (training.dropout, training.tta) == (0.3, "flip")
        assert 1e-4 <= training.lr <= 1e-2
        assert training.batch_size in (32, 64)
        assert ("momentum" in point) == (point["optimizer"] == "momentum")
        seen.add(point["optimizer"])
    assert seen == {"adam", "momentum"}
    # The recipe's optimizer is outside: the nearest setting inside is tried first.
    [first] = plan.first_points()
    assert (first["optimizer"], first["lr"], first["batch_size"]) == ("adam", 0.004, 32)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"vary": "lrr=1e-4..1e-2"}, "lrr is no setting of a training; did you mean lr"),
        ({"vary": "lr=0.1..0.01"}, "lr: min 0.1 is above max 0.01"),
        ({"vary": "lr=0..0.1 log"}, "lr=0: expected a finite number above 0"),
        ({"vary": "optimizer=adam,adamm"}, "optimizer=adamm: expected one of adam"),
        ({"vary": "batch_size=8.5,16"}, "batch_size=8.5: invalid literal"),
        ({"vary": "kernel=3,4"}, "kernel=4: expected odd"),
        ({"vary": "tta=none,ten_crop", "network": "report"}, "tta=ten_crop: expected none, flip"),
        ({"vary": "seed=1,2"}, "seed is decided by the study"),
        ({"vary": "tta"}, "tta has no range of its own"),
        ({"fix": "dropout=2"}, r"dropout=2: expected in \[0, 1\)"),
        ({"fix": "dropout"}, "fix=dropout: expected name=value"),
        ({"start": "lr=5"}, "start=lr=5: lr=5.0 is outside the search space"),
        ({"start": "loss='x"}, "start=loss='x: No closing quotation"),
        ({"vary": "epochs=10..50"}, "epochs: 50 is more than the study's epochs=20"),
        ({"space": "gone.yaml"}, "space=gone.yaml: can't be read"),
        ({"space": "bad.yaml"}, "space=bad.yaml: lr: unknown mim; expected one of"),
        ({"space": "zero.yaml"}, "dropout: expected values, value, or min and max, not 0"),
        ({"space": "step.yaml"}, "lr: q: `step > 0` must hold"),
        ({"space": "when.yaml"}, "momentum: when: optimizer is never nadam in this space"),
        ({"space": "wild"}, "space=wild: expected narrow, wide, a .yaml file"),
        ({"vary": "l2"}, "vary=l2: it has no range of its own with network=compact"),
        ({"objective": "loss", "vary": "l2=0..0.1"}, "objective=loss: the space varies l2, which"),
        ({"vary": "targets=votes,hard"}, "objective=accuracy: the space varies targets, which"),
    ],
)
def test_a_mistake_in_a_space_is_one_line_before_anything_trains(
    store: Path, option: dict[str, str], said: str
) -> None:
    (store / "bad.yaml").write_text("parameters:\n  lr: {mim: 0.1, max: 1}\n")
    (store / "zero.yaml").write_text("parameters:\n  dropout: 0\n")
    (store / "step.yaml").write_text("parameters:\n  lr: {min: 0.1, max: 1, q: 0}\n")
    conditional = "  optimizer:\n  momentum: {min: 0.8, max: 0.9, when: {optimizer: nadam}}\n"
    (store / "when.yaml").write_text(f"parameters:\n{conditional}")

    def use() -> None:
        settings = SearchSettings(**option)  # type: ignore[arg-type]
        Plan(settings, "faces", starting_values(settings)).first_points()

    with pytest.raises(InputError, match=said) as error:
        use()
    assert "\n" not in str(error.value)


def test_a_given_start_is_tried_first_and_holds_what_is_not_varied() -> None:
    start = "lr=0.002 batch_size=32 shift=1 epochs=9 width=0.5"
    settings = SearchSettings(start=start, grid="none")
    plan = Plan(settings, "faces", starting_values(settings))
    [point] = plan.first_points()
    assert (point["lr"], point["batch_size"], point["epochs"]) == (0.002, 32, 9)
    assert plan.training(point).width == 0.5
    training = plan.training({"lr": 0.003})
    assert (training.lr, training.batch_size, training.shift) == (0.003, 32, 1)


def test_options_that_are_given_twice_are_joined() -> None:
    arguments = ["--vary", "lr=1e-4..1e-2 log", "--vary", "dropout", "--fix", "zoom=0.1"]
    settings = cli.parse(SearchSettings, arguments)
    assert settings == cli.parse(
        SearchSettings, ["--vary", "lr=1e-4..1e-2 log; dropout", "--fix=zoom=0.1"]
    )
    assert {"lr", "dropout"} <= space.make_space(settings).bounds.keys()


@pytest.mark.parametrize(("target", "stop_after", "ended"), [
    (0.6, 0, True), (0.8, 0, False), (None, 2, True), (None, 3, False), (None, 0, False),
])  # fmt: skip
def test_a_study_ends_at_its_target_or_without_progress(
    target: float | None, stop_after: int, ended: bool
) -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.5, 0.7, 0.6, 0.65):
        study.tell(study.ask(), value)
    assert storage.ended_early(study.trials, target, stop_after, maximize=True) is ended


def test_a_space_may_be_narrowed_in_mid_study_but_gets_no_new_choices(store: Path) -> None:
    def open_with(vary: str) -> tuple[optuna.Study, Plan]:
        settings = SearchSettings(vary=vary, grid="none")
        study = open_study(settings, storage.open_storage(settings.storage))
        study.set_user_attr("settings", {})
        plan = Plan(settings, "faces", {})
        require_known_choices(study, plan)
        return study, plan

    study, plan = open_with("optimizer=adam,sgd,adamw; lr=1e-4..1e-1 log")
    for number in range(4):
        study.sampler = optuna.samplers.RandomSampler(seed=number)
        trial = study.ask()
        plan.space.suggest(trial)
        study.tell(trial, 0.5)
    study, plan = open_with("optimizer=adam,adamw; lr=1e-3..1e-2 log")
    for number in range(8):
        study.sampler = samplers.make_sampler("curves", number, {}, plan.space, 20)
        point = plan.space.suggest(study.ask())
        assert point["optimizer"] in ("adam", "adamw")
        assert 1e-3 <= point["lr"] <= 1e-2
    plan = replace(plan, settings=replace(plan.settings, sampler="random"))
    for _ in range(8):
        proposals.enqueue(study, plan, study.trials)
        assert plan.space.suggest(study.ask())["optimizer"] in ("adam", "adamw")
    with pytest.raises(InputError, match="optimizer: the study emotion was begun with"):
        open_with("optimizer=adam,lion")
    with pytest.raises(InputError, match="lr: the study emotion was begun with"):
        open_with("optimizer=adam,adamw; lr=1e-3..1e-2")
    fixed = Plan(SearchSettings(fix="optimizer=lion"), "faces", {})
    begun = study.trials[0].params
    assert fixed.training(begun).optimizer == begun["optimizer"], "as it was trained"
