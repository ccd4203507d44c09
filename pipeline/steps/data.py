"""Dataset lookup by address; ingests the drawn sample if no dataset is recorded."""

from pipeline.data import dataset, splitting
from pipeline.data.dataset import Dataset
from pipeline.runs import addresses, queries
from pipeline.runs.tracking import Run
from pipeline.settings import LATEST, IngestSettings, TrainSettings
from pipeline.steps.ingest import ingest


def load_training(settings: TrainSettings, run: Run) -> Dataset:
    """Load the dataset of a training without its test split, and record it as the run's input."""
    address = dataset_address(settings.data, run)
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    run.use_dataset(faces, address, context="train")
    return splitting.subsample(faces, settings.max_train_faces, settings.seed)


def dataset_address(data: str, run: Run) -> str:
    """The address `data`, or for latest the newest ingest run's id; ingests if there is none."""
    if data != LATEST:
        return data
    with queries.lock("ingest."):  # of commands that start together, one draws the sample
        if newest := queries.latest("ingest"):
            return newest.info.run_id
        print("no dataset on record: ingesting the drawn sample first")
        return ingest(IngestSettings(), parent=run)
