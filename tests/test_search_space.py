"""What a search proposes, prunes and chooses: bounds, seeds, rungs, finalists."""

import shlex
from dataclasses import replace

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
from pipeline.settings import TrainSettings, recipe
from search.grids import report_grid
from search.methods import SPACES, samplers, space
from search.settings import SearchSettings
from search.studies import finalize, summary
from search.studies.study import first_points
from search.studies.trial import comparable_epoch, trial_settings


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SPACES)
def test_the_reports_grid_lies_within_every_space(name: str, network: str) -> None:
    settings = SearchSettings(space=name, network=network)
    bounds = space.make_space(settings)
    base = trial_settings(settings, "faces", {})
    for point in report_grid.points("all", settings.epochs):
        assert space.is_inside(space.complete(point, bounds, base), bounds)
    assert len(report_grid.points("all", settings.epochs)) == 13


@pytest.mark.parametrize("network", ["compact", "strong"])
@pytest.mark.parametrize("name", SPACES)
def test_a_study_tries_the_networks_recipe_first(name: str, network: str) -> None:
    settings = SearchSettings(space=name, network=network, grid="none")
    [point] = first_points(settings)
    assert space.is_inside(point, space.make_space(settings))
    own = recipe(TrainSettings, network)
    tried = trial_settings(settings, own.data, point)
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
    assert space.is_inside(point, bounds)
    assert not space.is_inside(point | change, bounds)


@pytest.mark.parametrize(
    ("name", "network"), [("narrow", "report"), ("wide", "report"), ("wide", "compact")]
)
def test_every_proposal_can_be_trained_and_momentum_comes_with_its_optimizer(
    name: str, network: str
) -> None:
    study = optuna.create_study(direction="maximize")
    settings = SearchSettings(space=name, epochs=15, network=network)
    bounds = space.make_space(settings)
    for number in range(25):
        study.sampler = samplers.make_sampler("tpe", samplers.sampler_seed(0, number), {})
        trial = study.ask()
        point = space.suggest(trial, bounds)
        trial_settings(settings, "faces", point)
        assert ("momentum" in point) == (point["optimizer"] == "momentum")
        study.tell(trial, point["lr"])


def test_a_continued_study_never_draws_the_same_proposal_again() -> None:
    seeds = [samplers.sampler_seed(base, trials) for base in range(3) for trials in range(100)]
    assert len(set(seeds)) == len(seeds)

    study = optuna.create_study(direction="maximize")
    bounds = space.make_space(SearchSettings(epochs=15))
    for _ in range(6):
        seed = samplers.sampler_seed(0, len(study.trials))
        study.sampler = samplers.make_sampler("tpe", seed, {})
        trial = study.ask()
        space.suggest(trial, bounds)
        study.tell(trial, 0.5)
    assert len({trial.params["lr"] for trial in study.trials}) == 6


@pytest.mark.parametrize("most", [1, 2, 5, 15, 75])
def test_no_rung_stands_beyond_the_longest_training(most: int) -> None:
    assert all(1 <= epoch <= most for epoch in samplers.rungs(most))
    assert all(1 <= epoch <= most for epoch in samplers.rungs(most, small_epochs=most))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("network", NETWORKS)
def test_no_trial_is_compared_before_all_have_seen_whole_faces(name: str, network: str) -> None:
    """A trial that came late to a rung would stand there with the accuracy of a later epoch."""
    settings = SearchSettings(space=name, network=network)
    small = space.most_small_epochs(settings)
    first, *_ = samplers.rungs(settings.epochs, small)
    study = optuna.create_study()
    for _ in range(20):
        point = space.suggest(study.ask(), space.make_space(settings))
        assert trial_settings(settings, "none", point).small_epochs <= small < first


def test_pruning_spares_the_best_and_ends_the_hopeless_at_a_rung() -> None:
    pruner = samplers.make_pruner("halving", 15)
    study = optuna.create_study(direction="maximize", pruner=pruner)

    def train(level: float) -> int:
        """Epochs that a training lasts whose accuracy stays at `level`."""
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


def test_samplers_and_pruners_are_those_of_their_names() -> None:
    assert isinstance(samplers.make_sampler("random", 0, {}), optuna.samplers.RandomSampler)
    assert isinstance(samplers.make_sampler("tpe", 0, {}), optuna.samplers.TPESampler)
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
    assert comparable_epoch(short, 4, most_epochs=20) == 4
    assert comparable_epoch(replace(short, schedule="cosine"), 4, most_epochs=20) == 10
    assert comparable_epoch(replace(short, schedule="one_cycle"), 8, most_epochs=20) == 20


def test_the_finalists_are_finished_distinct_and_best_first() -> None:
    study = optuna.create_study(direction="maximize")
    bounds = space.make_space(SearchSettings(epochs=15))
    point = {"epochs": 10, "batch_size": 16, "lr": 0.001, "optimizer": "adam"}
    for value, lr in ((0.5, 0.001), (0.7, 0.002), (0.7, 0.002), (0.6, 0.003), (0.1, 0.004)):
        study.enqueue_trial(point | {"lr": lr})
        trial = study.ask()
        space.suggest(trial, bounds)
        study.tell(trial, value)
    assert [trial.number for trial in finalize.finalists(study)] == [1, 3, 0]


def test_the_summary_gives_a_command_that_trains_just_these_settings() -> None:
    text = summary.train_command(TrainSettings(lr=0.00021234567, batch_size=16, data="abc"))
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
    words = shlex.split(summary.train_command(settings))
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
