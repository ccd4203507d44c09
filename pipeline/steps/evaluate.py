"""Evaluation of a trained network on a split, usually test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipeline.data import SPLITS, TRAIN, dataset, votes
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.exported import network as onnx_network
from pipeline.networks import files, learnt
from pipeline.percent import interval, percent
from pipeline.reports import artifacts, metrics, model_card, notes, plots
from pipeline.reports.majority import AgainstVotes, against_votes
from pipeline.reports.metrics import Metrics
from pipeline.runs import addresses, experiment, queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, parent: Run | None = None) -> str:
    """Record an evaluation and return its run's id. Only this function reads the test split.

    Where the network's classes are not the dataset's, faces of a class that the network does not
    have are left out, and its probabilities of the common classes are scaled to a sum of 1.
    """
    file, trained_by = addresses.model_file(settings.run, onnx=True)
    address = addresses.dataset_to_evaluate(settings, trained_by)
    faces = dataset.load(addresses.dataset_folder(address))
    known, predict = _load(file)
    classes = _common_classes(known, faces.classes, settings.run)
    images, labels = _faces_of_classes(faces, settings.split, classes)
    if len(labels) == 0:
        raise InputError(f"data={address}: this dataset has no face in {settings.split}")
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
        digest = dataset.digest(images, labels, classes=faces.classes)
        earlier = queries.evaluations(digest)
        run.use_dataset(faces, address, context=settings.split)
        run.tag(trained_by=trained_by or "unknown", learnt_all_known=all_known)
        run.tag(faces_digest=digest, earlier_evaluations=earlier)
        if classes != faces.classes:
            run.tag(classes=",".join(classes))
        codes = np.array([classes.index(name) if name in classes else 0 for name in faces.classes])
        probabilities = _of_classes(predict(images), known, classes)
        against = "" if faces.votes is None else votes.AGAINST["hard"]
        result = metrics.compute(codes[labels].astype(np.uint8), probabilities, classes, against)
        figures = metrics.metrics(result, settings.split)
        by_votes = _against_votes(result, faces, settings.split)
        if by_votes:
            figures |= by_votes.figures(settings.split)
        unseen_result = metrics.subset(result, unseen)
        if unseen_result:
            figures[f"{settings.split}/accuracy_unseen"] = unseen_result.accuracy
        model_id = queries.logged_model(trained_by) if trained_by else None
        run.log_metrics(figures, faces=faces if model_id else None, model_id=model_id)
        run.rename(notes.joined(settings.split, network, percent(result.accuracy)))
        mapped = _mapping_text(known, faces.classes)
        more = str(by_votes or "")
        note = evaluation_note(settings, run, result, unseen_result, earlier, more)
        run.describe(notes.paragraphs(note, mapped))
        run.log_text(metrics.predictions_csv(result, unseen), "predictions.csv")
        artifacts.write(result, settings.split, Path(scratch), more)
        plots.mistakes(result, images, Path(scratch) / "mistakes.png")
        run.log_files(Path(scratch))
        if trained_by and settings.split == "test":
            _tell_training(trained_by, run, figures, result, more, faces)

    print(metrics.classification_text(result, more))
    if mapped:
        print(mapped)
    if unseen_result:
        print(f"without copies of training faces {metrics.accuracy_text(unseen_result)}")
    if not all_known:
        print("not all training faces of this network are known: some may be among these")
    print(f"earlier evaluations of this {settings.split} split: {earlier}")
    print(f"evaluate run {run.id}")
    return run.id


def _load(file: Path) -> tuple[tuple[str, ...], Callable[[NDArray[np.uint8]], NDArray[np.float32]]]:
    """Classes of the network in a .keras or .onnx file, and what returns their probabilities."""
    if file.suffix == ".onnx":
        network = onnx_network.load(file)
        return network.classes, network.predict
    return learnt.classes(file), partial(files.predict, files.load(file))


def _common_classes(
    network: Sequence[str], of_dataset: Sequence[str], address: str
) -> tuple[str, ...]:
    """The classes of the dataset that the network has. Raises InputError for fewer than two."""
    common = tuple(name for name in of_dataset if name in network)
    if len(common) < 2:
        raise InputError(
            f"run={address}: the network reads {', '.join(network)}, and the dataset has "
            f"{', '.join(of_dataset)}; at least two classes in common are needed"
        )
    return common


def _faces_of_classes(
    faces: Dataset, split: str, classes: Sequence[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of the faces of `classes` in a split; labels are the dataset's codes."""
    images, labels = faces.part(SPLITS.index(split))
    rows = np.isin(labels, [faces.classes.index(name) for name in classes])
    return images[rows], labels[rows]


