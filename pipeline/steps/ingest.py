"""Ingestion: reads faces, splits them, and records them as a dataset."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import paths
from pipeline.data import CLASSES, dataset, sources, splitting, votes
from pipeline.data.dataset import Dataset
from pipeline.reports import notes, plots
from pipeline.runs import tracking
from pipeline.runs.tracking import Run
from pipeline.settings import IngestSettings


def ingest(settings: IngestSettings, parent: Run | None = None) -> str:
    """Record a dataset and return its run's id. Raises InputError before a run is started."""
    file = settings.labels and paths.find_file(settings.labels)
    faces = sources.read(settings.source, settings.seed, settings.names, settings.drop)
    if file:
        faces = votes.join(faces, file)
    result = splitting.assemble(
        faces,
        source=settings.source,
        policy=settings.split,
        seed=settings.seed,
        validation=settings.validation,
    )
    places = " + ".join(Path(one).name for one in paths.several(settings.source))
    name = notes.joined(places, f"{len(result.labels):,} images")
    with (
        tracking.record("ingest", settings, parent=parent, name=name) as run,
        TemporaryDirectory() as scratch,
    ):
        folder = Path(scratch)
        run.describe(_note(settings, result))
        dataset.save(result, folder / "dataset")
        run.log_folder(folder / "dataset", "dataset")
        run.use_dataset(result, run.id, context="ingest")
        run.log_text(dataset.table(result).to_csv(), "splits.csv")
        run.log_file(plots.classes(result.about["counts"], result.classes, folder / "classes.png"))
        run.log_file(
            plots.faces(result.images, result.labels, result.classes, folder / "faces.png")
        )
    if settings.validation != IngestSettings.validation and (result.split == faces.split).all():
        print(f"validation={settings.validation} changes nothing: the source's own split is used")
    if result.classes != CLASSES:
        print(_classes_line(result.classes))
    print(dataset.table(result).to_string(), dataset.copies_text(result), sep="\n")
    if result.votes is not None:
        print(votes.text(result))
    print(f"ingest run {run.id}, dataset digest {result.digest}")
    return run.id


def _classes_line(classes: tuple[str, ...]) -> str:
    """The classes, and which of FER2013's are not there, since a folder may have been forgotten."""
    absent = [name for name in CLASSES if name not in classes]
    of_fer2013 = f"; FER2013's {', '.join(absent)} not among them" if absent else ""
    return f"{len(classes)} classes: {', '.join(classes)}{of_fer2013}"


def _note(settings: IngestSettings, result: Dataset) -> str:
    """Description of a dataset: its splits, copies of images, and what to do next."""
    counts = ", ".join(f"{sum(n):,} {split}" for split, n in result.about["counts"].items())
    return notes.paragraphs(
        f"**{len(result.labels):,} images**: {counts}. Digest `{result.digest}`.",
        f"{dataset.copies_text(result)}.",
        "" if result.votes is None else f"{votes.text(result)}.",
        notes.settings_note(settings),
        "Next: train on them, `mlflow run . -e train -P network=compact`",
    )
