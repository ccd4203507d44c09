"""What is on record for the report's exhibits: a dataset, trainings, evaluations, a study."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipeline.reports import notes
from pipeline.runs import queries
from pipeline.settings import TrainSettings
from search.grids.report_grid import REPORT, Setting, values

CHAMPION = ("emotion", "champion")


@dataclass(frozen=True)
class Training:
    """A recorded training and its evaluation on the test split, if there is one.

    `layers` has name, output shape and parameters of each layer, `totals` the lines below them.
    """

    run: str
    name: str
    layers: Sequence[Sequence[str]]
    totals: Sequence[str]
    curves: str | None
    validation: float | None
    test: "Test | None"


@dataclass(frozen=True)
class Test:
    """Figures of an evaluation on the test split; pictures are data addresses, or None.

    `by_class` is scikit-learn's classification report, `confusion` has a row of counts a class.
    """

    run: str
    accuracy: float
    low: float
    high: float
    by_class: dict[str, Any]
    confusion: Sequence[tuple[str, Sequence[int]]]
    reliability: str | None
    mistakes: str | None


@dataclass(frozen=True)
class Step:
    """A row of the report's grid, what is on record for it, and the command that adds it."""

    title: str
    setting: Setting
    training: Training | None
    command: str


@dataclass(frozen=True)
class Steps:
    """The rows of the report's grid; `shortened` says in which settings ours are smaller."""

    rows: Sequence[Step]
    shortened: str
    picture: str | None


def steps(digest: str) -> Steps:
    """The trainings of the newest grid on the dataset with this digest, else single ones."""
    query = f"tags.step = 'grid' and tags.dataset_digest = '{digest}'"
    grids = [run for run in queries.search(query) if "report_vs_measured.csv" in _files(run)]
    table = pd.DataFrame()
    if grids:
        text = mlflow.artifacts.load_text(f"runs:/{grids[0].info.run_id}/report_vs_measured.csv")
        table = pd.read_csv(io.StringIO(text))
    recorded = {
        (row["setting"]): (row["train_run"], row["evaluate_run"])
        for _, row in table.iterrows()
        if isinstance(row["train_run"], str)
    }
    # The names of the grid's rows are those of the report, whatever the share of its epochs.
    rows = [
        _step(title, setting, recorded.get(setting.name), digest)
        for title, setting in zip(titles(REPORT), REPORT, strict=True)
    ]
    picture = picture_of(grids[0].info.run_id, "report_vs_measured.png") if grids else None
    return Steps(rows, _shortened(grids[0]) if grids else "", picture)


def titles(settings: Sequence[Setting]) -> list[str]:
    """What each row changes, in the report's words; the first row is its baseline."""
    first = settings[0]
    found = [f"Baseline: {first.name}"]
    for before, now in pairwise(settings):
        found.append(
            {
                "optimizer": f"Optimizer {now.optimizer} instead of {first.optimizer}",
                "epochs": f"Increasing epochs from {first.epochs} to {now.epochs}",
                "batch": f"Decreasing the batch size from {before.batch_size} to {now.batch_size}",
                "lr": f"Increasing the learning rate from {first.lr:g} to {now.lr:g}",
            }[now.changed]
        )
    return found


def _step(title: str, setting: Setting, recorded: tuple[str, str] | None, digest: str) -> Step:
    settings = TrainSettings(**values(setting, 1.0))
    command = notes.command_line(settings)
    if recorded is None:
        found = queries.finished_run("train", settings, digest)
        recorded = (found.info.run_id, "") if found else None
    return Step(title, setting, training(recorded[0], digest) if recorded else None, command)


def _shortened(grid: Run) -> str:
    given = grid.data.params
    parts = []
    if float(given.get("epochs_scale", 1)) != 1:
        parts.append(f"{float(given['epochs_scale']):g} of the report's epochs")
    if int(given.get("max_train_faces", 0)):
        parts.append(f"{int(given['max_train_faces']):,} training images")
    if float(given.get("width", 1)) != 1:
        parts.append(f"{float(given['width']):g} of the report's channels")
    return " and ".join(parts)


def training(run_id: str, digest: str) -> Training:
    """The training with this run id, and its newest evaluation on the dataset."""
    run = queries.get(run_id, "train")
    figures = queries.metrics_of(run)
    layers, totals = layer_table(_text(run, "network.txt"))
    evaluated = queries.evaluation_of(run_id, dataset_digest=digest)
    return Training(
        run=run_id,
        name=run.info.run_name or run_id,
        layers=layers,
        totals=totals,
        curves=picture_of(run_id, "curves.png"),
        validation=figures.get("val/best_accuracy"),
        test=_test(evaluated) if evaluated else None,
    )


def _test(run_id: str) -> Test:
    figures = queries.figures(run_id)
    folder = f"runs:/{run_id}"
    confusion = pd.read_csv(
        io.StringIO(mlflow.artifacts.load_text(f"{folder}/confusion_matrix.csv")), index_col=0
    )
    return Test(
        run=run_id,
        accuracy=figures["test/accuracy"],
        low=figures["test/accuracy_low"],
        high=figures["test/accuracy_high"],
        by_class=json.loads(mlflow.artifacts.load_text(f"{folder}/classification_report.json")),
        confusion=[(str(name), [int(n) for n in row]) for name, row in confusion.iterrows()],
        reliability=picture_of(run_id, "reliability.png"),
        mistakes=picture_of(run_id, "mistakes.png"),
    )


def _text(run: Run, name: str) -> str:
    """A text among a run's artifacts; empty if it is not there."""
    is_there = name in _files(run)
    return mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{name}") if is_there else ""


def layer_table(text: str) -> tuple[list[list[str]], list[str]]:
    """Rows, of name, output shape and parameters, and last lines of Keras' summary."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            if cells[0]:
                rows.append(cells)
            elif rows:  # a name that goes on in a second line
                rows[-1] = [f"{a} {b}".strip() for a, b in zip(rows[-1], cells, strict=True)]
    return rows, [line.strip() for line in text.splitlines() if "params:" in line]


@dataclass(frozen=True)
class Study:
    """A search on the dataset: its summary (Markdown), its trials' table and its winner."""

    run: str
    name: str
    objective: str
    summary: str
    trials: pd.DataFrame
    winner: Training | None


def study(digest: str) -> Study | None:
    """The newest study on the dataset that has ended."""
    query = f"tags.step = 'study' and tags.dataset_digest = '{digest}'"
    for run in queries.search(query):
        if "summary.md" in _files(run):
            address, winner = f"runs:/{run.info.run_id}", run.data.tags.get("winner")
            trials = mlflow.artifacts.load_text(f"{address}/trials.csv")
            return Study(
                run=run.info.run_id,
                name=run.data.params.get("study", ""),
                objective=run.data.params.get("objective", "accuracy"),
                summary=mlflow.artifacts.load_text(f"{address}/summary.md"),
                trials=pd.read_csv(io.StringIO(trials)),
                winner=training(winner, digest) if winner else None,
            )
    return None


def champion() -> str | None:
    """Id of the run that trained the registered champion."""
    try:
        version = MlflowClient().get_model_version_by_alias(*CHAMPION)
    except MlflowException:
        return None
    return str(version.run_id) if version.run_id else None


def picture_of(run_id: str, name: str) -> str | None:
    """A picture among a run's artifacts, as a data address."""
    try:
        file = mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run_id}/{name}")
    except (MlflowException, OSError):
        return None
    return f"data:image/png;base64,{base64.b64encode(Path(file).read_bytes()).decode()}"


def _files(run: Run) -> set[str]:
    return {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
