"""Evaluation of a trained network on a split, usually test."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipeline.data import CLASSES, SPLITS, TRAIN, dataset
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.networks import files, learnt
from pipeline.percent import interval, percent
from pipeline.reports import artifacts, metrics, model_card, notes, plots
from pipeline.reports.metrics import Metrics
from pipeline.runs import addresses, experiment, queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, parent: Run | None = None) -> str:
    """Record an evaluation and return its run's id. Only this function reads the test split."""
    file, trained_by = addresses.model_file(settings.run)
    address = addresses.dataset_to_evaluate(settings, trained_by)
    faces = dataset.load(addresses.dataset_folder(address))
    images, labels = faces.part(SPLITS.index(settings.split))
    if len(labels) == 0:
        raise InputError(f"data={address}: this dataset has no face in {settings.split}")
    model = files.load(file)
    unseen, all_known = _unseen(images, file, trained_by, faces)
    network = _network_name(trained_by, file)

    with (
        tracking.record(
            "evaluate", settings, parent=parent, name=notes.joined(settings.split, network)
        ) as run,
        TemporaryDirectory() as scratch,
    ):
        # The digest of the evaluated faces only: it counts their evaluations whatever the split of
        # the other faces.
        digest = dataset.digest(images, labels)
        earlier = queries.evaluations(digest)
        run.use_dataset(faces, address, context=settings.split)
        run.tag(trained_by=trained_by or "unknown", learnt_all_known=all_known)
        run.tag(faces_digest=digest, earlier_evaluations=earlier)
        result = metrics.compute(labels, files.predict(model, images))
        figures = metrics.metrics(result, settings.split)
        unseen_result = metrics.subset(result, unseen)
        if unseen_result:
            figures[f"{settings.split}/accuracy_unseen"] = unseen_result.accuracy
        model_id = queries.logged_model(trained_by) if trained_by else None
        run.log_metrics(figures, faces=faces if model_id else None, model_id=model_id)
        run.rename(notes.joined(settings.split, network, percent(result.accuracy)))
        run.describe(evaluation_note(settings, run, result, unseen_result, earlier))
        run.log_text(metrics.predictions_csv(result, unseen), "predictions.csv")
        artifacts.write(result, settings.split, Path(scratch))
        plots.mistakes(result, images, Path(scratch) / "mistakes.png")
        run.log_files(Path(scratch))
        if trained_by and settings.split == "test":
            _tell_training(trained_by, run, figures, result, faces)

    print(metrics.classification_text(result))
    if unseen_result:
        print(f"without copies of training faces {metrics.accuracy_text(unseen_result)}")
    if not all_known:
        print("not all training faces of this network are known: some may be among these")
    print(f"earlier evaluations of this {settings.split} split: {earlier}")
    print(f"evaluate run {run.id}")
    return run.id


def faces_of(evaluate_run: str, rows: NDArray[np.intp]) -> NDArray[np.uint8] | None:
    """Images (n, 48, 48) of an evaluation's faces, to be looked at; None if they are gone."""
    run = queries.get(evaluate_run, "evaluate")
    try:
        faces = dataset.load(addresses.dataset_folder(run.data.tags.get("dataset", "")))
    except InputError:
        return None
    images, labels = faces.part(SPLITS.index(run.data.params["split"]))
    if dataset.digest(images, labels) != run.data.tags["faces_digest"]:
        return None
    return images[rows, ..., 0]


def _network_name(trained_by: str | None, file: Path) -> str:
    """Name of the network's train run, or of its file."""
    try:
        return queries.get(trained_by, "train").info.run_name if trained_by else file.stem
    except InputError:  # its run was deleted
        return file.stem


def evaluation_note(
    settings: EvaluateSettings, run: Run, result: Metrics, unseen: Metrics | None, earlier: int
) -> str:
    """Description of an evaluation: the result, what is weakest, and the command that repeats it.

    `unseen` are the metrics without copies of training images, and `earlier` the number of
    evaluations of the same images before.
    """
    alone = "Each of them is a copy of a training image."
    if unseen:
        alone = (
            f"Without copies of training images: {percent(unseen.accuracy)} "
            f"({len(unseen.labels):,} images)."
        )
        if len(unseen.labels) == len(result.labels):
            alone = "None of them is a copy of a training image."
    present = [name for name in CLASSES if result.by_class[name]["support"]]
    weakest = min(present, key=lambda name: result.by_class[name]["recall"])
    recall = percent(result.by_class[weakest]["recall"])
    given = replace(settings, data=run.dataset if settings.data else None)
    trained = run.data().tags["trained_by"]
    given = given if trained == "unknown" else replace(given, run=trained)
    return notes.paragraphs(
        f"**{settings.split.capitalize()} accuracy {percent(result.accuracy)}** "
        f"({interval(result.low, result.high)}, {len(result.labels):,} images). {alone}",
        f"It recognises *{weakest}* least often: recall {recall}. The most confident errors are in "
        f"`mistakes.png`. Earlier evaluations of these images: {earlier}.",
        notes.settings_note(given),
        f"Next: is it better than another one? `mlflow run . -e compare -P runs={run.id},OTHER`",
    )


def _tell_training(
    trained_by: str, run: Run, figures: Mapping[str, float], result: Metrics, faces: Dataset
) -> None:
    """Put the figures on the training and its model card, too, if they are of its own dataset.

    On other datasets they would not compare with those of other trainings.
    """
    try:
        trained = queries.get(trained_by, "train")
    except InputError:  # it was deleted
        return
    if trained.data.tags.get("dataset_digest") != faces.digest:
        return
    line = (
        f"{notes.TEST_LINE}{percent(result.accuracy)}** "
        f"({interval(result.low, result.high)}, {len(result.labels):,} images), in "
        f"[its evaluation]({experiment.run_link(run.id)})."
    )
    training = Run(trained_by)
    training.log_metrics(figures)
    training.describe(notes.with_test_line(trained.data.tags.get(experiment.NOTE, ""), line))
    model_id = queries.logged_model(trained_by)
    if model_id and (card := queries.model_text(model_id, model_card.FILE)):
        card = model_card.with_figures(card, result, "test")
        tracking.log_card(model_id, card, model_card.FILE)


def _unseen(
    images: NDArray[np.uint8], file: Path, trained_by: str | None, faces: Dataset
) -> tuple[NDArray[np.bool_], bool]:
    """Mask (N,) of the images that the network was not trained on, and whether that is certain.

    The file itself says what it learnt from; for one of an earlier version its run does.
    """
    told = learnt.read(file)
    if told and (told.complete or trained_by is None):
        return told.unseen(images), told.complete
    training_images, all_known = _training_images(trained_by, faces)
    return dataset.unseen(images, training_images), all_known


def _training_images(trained_by: str | None, faces: Dataset) -> tuple[NDArray, bool]:
    """Images (n, 48, 48, 1) that the network was trained on, and whether these are all.

    They are the train split of its run and, recursively, of the run that trained its initial
    weights (init_from). If no run is known, they are the train split of `faces`.
    """
    if trained_by in (None, "unknown"):
        return faces.part(TRAIN)[0], False
    tags = queries.get(trained_by, "train").data.tags
    own = faces
    if tags["dataset_digest"] != faces.digest:
        own = dataset.load_without_test(addresses.dataset_folder(addresses.dataset_of(trained_by)))
    images = own.part(TRAIN)[0]
    if "start_trained_by" not in tags:
        return images, True
    try:
        earlier, all_known = _training_images(tags["start_trained_by"], faces)
    except InputError:  # its run was deleted, or its dataset is gone
        return images, False
    return np.concatenate([images, earlier]), all_known