def _against_votes(result: Metrics, faces: Dataset, split: str) -> AgainstVotes | None:
    """The result against the votes' majority; None without votes, or with other classes."""
    if faces.votes is None or result.classes != faces.classes:
        return None
    return against_votes(result, faces.votes[faces.split == SPLITS.index(split)])


def _of_classes(
    probabilities: NDArray[np.float32], network: Sequence[str], classes: Sequence[str]
) -> NDArray[np.float32]:
    """Probabilities (N, classes) of those (N, network); scaled to a sum of 1 if some are left."""
    chosen = probabilities[:, [network.index(name) for name in classes]]
    if len(classes) < len(network):
        chosen /= np.maximum(chosen.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return chosen


def _mapping_text(network: Sequence[str], of_dataset: Sequence[str]) -> str:
    """How a network was mapped onto a dataset of other classes; empty for the same classes."""
    unknown = ", ".join(name for name in of_dataset if name not in network)
    unused = ", ".join(name for name in network if name not in of_dataset)
    parts = [
        f"faces of {unknown} are left out, which the network does not have" if unknown else "",
        f"its probabilities of {unused} are left out, which the dataset does not have, and the "
        "others scaled to a sum of 1"
        if unused
        else "",
    ]
    return "; ".join(filter(None, parts))


def faces_of(evaluate_run: str, rows: NDArray[np.intp]) -> NDArray[np.uint8] | None:
    """Images (n, 48, 48) of an evaluation's faces, to be looked at; None if they are gone."""
    run = queries.get(evaluate_run, "evaluate")
    try:
        faces = dataset.load(addresses.dataset_folder(run.data.tags.get("dataset", "")))
    except InputError:
        return None
    classes = run.data.tags["classes"].split(",") if "classes" in run.data.tags else faces.classes
    images, labels = _faces_of_classes(faces, run.data.params["split"], classes)
    if dataset.digest(images, labels, classes=faces.classes) != run.data.tags["faces_digest"]:
        return None
    return images[rows, ..., 0]


def _network_name(trained_by: str | None, file: Path) -> str:
    """Name of the network's train run, or of its file."""
    try:
        return queries.get(trained_by, "train").info.run_name if trained_by else file.stem
    except InputError:  # its run was deleted
        return file.stem


def evaluation_note(
    settings: EvaluateSettings,
    run: Run,
    result: Metrics,
    unseen: Metrics | None,
    earlier: int,
    more: str = "",
) -> str:
    """Description of an evaluation: the result, what is weakest, and the command that repeats it.

    `unseen` are the metrics without copies of training images, `earlier` is the number of
    evaluations of the same images before, and `more` a paragraph after the first.
    """
    alone = "Each of them is a copy of a training image."
    if unseen:
        alone = (
            f"Without copies of training images: {percent(unseen.accuracy)} "
            f"({len(unseen.labels):,} images)."
        )
        if len(unseen.labels) == len(result.labels):
            alone = "None of them is a copy of a training image."
    present = [name for name in result.classes if result.by_class[name]["support"]]
    weakest = min(present, key=lambda name: result.by_class[name]["recall"])
    recall = percent(result.by_class[weakest]["recall"])
    given = replace(settings, data=run.dataset if settings.data else None)
    trained = run.data().tags["trained_by"]
    given = given if trained == "unknown" else replace(given, run=trained)
    return notes.paragraphs(
        f"**{settings.split.capitalize()} accuracy {percent(result.accuracy)}** "
        f"({interval(result.low, result.high)}, {len(result.labels):,} images)"
        f"{metrics.against(result)}. {alone}",
        more,
        f"It recognises *{weakest}* least often: recall {recall}. The most confident errors are in "
        f"`mistakes.png`. Earlier evaluations of these images: {earlier}.",
        notes.settings_note(given),
        f"Next: is it better than another one? `mlflow run . -e compare -P runs={run.id},OTHER`",
    )


def _tell_training(
    trained_by: str,
    run: Run,
    figures: Mapping[str, float],
    result: Metrics,
    more: str,
    faces: Dataset,
) -> None:
    """Put the figures on the training and its model card, too, if they are of its own dataset.

    `more` is a sentence beside the accuracy.
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
        f"({interval(result.low, result.high)}, {len(result.labels):,} images)"
        f"{metrics.against(result)}, in [its evaluation]({experiment.run_link(run.id)}). "
        f"{more}".rstrip()
    )
    training = Run(trained_by)
    training.log_metrics(figures)
    training.describe(notes.with_test_line(trained.data.tags.get(experiment.NOTE, ""), line))
    model_id = queries.logged_model(trained_by)
    if model_id and (card := queries.model_text(model_id, model_card.FILE)):
        card = model_card.with_figures(card, result, "test", more)
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
