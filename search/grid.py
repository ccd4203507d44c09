"""The report's 13 settings, trained and evaluated here, beside what the report says of them.

mlflow run . -e grid                                       all 13, at full length
python -m search.grid --epochs_scale 0.1 --faces 2000      a quick try
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.settings import EvaluateSettings, GridSettings, OptimizerName, TrainSettings
from search.process import threads_each

if TYPE_CHECKING:
    from pipeline.tracking import Run
    from search.space import Point

LONGEST = 75
"""Most epochs in the report."""


@dataclass(frozen=True)
class Setting:
    """A row of the report's grid.

    `accuracy` is what it claims, on its 3,589 test faces. Where `stale`, its table is another
    model's, copied to the digit: the claim is unproven.
    """

    changed: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: OptimizerName
    accuracy: float
    stale: bool = False

    @property
    def name(self) -> str:
        return (
            f"{self.optimizer}, {self.epochs} epochs, batch {self.batch_size}, "
            f"lr {self.lr:g}".replace("e-0", "e-")
        )


# The rows of batch 32, 16 and 8 say "60-75 epochs". 75 is taken: they come after the row that found
# 75 better than 50, each row changes one thing, and early stopping explains those that ended at 60.
REPORT = (
    Setting("baseline", 30, 64, 1e-4, "adam", 0.569),
    Setting("optimizer", 30, 64, 1e-4, "sgd", 0.335),
    Setting("epochs", 50, 64, 1e-4, "adam", 0.589),
    Setting("epochs", 75, 64, 1e-4, "adam", 0.607),
    Setting("batch", 75, 32, 1e-4, "adam", 0.608),
    Setting("batch", 75, 16, 1e-4, "adam", 0.611),
    Setting("batch", 75, 8, 1e-4, "adam", 0.617),
    Setting("lr", 60, 16, 2e-4, "adam", 0.617, stale=True),
    Setting("lr", 60, 16, 9e-4, "adam", 0.611, stale=True),
    Setting("lr", 60, 16, 1e-3, "adam", 0.608),
    Setting("lr", 60, 16, 2e-3, "adam", 0.608, stale=True),
    Setting("lr", 60, 16, 2.1e-3, "adam", 0.608, stale=True),
    Setting("lr", 60, 16, 2.5e-3, "adam", 0.608, stale=True),
)
TEST_FACES = 3589
"""Faces in the report's test split."""
MEASURED = (
    "measured", "measured_low", "measured_high", "validation", "train_run", "evaluate_run",
)  # fmt: skip
"""Columns of what was measured here."""


def points(most_epochs: int) -> "list[Point]":
    """The grid as points to try in a search, the report's 75 epochs being `most_epochs` of it."""
    return [_values(setting, most_epochs / LONGEST) for setting in REPORT]


def grid(settings: GridSettings) -> str:
    """Train and evaluate what is not on record yet, and record the table; returns its run's id."""
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from pipeline import dataset, records, tracking
    from pipeline.train import dataset_address
    from search import process

    with tracking.record("grid", settings) as run:
        address = dataset_address(settings.data, run)
        faces = dataset.load_without_test(records.dataset_folder(address))
        dataset.require_test(faces, address)
        run.use_dataset(faces, address, context="train")
        work = partial(_measure, run.id, faces.digest)
        trainings = [training_settings(settings, row, address) for row in REPORT]
        evaluated = process.side_by_side(settings.workers, work, trainings)
        print(_record(REPORT, trainings, evaluated, run, _what_is_measured(settings)))
    print(f"grid run {run.id}")
    return run.id


def training_settings(settings: GridSettings, row: Setting, data: str) -> TrainSettings:
    """What is trained for a row of the report's grid."""
    return TrainSettings(
        data=data,
        width=settings.width,
        faces=settings.faces,
        seed=settings.seed,
        threads=threads_each(settings.workers),
        **_values(row, settings.epochs_scale),
    )


def _values(setting: Setting, epochs_scale: float) -> "Point":
    return {
        "epochs": max(1, round(setting.epochs * epochs_scale)),
        "batch_size": setting.batch_size,
        "lr": setting.lr,
        "optimizer": setting.optimizer,
    }


def _measure(
    parent: str, digest: str, settings: TrainSettings, stop: threading.Event
) -> str | None:
    """The evaluate run of these settings on this dataset, made if there is none; None if they fail.

    The other rows are worth their table.
    """
    from pipeline import records
    from search import process, trial

    what = f"{settings.optimizer} lr={settings.lr:g} batch_size={settings.batch_size}"

    if trained := records.on_record("train", settings, digest):
        run_id = trained.info.run_id
    else:
        outcome = process.run(trial.train_whole, settings, parent, digest, stop=stop)
        if outcome.kind == "failed":
            print(f"{what} failed: {outcome.text}")
            return None
        run_id = process.returned(outcome, what)
    if done := records.evaluation_of(run_id, dataset_digest=digest):
        return done
    test = EvaluateSettings(run_id, data=settings.data)
    outcome = process.run(trial.evaluate_whole, test, parent, stop=stop)
    return process.returned(outcome, what)


def _record(
    rows: Sequence[Setting],
    trainings: Sequence[TrainSettings],
    evaluated: Sequence[str | None],
    run: "Run",
    measured: str,
) -> str:
    """Log report_vs_measured.csv and .png; returns the table as text."""
    import pandas as pd

    from search import pictures

    table = pd.DataFrame([_row(*row) for row in zip(rows, trainings, evaluated, strict=True)])
    run.log_text(table.to_csv(index=False), "report_vs_measured.csv")
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "report_vs_measured.png"
        run.log_file(pictures.report_vs_measured(table, measured, file))
    shown = table[["setting", "report", "stale", "measured", "measured_low", "measured_high"]]
    return f"{measured}\n" + shown.to_string(index=False, float_format="{:.3f}".format)


def _what_is_measured(settings: GridSettings) -> str:
    """For the legend: in what these trainings fall short of the report's."""
    parts = ["measured here"]
    if settings.epochs_scale != 1:
        parts.append(f"epochs × {settings.epochs_scale:g}")
    if settings.faces:
        parts.append(f"{settings.faces:,} faces")
    if settings.width != 1:
        parts.append(f"width {settings.width:g}")
    return ", ".join(parts)


def _row(setting: Setting, training: TrainSettings, evaluated: str | None) -> dict[str, object]:
    """A row of the table, without our figures where the training failed.

    The report's interval is that of its accuracy on its 3,589 test faces.
    """
    from pipeline.evaluation import accuracy_interval

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
        **(_measured(evaluated) if evaluated else dict.fromkeys(MEASURED, float("nan"))),
    }


def _measured(evaluated: str) -> dict[str, object]:
    from mlflow import MlflowClient

    client = MlflowClient()
    test = client.get_run(evaluated)
    train = client.get_run(test.data.tags["trained_by"])
    accuracy = [test.data.metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high")]
    validation = train.data.metrics["best_val_accuracy"]
    row = (*accuracy, validation, train.info.run_id, evaluated)
    return dict(zip(MEASURED, row, strict=True))


if __name__ == "__main__":
    command.run(GridSettings, grid)
