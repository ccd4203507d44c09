"""Training and evaluation of the report's grid, and comparison with the report's accuracies."""

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from mlflow import MlflowClient

from pipeline.data import dataset
from pipeline.percent import interval, percent
from pipeline.reports import notes
from pipeline.reports.metrics import accuracy_interval
from pipeline.runs import addresses, queries, tracking
from pipeline.runs.metric_names import TRAINING_SECONDS
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings, TrainSettings
from pipeline.steps.data import dataset_address
from search.grids import plots
from search.grids.report_grid import REPORT, TEST_FACES, Setting, values
from search.jobs import EVALUATE_CHILD, TRAIN_CHILD, job
from search.jobs.job import threads_each
from search.settings import GridSettings

MEASURED = (
    "measured", "measured_low", "measured_high", "validation", "minutes", "train_run",
    "evaluate_run",
)  # fmt: skip
"""Columns of the project's own results."""


def grid(settings: GridSettings) -> str:
    """Train and evaluate the rows that are not recorded yet; record the table in a run, whose id
    is returned."""
    name = notes.joined("grid of the report", *notes.words(_changes(settings)))
    with tracking.record("grid", settings, name=name) as run:
        run.describe(notes.settings_note(settings))
        address = dataset_address(settings.data, run)
        faces = dataset.load_without_test(addresses.dataset_folder(address))
        dataset.require_test(faces, address)
        run.use_dataset(faces, address, context="train")
        work = partial(_measure, run.id, faces.digest)
        trainings = [training_settings(settings, row, address) for row in REPORT]
        rows = [(one, settings.trains(number)) for number, one in enumerate(trainings, start=1)]
        evaluated = job.run_parallel(settings.workers, work, rows)
        table = _record(REPORT, trainings, evaluated, run, _legend(settings))
        run.describe(_note(settings, table))
        print(_text(table, _legend(settings)))
    print(f"grid run {run.id}")
    return run.id


def training_settings(settings: GridSettings, row: Setting, data: str) -> TrainSettings:
    """Settings of the training for a row of the report's grid."""
    return TrainSettings(
        data=data,
        width=settings.width,
        max_train_faces=settings.max_train_faces,
        seed=settings.seed,
        threads=threads_each(settings.workers),
        **values(row, settings.epochs_scale),
    )


def _measure(
    parent_id: str, digest: str, row: tuple[TrainSettings, bool], stop: threading.Event
) -> str | None:
    """Id of the evaluate run of a row on this dataset, None if there is none.

    A row is its training's settings, and whether to train and evaluate what is not recorded. If
    the training fails the other rows still get their table.
    """
    settings, is_chosen = row
    name = f"{settings.optimizer} lr={settings.lr:g} batch_size={settings.batch_size}"

    if trained := queries.finished_run("train", settings, digest):
        run_id = trained.info.run_id
    elif not is_chosen:
        return None
    else:
        outcome = job.run(TRAIN_CHILD, settings, parent_id, digest, stop=stop)
        if outcome.kind == "failed":
            print(f"{name} failed: {outcome.text}")
            return None
        run_id = job.value_of(outcome, name)
    if existing := queries.evaluation_of(run_id, dataset_digest=digest):
        return existing
    if not is_chosen:
        return None
    test = EvaluateSettings(run=run_id, data=settings.data)
    outcome = job.run(EVALUATE_CHILD, test, parent_id, stop=stop)
    return job.value_of(outcome, name)


def _record(
    rows: Sequence[Setting],
    trainings: Sequence[TrainSettings],
    evaluated: Sequence[str | None],
    run: Run,
    legend: str,
) -> pd.DataFrame:
    """Log report_vs_measured.csv and .png; returns the table. `legend` is `_legend`."""
    table = pd.DataFrame([_row(*row) for row in zip(rows, trainings, evaluated, strict=True)])
    run.log_text(table.to_csv(index=False), "report_vs_measured.csv")
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "report_vs_measured.png"
        run.log_file(plots.report_vs_measured(table, legend, file))
    return table


def _text(table: pd.DataFrame, legend: str) -> str:
    """The table for a terminal."""
    shown = table[["setting", "report", "stale", "measured", "measured_low", "measured_high"]]
    return f"{legend}\n" + shown.to_string(index=False, float_format="{:.3f}".format)


def _changes(settings: GridSettings) -> dict[str, object]:
    """Settings that make the grid another one, for its run's name."""
    return {k: v for k, v in notes.differing(settings).items() if k not in ("data", "workers")}


def _note(settings: GridSettings, table: pd.DataFrame) -> str:
    """Description of a finished grid: the best row, how many agree, and the command."""
    measured = table.dropna(subset=["measured"])
    best = ""
    if len(measured):
        row = measured.loc[measured["measured"].idxmax()]
        best = (
            f"**Best: {row['setting']}, test accuracy {percent(row['measured'])}** "
            f"({interval(row['measured_low'], row['measured_high'])}); "
            f"the report has {percent(row['report'])} for it."
        )
    return notes.paragraphs(
        best,
        f"{len(measured)} of {len(table)} configurations were trained; all are beside the report's "
        "in `report_vs_measured.png`.",
        notes.settings_note(settings),
    )


def _legend(settings: GridSettings) -> str:
    """Legend of the own results: the settings that make these trainings shorter or smaller."""
    parts = ["measured here"]
    if settings.epochs_scale != 1:
        parts.append(f"epochs × {settings.epochs_scale:g}")
    if settings.max_train_faces:
        parts.append(f"{settings.max_train_faces:,} faces")
    if settings.width != 1:
        parts.append(f"width {settings.width:g}")
    return ", ".join(parts)


def _row(setting: Setting, training: TrainSettings, evaluated: str | None) -> dict[str, object]:
    """A row of the table; the own results are nan if there are none.

    The report's interval is computed from its accuracy on its 3,589 test faces.
    """
    low, high = accuracy_interval(round(setting.accuracy * TEST_FACES), TEST_FACES)
    return {
        "setting": setting.name,
        "changed": setting.changed,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "lr": training.lr,
        "optimizer": training.optimizer,
        "report": setting.accuracy,
        "report_low": low,
        "report_high": high,
        "stale": setting.stale,
        **(_measurements(evaluated) if evaluated else dict.fromkeys(MEASURED, float("nan"))),
    }


def _measurements(evaluated: str) -> dict[str, object]:
    client = MlflowClient()
    test = client.get_run(evaluated)
    train = client.get_run(test.data.tags["trained_by"])
    tested = queries.metrics_of(test)
    accuracy = [tested[f"test/accuracy{end}"] for end in ("", "_low", "_high")]
    trained = queries.metrics_of(train)
    minutes = trained.get(TRAINING_SECONDS, float("nan")) / 60
    row = (*accuracy, trained["val/best_accuracy"], minutes, train.info.run_id, evaluated)
    return dict(zip(MEASURED, row, strict=True))
