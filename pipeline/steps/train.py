"""Training of a network on a dataset, recorded as a run."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from pipeline.data import TRAIN, VALIDATION, votes
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.networks import files, learnt
from pipeline.networks.learnt import Learnt
from pipeline.networks.temperature import with_temperature
from pipeline.percent import interval, percent
from pipeline.reports import artifacts, calibration, metrics, model_card, notes, plots
from pipeline.reports.metrics import Metrics
from pipeline.runs import addresses, tracking
from pipeline.runs.metric_names import RECORDING_SECONDS, TRAINING_SECONDS
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings
from pipeline.steps.data import load_training
from pipeline.steps.resume import move_checkpoint, resumed_settings
from pipeline.training import device
from pipeline.training.checkpoint import TrainState
from pipeline.training.fit import OnEpoch, TrainResult, fit
from pipeline.training.progress import EpochProgress
from pipeline.training.self_test import self_test


def train(settings: TrainSettings, parent: Run | None = None) -> str:
    """Record a training and return its run's id.

    Raises KeyboardInterrupt after Ctrl-C, once the results so far are recorded.
    """
    settings = resumed_settings(settings)
    name = notes.training_name(settings)
    with tracking.record("train", settings, parent=parent, name=name) as run:
        faces = load_training(settings, run)
        with EpochProgress(settings.epochs) as progress:
            result = fit_and_record(
                settings,
                faces,
                run,
                on_epoch=[progress.on_epoch],
                on_batch=progress.on_batch,
                checkpoint=run.checkpoint,
            )
        _record(result, run)
        if result.interrupted and run.checkpoint.exists():
            print(f"interrupted; resume with: python -m pipeline.train --resume {run.id}")
        if result.interrupted:
            raise KeyboardInterrupt
    run.checkpoint.unlink(missing_ok=True)
    return run.id


def fit_and_record(
    settings: TrainSettings,
    faces: Dataset,
    run: Run,
    *,
    on_epoch: Sequence[OnEpoch],
    test_device: bool = True,
    **options: Any,
) -> TrainResult:
    """Train with `fit` on the device of this machine; record the device and every epoch.

    The metric time/training_seconds is that of all processes of a resumed training;
    time/recording_seconds is the time that this one spent on recording and in `on_epoch`;
    resumed_from_epoch is the last epoch that was read from a checkpoint, if one was.
    """
    precision = use_device(settings, run, test=test_device)
    if labels := votes.learnt(faces.about, settings.targets):
        run.tag(labels=labels)
    run.describe(repeatable_note(settings, run))
    initial: dict[str, Any] = {}
    if settings.resume is not None:
        move_checkpoint(settings.resume, faces, run)  # which has the weights
    elif settings.init_from is not None:
        initial = _load_initial(settings.init_from, run)
    state = TrainState()
    recording = 0.0

    def record(epoch: int, logs: dict[str, float]) -> None:
        nonlocal recording
        start = time.perf_counter()
        try:
            for call in (run.log_epoch, *on_epoch):
                call(epoch, logs)
        finally:
            recording += time.perf_counter() - start

    try:
        options |= {"precision": precision, "on_epoch": [record], "state": state}
        return fit(settings, faces, **initial, **options)
    finally:
        figures = {RECORDING_SECONDS: recording, TRAINING_SECONDS: state.seconds}
        if state.resumed_from:
            figures["resumed_from_epoch"] = state.resumed_from
        run.log_metrics(figures)


def use_device(settings: TrainSettings, run: Run, *, test: bool = True) -> str:
    """Choose, record and `test` what this machine computes with; the precision to train in."""
    computer = device.describe(device.use_threads(settings.threads))
    precision = device.choose_precision(settings.precision, computer)
    run.log_environment(device=asdict(computer), precision=precision)
    run.tag(precision=precision)
    if test:
        self_test(precision)
    return precision


def _load_initial(address: str, run: Run) -> dict[str, Any]:
    """The network with the initial weights and its classes, as `fit` takes them; tags its file's
    digest and its train run."""
    file, trained_by = addresses.model_file(address)
    run.tag(start_digest=file_digest(file), start_trained_by=trained_by or "unknown")
    return {"initial": files.load(file), "initial_classes": learnt.classes(file)}


def repeatable_note(settings: TrainSettings, run: Run) -> str:
    """Description of a training: its settings, and the command that repeats it on its dataset."""
    return notes.settings_note(replace(settings, data=run.dataset, resume=None))


def _record(result: TrainResult, run: Run) -> None:
    """Log the network, its learning curves and its metrics on validation; metrics come first."""
    if result.model is None:
        return
    names = {"accuracy", result.settings.monitor}
    best = {f"val/best_{name}": result.best_value(name) for name in names}
    run.log_metrics(best | {"best_epoch": result.best_epoch})
    images, labels = result.dataset.part(VALIDATION)
    probabilities = files.predict(result.model, images)
    against = votes.AGAINST[votes.learnt(result.dataset.about, result.settings.targets)]
    evaluation = metrics.compute(labels, probabilities, result.dataset.classes, against)
    model = result.model
    if result.settings.calibrate:
        model, evaluation = _calibrate(model, evaluation, run)
    run.log_metrics(metrics.calibration_metrics(evaluation, "val"))
    run.describe(_note(result, evaluation, run))
    run.log_text(files.summary(model), "network.txt")
    _log_model(model, result, evaluation, run)
    with TemporaryDirectory() as scratch:
        artifacts.write(evaluation, "validation", Path(scratch))
        plots.curves(result.history, result.best_epoch, Path(scratch) / "curves.png")
        run.log_files(Path(scratch))
    print(f"validation accuracy {metrics.accuracy_text(evaluation)}, epoch {result.best_epoch}")
    print(f"train run {run.id}")


def _calibrate(model: keras.Model, evaluation: Metrics, run: Run) -> tuple[keras.Model, Metrics]:
    """The network with the temperature that suits `evaluation`, of the validation split, and its
    evaluation on that split; logs the figures before."""
    labels, probabilities = evaluation.labels, evaluation.probabilities
    temperature = calibration.fit_temperature(labels, probabilities)
    before = metrics.calibration_metrics(evaluation, "val")
    run.log_metrics({f"{name}_uncalibrated": value for name, value in before.items()})
    run.log_metrics({"val/temperature": temperature})
    scaled = calibration.with_temperature(probabilities, temperature)
    evaluation = metrics.of(evaluation, labels, scaled)
    return with_temperature(model, temperature), evaluation


def _note(result: TrainResult, evaluation: Metrics, run: Run) -> str:
    if result.interrupted:
        what_next = (
            f"Interrupted after epoch {len(result.history)}. Resume it: "
            f"`mlflow run . -e train -P resume={run.id}`"
        )
    else:
        what_next = (
            "Next: measure it on the test images, when nothing is left to choose: "
            f"`mlflow run . -e evaluate -P run={run.id}`"
        )
    return notes.paragraphs(
        f"**Validation accuracy {percent(evaluation.accuracy)}** "
        f"({interval(evaluation.low, evaluation.high)}, {len(evaluation.labels):,} images)"
        f"{metrics.against(evaluation)}, epoch {result.best_epoch} of {result.settings.epochs}.",
        repeatable_note(result.settings, run),
        what_next,
    )


def _log_model(model: keras.Model, result: TrainResult, evaluation: Metrics, run: Run) -> None:
    """Log the network with its model card and the hashes of the images that it learnt from."""
    settings, data = result.settings, run.data()
    known = _learnt(result, data.tags.get("start_digest"))
    about = model_card.Facts(
        run=run.id,
        about=result.dataset.about,
        training_images=len(known.hashes),
        all_known=known.complete,
        parameters=model.count_params(),
        epoch=result.best_epoch,
        minutes=data.metrics[TRAINING_SECONDS] / 60,
        device=device.describe(device.use_threads(settings.threads)).processor,
    )
    card = model_card.model_card(settings, about, evaluation)

    def finish(folder: Path) -> None:
        learnt.add(next(folder.rglob("*.keras")), card, known, result.dataset.classes)
        (folder / model_card.FILE).write_text(card)

    tracking.describe_model(run.log_model(model, finish, epoch=result.best_epoch), card)


def _learnt(result: TrainResult, initial_digest: str | None) -> Learnt:
    """The images that a network learnt from, in this training and for its initial weights."""
    own = learnt.learnt_from(result.dataset.part(TRAIN)[0])
    if initial_digest is None:
        return own
    try:
        file, _ = addresses.model_file(str(result.settings.init_from))
    except InputError:  # the file is gone since the training began
        return own.with_earlier(None)
    return own.with_earlier(learnt.read(file) if file_digest(file) == initial_digest else None)


def file_digest(file: Path) -> str:
    """First 16 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
