"""Export of a trained network as ONNX files, each compared with Keras before it is kept."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipeline.data import CLASSES, TRAIN, VALIDATION, dataset, sample, votes
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError, TrainingError
from pipeline.exported import network, quantize
from pipeline.networks import exportable, files, learnt
from pipeline.percent import percent
from pipeline.reports import notes
from pipeline.runs import addresses, exports, queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import ExportSettings

TOLERANCE = 1e-5
"""Largest difference of a float32 file's probabilities from Keras'."""
COMPARED_FACES = 1000


@dataclass(frozen=True)
class Comparison:
    """A file's answers beside those of Keras on the same faces."""

    faces: int
    same_class: float
    """Share of the faces with the same most probable class."""
    mean_difference: float
    largest_difference: float
    """Of a probability."""
    accuracy: float
    keras_accuracy: float
    megabytes: float

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name != "faces"}

    def __str__(self) -> str:
        return (
            f"{self.megabytes:.2f} MB; on {self.faces:,} faces the same class as Keras for "
            f"{percent(self.same_class)}, largest difference {self.largest_difference:.1e}, "
            f"accuracy {percent(self.accuracy)} (Keras {percent(self.keras_accuracy)})"
        )


def export(settings: ExportSettings) -> str:
    """Write and record the files; the id of the export's run.

    Raises InputError for a network that ONNX can't express, and TrainingError if a float32 file
    differs from Keras by more than `TOLERANCE`; no file is then kept.
    """
    file, trained_by = addresses.model_file(settings.run)
    model = files.load(file)
    own = exportable.augmentation(model)
    wanted = own if settings.tta == "own" else settings.tta
    name = trained_by[:8] if trained_by else file.stem
    with (
        tracking.record("export", settings, name=notes.joined("export", name, wanted)) as run,
        TemporaryDirectory() as scratch,
    ):
        faces = _dataset(settings, trained_by, run)
        changed = exportable.exportable(model, wanted)
        classes = learnt.classes(file)
        about = {"classes": ",".join(classes), "tta": wanted, "network": trained_by or file.name}
        written = _write(settings, changed, about, faces, Path(scratch) / f"{name}-{wanted}")
        compared = _compare(model if wanted == own else changed, classes, faces, written)
        home = _run_of(trained_by) or run
        kept = _keep(written, settings, home)
        run.tag(trained_by=trained_by or "unknown", files_on=home.id)
        if wanted == own and "float32" in written:
            home.tag(onnx=f"{exports.FOLDER}/{written['float32'].name}")
        for precision, result in compared.items():
            run.log_metrics({f"{precision}/{k}": v for k, v in result.metrics.items()})
        has_votes = faces is not None and faces.votes is not None
        against = f", against {votes.AGAINST['hard']}" if has_votes else ""
        lines = [f"{kept[precision]}: {result}{against}" for precision, result in compared.items()]
        run.describe(notes.paragraphs(*lines, notes.settings_note(settings)))
    print("\n".join([*lines, f"export run {run.id}"]))
    return run.id


def _dataset(settings: ExportSettings, trained_by: str | None, run: Run) -> Dataset | None:
    """The dataset without its test split; None where no setting asks for one."""
    if settings.precision == "float32" and settings.data is None:
        return None
    address = addresses.dataset_to_evaluate(settings, trained_by)
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    run.use_dataset(faces, address, context="calibration")
    return faces


def _write(
    settings: ExportSettings,
    model: object,
    about: Mapping[str, str],
    faces: Dataset | None,
    stem: Path,
) -> dict[str, Path]:
    """The files by precision, beginning with `stem`; `about` goes into their metadata."""
    written = {name: stem.with_name(f"{stem.name}-{name}.onnx") for name in ("float32", "int8")}
    exportable.write_onnx(model, written["float32"])
    quantize.describe(written["float32"], about)  # with the classes that `load` expects
    network.load(written["float32"])
    if faces is not None and settings.precision != "float32":
        images = faces.part(TRAIN)[0]
        chosen = np.random.default_rng(0).permutation(len(images))[: quantize.CALIBRATION_FACES]
        quantize.quantize(written["float32"], written["int8"], images[chosen])
        quantize.describe(written["int8"], about)
    wanted = written if settings.precision == "both" else [settings.precision]
    return {name: written[name] for name in wanted}


def _compare(
    model: object, classes: Sequence[str], faces: Dataset | None, written: Mapping[str, Path]
) -> dict[str, Comparison]:
    """Each file beside Keras, on validation faces or drawn ones, by the network's `classes`."""
    if faces is None:
        drawn, labels = sample.draw(count=140, seed=1)
        images = drawn[..., np.newaxis]
    else:
        images, labels = faces.part(VALIDATION)
    images, labels = images[:COMPARED_FACES], labels[:COMPARED_FACES]
    # A face of a class that the network does not have counts as wrong.
    names = CLASSES if faces is None else faces.classes
    of_network = [classes.index(name) if name in classes else -1 for name in names]
    codes = np.array(of_network)[labels]
    expected = files.predict(model, images)
    compared = {}
    for precision, file in written.items():
        found = network.load(file).predict(images)
        compared[precision] = result = _comparison(found, expected, codes, file)
        if precision == "float32" and result.largest_difference > TOLERANCE:
            raise TrainingError(
                f"{file.name}: a probability differs from Keras' by "
                f"{result.largest_difference:.1e}, more than {TOLERANCE:.0e}; nothing is written"
            )
    return compared


def _comparison(
    found: NDArray[np.float32], expected: NDArray[np.float32], labels: NDArray[np.intp], file: Path
) -> Comparison:
    difference = abs(found - expected)
    best, keras_best = found.argmax(axis=1), expected.argmax(axis=1)
    return Comparison(
        faces=len(labels),
        same_class=float((best == keras_best).mean()),
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        accuracy=float((best == labels).mean()),
        keras_accuracy=float((keras_best == labels).mean()),
        megabytes=file.stat().st_size / 1e6,
    )


def _run_of(trained_by: str | None) -> Run | None:
    """The training's run; None if it is not known or was deleted."""
    try:
        return Run(queries.get(trained_by, *tracking.TRAININGS).info.run_id) if trained_by else None
    except InputError:
        return None


def _keep(written: Mapping[str, Path], settings: ExportSettings, home: Run) -> dict[str, Path]:
    """Log the files on the run `home` and copy them into the folder; where they are."""
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {}
    for precision, file in written.items():
        home.log_file(file, exports.FOLDER)
        kept[precision] = Path(shutil.copy(file, folder))
    return kept
