"""Settings of the search commands, and docs/settings.md.

python -m search.settings > docs/settings.md
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline import settings
from pipeline.registry import NETWORKS
from pipeline.settings import (
    DATA,
    LATEST,
    MAX_SEED,
    MAX_TRAIN_FACES,
    Setting,
    Settings,
    is_reference,
    require,
)
from search.methods import PRUNERS, SAMPLERS, SPACES

GRID_ROWS = 13
"""Configurations of the published report."""
WIDTH = Annotated[
    float,
    Setting(
        "Factor on the network's channels; 1 is the size in docs/training.md.", low=0.05, high=8
    ),
]
WORKERS = Annotated[
    int, Setting("Trainings at a time; they share the cores evenly.", low=1, high=256)
]


@dataclass(frozen=True)
class SearchSettings(Settings):
    """Search for better settings: a study of many trainings, each a child run of the study's run.

    The same command continues a study. Its dataset, network, width, epochs, max_train_faces,
    objective, cost and seed can't change, so that its trials are comparable; for others, give
    another name as `study`.
    """

    study: Annotated[
        str,
        Setting(
            "Name of the study. One that exists is continued; another dataset needs another name."
        ),
    ] = "emotion"
    trials: Annotated[
        int,
        Setting(
            "Trials of the whole study, including those of earlier commands and other workers.",
            low=1,
        ),
    ] = 20
    timeout: Annotated[
        float,
        Setting(
            "Seconds for the whole command, including the trainings and the evaluation at the end; "
            "0 is no limit.",
            low=0,
        ),
    ] = 0.0
    workers: WORKERS = 2
    gpus: Annotated[
        str,
        Setting(
            "GPUs of which each trial gets one: auto (all visible ones), or their indexes with "
            "commas between. Trials share them if there are more workers than GPUs. With ray: "
            "the number of GPUs a trial, such as 1 or 0.5."
        ),
    ] = "auto"
    ray: Annotated[
        str | None,
        Setting(
            "Ray cluster on whose nodes the trials run: HOST:PORT, or auto (the one that this "
            "machine is in, else a new one on it)."
        ),
    ] = None
    storage: Annotated[
        str,
        Setting(
            "Database of the study, as an SQLAlchemy address. Workers on other machines give "
            "the same (docs/several-machines.md)."
        ),
    ] = "sqlite:///optuna.db"
    checkpoints: Annotated[
        str,
        Setting(
            "Folder of the checkpoints of running trials. If the machines of a study share it, a "
            "trial of a lost machine goes on elsewhere from its last epoch."
        ),
    ] = "checkpoints"
    data: Annotated[
        str,
        Setting(
            "A dataset folder, an ingest run's id, or latest: the study's own, else the newest "
            "ingest run's."
        ),
    ] = LATEST
    network: Annotated[str, Setting("Network to train.", known=NETWORKS, open=True)] = "compact"
    width: WIDTH = 0.25
    epochs: Annotated[
        int,
        Setting(
            "Most epochs of a trial. Those of the report's configurations, up to 75, are scaled to "
            "it.",
            low=1,
        ),
    ] = 20
    max_train_faces: MAX_TRAIN_FACES = 0
    space: Annotated[
        str,
        Setting(
            "Search space: narrow (batch size, learning rate, optimizer and its momentum), wide "
            "(every setting that has a search range), a .yaml file of the same form "
            "(search/spaces/), or package.module:function."
        ),
    ] = "narrow"
    vary: Annotated[
        str,
        Setting(
            "Settings to vary beside those of `space`, or in another range: NAME=LOW..HIGH, "
            "NAME=LOW..HIGH log, NAME=A,B,C, or NAME for its own range; several with semicolons.",
            repeat=True,
        ),
    ] = ""
    fix: Annotated[
        str,
        Setting(
            "Settings to keep at a value: NAME=VALUE; several with blanks or semicolons.",
            repeat=True,
        ),
    ] = ""
    start: Annotated[
        str | None,
        Setting(
            "Configuration to start from instead of the network's recipe: a train run's id, or "
            "NAME=VALUE with blanks between."
        ),
    ] = None
    warm_start: Annotated[
        str | None,
        Setting(
            "An earlier study of the same database, network and objective, on any dataset; its "
            "trials are prior data of the sampler."
        ),
    ] = None
    grid: Annotated[
        Literal["best", "all", "none"],
        Setting(
            "Configurations of the published report that are tried after the recipe: best (its "
            "baseline and its best one), all 13, or none."
        ),
    ] = "best"
    sampler: Annotated[
        str,
        Setting(
            "Sampler, which proposes configurations: curves (a Gaussian process that starts from "
            "the recipe and learns from whole learning curves), tpe, cmaes, or random.",
            known=SAMPLERS,
            open=True,
        ),
    ] = "curves"
    pruner: Annotated[
        str,
        Setting(
            "Pruner, which ends poor trials early: halving (successive halving), median, or none.",
            known=PRUNERS,
            open=True,
        ),
    ] = "halving"
    objective: Annotated[
        Literal["accuracy", "macro_f1", "balanced_accuracy", "loss"],
        Setting("Validation metric to optimise; a trial has the value of its best epoch."),
    ] = "accuracy"
    cost: Annotated[
        Literal["none", "multiply_adds", "parameters"],
        Setting(
            "Second objective, to be minimised: the search is for the Pareto front of `objective` "
            "and this cost."
        ),
    ] = "none"
    max_parameters: Annotated[
        int,
        Setting("Largest number of parameters of a network that is tried; 0 is no limit.", low=0),
    ] = 0
    max_multiply_adds: Annotated[
        int,
        Setting(
            "Largest number of multiply-adds per image of a network that is tried; 0 is no limit.",
            low=0,
            high=10**15,
        ),
    ] = 0
    stop_after: Annotated[
        int,
        Setting(
            "Trials in succession that do not improve the best value after which no further one "
            "begins; 0 is no limit.",
            low=0,
        ),
    ] = 0
    target: Annotated[
        float | None,
        Setting("Value of `objective` at which no further trial begins, such as 0.65."),
    ] = None
    seed: Annotated[
        int,
        Setting("Seed of the proposals, and of every trial's training.", low=0, high=MAX_SEED),
    ] = 0
    confirm: Annotated[
        int,
        Setting(
            "New seeds on which the best configurations are trained again at the end: six on the "
            "first, the best three of them on the second, the best two on the others.",
            low=1,
            high=100,
        ),
    ] = 3

    @property
    def maximize(self) -> bool:
        """Whether higher values of `objective` are better."""
        return self.objective != "loss"

    def check(self) -> None:
        require(self.study.strip() != "", "study", self.study, "a name")
        address = "an address such as sqlite:///optuna.db or postgresql+psycopg://user@host/name"
        require("://" in self.storage, "storage", self.storage, address)
        spaces = f"{', '.join(SPACES)}, a .yaml file or package.module:function"
        is_space = self.space in SPACES or self.space.endswith((".yaml", ".yml"))
        require(is_space or is_reference(self.space), "space", self.space, spaces)
        last = MAX_SEED - self.confirm
        expected = f"at most {last}, since {self.confirm} fresh seeds follow it"
        require(self.seed <= last, "seed", self.seed, expected)
        if self.warm_start is not None:
            other = "another study than the one that runs"
            require(self.warm_start != self.study, "warm_start", self.warm_start, other)
            require(self.cost == "none", "warm_start", self.warm_start, "a study with cost=none")


@dataclass(frozen=True)
class GridSettings(Settings):
    """Train and evaluate the published report's 13 configurations, beside its accuracies."""

    data: DATA = LATEST
    width: WIDTH = 1.0
    epochs_scale: Annotated[
        float,
        Setting(
            "Factor on the report's epochs, for a quick try; at least one epoch is trained.",
            above=0,
        ),
    ] = 1.0
    max_train_faces: MAX_TRAIN_FACES = 0
    rows: Annotated[
        str,
        Setting(
            f"Rows to train: numbers from 1 (the baseline) to {GRID_ROWS}, with commas between, "
            "or all. The others show what is on record."
        ),
    ] = "all"
    workers: WORKERS = 1
    seed: Annotated[int, Setting("Seed of every training.", low=0, high=MAX_SEED)] = 0

    def check(self) -> None:
        known = {*self._given} <= {str(row) for row in range(1, GRID_ROWS + 1)}
        expected = f"all, or numbers from 1 to {GRID_ROWS} with commas between"
        require(self.rows == "all" or known, "rows", self.rows, expected)

    def trains(self, row: int) -> bool:
        """Whether row `row`, from 1, is to be trained."""
        return self.rows == "all" or str(row) in self._given

    @property
    def _given(self) -> list[str]:
        return [row.strip() for row in self.rows.split(",")]


