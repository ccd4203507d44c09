"""Datasets of the steps: found by their address, without the test split.

Where there is none on record, the drawn sample is ingested.
"""

from pipeline.data import dataset, splitting
from pipeline.data.dataset import Dataset
from pipeline.runs import addresses, queries
from pipeline.runs.tracking import Run
from pipeline.settings import LATEST, IngestSettings, TrainSettings
from pipeline.steps.ingest import ingest


def load_training(settings: TrainSettings, run: Run) -> Dataset:
    """The dataset without its test split, put on record; the sample where there is none at all."""
    address = dataset_address(settings.data, run)
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    run.use_dataset(faces, address, context="train")
    return splitting.subsample(faces, settings.max_train_faces, settings.seed)


def dataset_address(data: str, run: Run) -> str:
    """`data`, or for latest the newest ingest run; the sample is ingested where there is none."""
    if data != LATEST:
        return data
    if newest := queries.latest("ingest"):
        return newest.info.run_id
    print("no dataset on record: ingesting the drawn sample first")
    return ingest(IngestSettings(), parent=run)
