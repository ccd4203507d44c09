"""Time that the record of a training takes, and opening a fresh store.

    python -m benchmarks.mlflow_cost --data INGEST_RUN_ID_OR_FOLDER

The record is all of `train` but the epochs themselves: start of the run, environment.json, loading
the faces, self-test, metrics of each epoch, validation report, plots, model and card. It hardly
depends on the network, so a small one is trained, and the share is of the time of a real training.
"""

import tempfile
import time
from contextlib import chdir
from dataclasses import dataclass

import mlflow
import tyro
from mlflow import MlflowClient
from rich.console import Console

from benchmarks import processor
from pipeline.runs import addresses, experiment, queries
from pipeline.runs.metric_names import RECORDING_SECONDS, TRAINING_SECONDS
from pipeline.settings import TrainSettings, recipe
from pipeline.steps.train import train


@dataclass(frozen=True)
class Record:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    epochs: int = 50
    minutes: float = 22.7
    """Minutes of the training that the share is of: compact on FER2013 (docs/lab/speed.md)."""
    network: str = "compact"
    width: float = 0.25


def main(record: Record) -> None:
    data = str(addresses.dataset_folder(record.data).resolve())
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        begin = time.perf_counter()
        queries.use_store()
        tables = time.perf_counter() - begin
        begin = time.perf_counter()
        experiment.use()
        described = time.perf_counter() - begin
        settings = TrainSettings(
            **{
                **vars(recipe(TrainSettings, record.network)),
                "data": data, "epochs": record.epochs, "patience": 0, "width": record.width,
            }
        )  # fmt: skip
        begin = time.perf_counter()
        run = MlflowClient().get_run(train(settings))
        whole = time.perf_counter() - begin
    m = run.data.metrics
    around = whole - m[TRAINING_SECONDS]
    total = around + m[RECORDING_SECONDS]
    Console().print(
        f"fresh store: tables {tables:.1f} s, experiment and views {described:.2f} s",
        f"record of {record.epochs} epochs: {m[RECORDING_SECONDS]:.1f} s in the epochs, "
        f"{around:.1f} s around them: {total / (60 * record.minutes + total):.2%} of a training of "
        f"{record.minutes:g} minutes",
        f"n=1, {processor()}",
        sep="\n",
    )


if __name__ == "__main__":
    main(tyro.cli(Record))
