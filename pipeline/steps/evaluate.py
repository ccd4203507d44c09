"""Evaluation of a trained network on a split, usually test."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipeline.data import SPLITS, TRAIN, dataset
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.networks import files
from pipeline.reports import artifacts, metrics, plots
from pipeline.runs import addresses, queries, tracking
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
    training_images, all_known = _training_images(trained_by, faces)

    with (
        tracking.record("evaluate", settings, parent=parent) as run,
        TemporaryDirectory() as scratch,
    ):
        # The digest of the evaluated faces only: it counts their evaluations whatever the split of
        # the other faces.
        digest = dataset.digest(images, labels)
        earlier = queries.evaluations(digest)
        run.use_dataset(faces, address, context=settings.split)
        run.tag(model=settings.run, trained_by=trained_by or "unknown")
        run.tag(learnt_all_known=all_known)
        run.tag(faces_digest=digest, earlier_looks=earlier)
        result = metrics.compute(labels, files.predict(model, images))
        run.log_metrics(metrics.metrics(result, settings.split))
        unseen = dataset.unseen(images, training_images)
        if unseen_result := metrics.subset(result, unseen):
            run.log_metrics({f"{settings.split}/accuracy_unseen": unseen_result.accuracy})
        run.log_text(metrics.predictions_csv(result, unseen), "predictions.csv")
        artifacts.write(result, settings.split, Path(scratch))
        plots.mistakes(result, images, Path(scratch) / "mistakes.png")
        run.log_files(Path(scratch))

    print(metrics.classification_text(result))
    if unseen_result:
        print(f"without copies of training faces {metrics.accuracy_text(unseen_result)}")
    if not all_known:
        print("not all training faces of this network are known: some may be among these")
    print(f"the {settings.split} split of this dataset had been evaluated {earlier} times before")
    print(f"evaluate run {run.id}")
    return run.id


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
