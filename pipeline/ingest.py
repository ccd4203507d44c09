"""Read faces from a source, split them, and keep them as a dataset on a run.

mlflow run . -e ingest                                     the drawn sample
mlflow run . -e ingest -P source=fer2013.csv -P split=official
python -m pipeline.ingest --source kaggle:OWNER/NAME
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.settings import IngestSettings

if TYPE_CHECKING:
    from pipeline.tracking import Run


def ingest(settings: IngestSettings, parent: "Run | None" = None) -> str:
    """Record a dataset and return its run's id; of a source that can't be used nothing is kept."""
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from pipeline import dataset, figures, sources, tracking

    faces = sources.read(settings.source, settings.seed)
    made = dataset.assemble(
        faces,
        source=settings.source,
        policy=settings.split,
        seed=settings.seed,
        validation=settings.validation,
    )
    with tracking.record("ingest", settings, parent=parent) as run, TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset.save(made, folder / "dataset")
        run.log_folder(folder / "dataset", "dataset")
        run.use_dataset(made, run.id, context="ingest")
        run.log_text(dataset.table(made).to_csv(), "splits.csv")
        run.log_file(figures.classes(made.about["counts"], folder / "classes.png"))
        run.log_file(figures.faces(made.images, made.labels, folder / "faces.png"))
    if settings.validation != IngestSettings.validation and (made.split == faces.split).all():
        print(f"validation={settings.validation} changes nothing: the source's own split was kept")
    print(dataset.table(made).to_string(), dataset.copies_text(made), sep="\n")
    print(f"ingest run {run.id}, dataset digest {made.digest}")
    return run.id


if __name__ == "__main__":
    command.run(IngestSettings, ingest)
