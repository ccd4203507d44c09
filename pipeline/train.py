"""Train a network on a dataset and record it.

mlflow run . -e train -P lr=0.0002
python -m pipeline.train --network report --epochs 60 --batch_size 16
python -m pipeline.train --resume RUN_ID                   after Ctrl-C, or a crash
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline import InputError, command
from pipeline.settings import LATEST, NONE, IngestSettings, TrainSettings, recipe

if TYPE_CHECKING:
    import keras

    from pipeline.dataset import Dataset
    from pipeline.tracking import Run
    from pipeline.training import Fitted, OnEpoch


def train(settings: TrainSettings, parent: "Run | None" = None) -> str:
    """Record a training and return its run's id. Ctrl-C saves what was reached, then goes on up."""
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from pipeline import tracking
    from pipeline.progress import EpochProgress

    settings = _resumed(settings)
    with tracking.record("train", settings, parent=parent) as run:
        faces = training_faces(settings, run)
        with EpochProgress(settings.epochs) as progress:
            fitted = fit(
                settings,
                faces,
                run,
                on_epoch=[progress.on_epoch],
                on_batch=progress.on_batch,
                checkpoint=run.checkpoint,
            )
        _record(fitted, faces, run)
        if fitted.interrupted and run.checkpoint.exists():
            print(f"interrupted; go on with: python -m pipeline.train --resume {run.id}")
        if fitted.interrupted:
            raise KeyboardInterrupt
    run.checkpoint.unlink(missing_ok=True)
    return run.id


def fit(
    settings: TrainSettings,
    faces: "Dataset",
    run: "Run",
    *,
    on_epoch: "Sequence[OnEpoch]",
    self_test: bool = True,
    **options: Any,
) -> "Fitted":
    """`training.fit` on this computer; what computes and every epoch are put on record.

    So are the seconds that this took, as `recording_seconds`.
    """
    from pipeline import device, training

    computer = device.describe(device.use_threads(settings.threads))
    precision = device.choose_precision(settings.precision, computer)
    about = {f"device.{name}": value for name, value in asdict(computer).items()}
    run.tag(precision=precision, **about)
    if self_test:
        device.self_test(precision)
    start = None
    if settings.resume != NONE:
        _take_over(settings.resume, faces, run)  # and with the checkpoint its weights
    elif settings.start != NONE:
        start = _load_start(settings.start, run)
    recording = 0.0

    def record(epoch: int, logs: dict[str, float]) -> None:
        nonlocal recording
        began = time.perf_counter()
        try:
            for call in (run.log_epoch, *on_epoch):
                call(epoch, logs)
        finally:
            recording += time.perf_counter() - began

    try:
        return training.fit(
            settings, faces, precision=precision, start=start, on_epoch=[record], **options
        )
    finally:
        run.log_metrics({"recording_seconds": recording})


def _load_start(address: str, run: "Run") -> "keras.Model":
    """The network to begin with; which file it was, and who trained it, is put on record."""
    from pipeline import networks, records

    file, trained_by = records.model_file(address)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    run.tag(start_digest=digest, start_trained_by=trained_by or "unknown")
    return networks.load(file)


def _take_over(stopped: str, faces: "Dataset", run: "Run") -> None:
    """Give `run` the checkpoint of the run that is resumed, which can't be resumed again then.

    Raises InputError if that run learnt other faces: it may know those that are held out now.
    """
    from pipeline import records

    tags = records.get(stopped, "train").data.tags
    if tags["dataset_digest"] != faces.digest:
        raise InputError(
            f"resume={stopped}: the dataset has changed since (its digest is now {faces.digest}); "
            "give the address of the old one as data="
        )
    run.tag(**{name: tags[name] for name in ("start_digest", "start_trained_by") if name in tags})
    records.checkpoint_of(stopped).replace(run.checkpoint)


def _resumed(settings: TrainSettings) -> TrainSettings:
    """The settings of the run that is resumed, if one is; a setting given must agree with it."""
    from pipeline import lifetime, records

    if settings.resume == NONE:
        return settings
    run = records.get(settings.resume, "train")
    if run.info.status == "FINISHED":
        raise InputError(
            f"resume={settings.resume}: this run has finished; there is nothing to go on with"
        )
    if run.info.status == "RUNNING" and lifetime.is_running(run.data.tags.get("process", "")):
        raise InputError(f"resume={settings.resume}: this run is still training; stop it first")
    if not records.checkpoint_of(settings.resume).exists():
        raise InputError(
            f"resume={settings.resume}: no checkpoint in {records.CHECKPOINTS.resolve()}; it "
            "finished no epoch, was resumed already, or ran in another folder or on another machine"
        )
    # A setting that is younger than the run had what is now its default there.
    recorded = asdict(TrainSettings()) | records.recorded_settings(run, TrainSettings)
    # The same faces may lie elsewhere by now.
    data = run.data.tags["dataset"] if settings.data == LATEST else settings.data
    recorded |= {"resume": settings.resume, "data": data}
    # A default that was typed can't be told from one that was not.
    defaults = asdict(recipe(TrainSettings, settings.network)) | {"network": TrainSettings.network}
    for name, value in asdict(settings).items():
        if value not in (defaults[name], recorded[name]):
            raise InputError(
                f"{name}={value}: run {settings.resume} has {name}={recorded[name]}, and a resumed "
                "training keeps its settings"
            )
    return replace(settings, **recorded)


def training_faces(settings: TrainSettings, run: "Run") -> "Dataset":
    """The dataset without its test split, put on record; the sample where there is none at all."""
    from pipeline import dataset, records

    address = dataset_address(settings.data, run)
    faces = dataset.load_without_test(records.dataset_folder(address))
    run.use_dataset(faces, address, context="train")
    return dataset.fewer(faces, settings.faces, settings.seed)


def dataset_address(data: str, run: "Run") -> str:
    """`data`, or for latest the newest ingest run; the sample is ingested where there is none."""
    from pipeline import records
    from pipeline.ingest import ingest

    if data != LATEST:
        return data
    if newest := records.latest("ingest"):
        return newest.info.run_id
    print("no dataset on record: ingesting the drawn sample first")
    return ingest(IngestSettings(), parent=run)


def _record(fitted: "Fitted", faces: "Dataset", run: "Run") -> None:
    """Put the network, its curves and its validation report on record, numbers before pictures."""
    from pipeline import evaluation, figures, networks
    from pipeline.dataset import VALIDATION

    if fitted.model is None:
        return
    run.log_metrics(
        {"best_val_accuracy": fitted.best_val_accuracy, "best_epoch": fitted.best_epoch}
    )
    run.log_text(networks.summary(fitted.model), "network.txt")
    run.log_model(fitted.model)
    images, labels = faces.part(VALIDATION)
    result = evaluation.evaluate(labels, networks.predict(fitted.model, images))
    with TemporaryDirectory() as scratch:
        run.log_evaluation(result, "validation", Path(scratch))
        run.log_file(
            figures.curves(fitted.history, fitted.best_epoch, Path(scratch) / "curves.png")
        )
    print(f"validation accuracy {evaluation.accuracy_text(result)}, epoch {fitted.best_epoch}")
    print(f"train run {run.id}")


if __name__ == "__main__":
    command.run(TrainSettings, train)