@dataclass(frozen=True)
class CompareSettings(Settings):
    """Test which of several networks is better on the same test images (paired tests)."""

    runs: Annotated[
        str,
        Setting(
            "Ids of two or more evaluated train runs, groups of seeds, or evaluate runs, with "
            "commas between; must be given."
        ),
    ] = ""

    def check(self) -> None:
        expected = "two or more different run ids, with commas between"
        require(
            len(self.ids) >= 2 and len({*self.ids}) == len(self.ids), "runs", self.runs, expected
        )

    @property
    def ids(self) -> list[str]:
        return [run.strip() for run in self.runs.split(",") if run.strip()]


INTRODUCTION = """# Settings

Generated from the code by `make docs`. On a command line a setting is given as `--name value`, and
with `mlflow run` as `-P name=value`. Defaults that a network changes are in its recipe
([training](training.md#recipes)). *Searched* are the values that a [search](search.md) tries.
In names of settings a face is a 48x48 image of a dataset.
"""
ALL = (
    settings.IngestSettings,
    settings.TrainSettings,
    settings.MainSettings,
    settings.EvaluateSettings,
    settings.EnsembleSettings,
    settings.AuditSettings,
    settings.ExportSettings,
    settings.PredictSettings,
    settings.PageSettings,
    SearchSettings,
    GridSettings,
    CompareSettings,
    settings.ReportSettings,
)

if __name__ == "__main__":
    print(INTRODUCTION, settings.markdown(*ALL), sep="\n", end="")
