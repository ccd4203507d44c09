"""Ingestion: reads faces, splits them, and records them as a dataset."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.data import dataset, sources, splitting
from pipeline.reports import plots
from pipeline.runs import tracking
from pipeline.runs.tracking import Run
from pipeline.settings import IngestSettings


def ingest(settings: IngestSettings, parent: Run | None = None) -> str:
    """Record a dataset and return its run's id. Raises InputError before a run is started."""
    faces = sources.read(settings.source, settings.seed)
    result = splitting.assemble(
        faces,
        source=settings.source,
        policy=settings.split,
        seed=settings.seed,
        validation=settings.validation,
    )
    with tracking.record("ingest", settings, parent=parent) as run, TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset.save(result, folder / "dataset")
        run.log_folder(folder / "dataset", "dataset")
        run.use_dataset(result, run.id, context="ingest")
        run.log_text(dataset.table(result).to_csv(), "splits.csv")
        run.log_file(plots.classes(result.about["counts"], folder / "classes.png"))
        run.log_file(plots.faces(result.images, result.labels, folder / "faces.png"))
    if settings.validation != IngestSettings.validation and (result.split == faces.split).all():
        print(f"validation={settings.validation} changes nothing: the source's own split is used")
    print(dataset.table(result).to_string(), dataset.copies_text(result), sep="\n")
    print(f"ingest run {run.id}, dataset digest {result.digest}")
    return run.id
