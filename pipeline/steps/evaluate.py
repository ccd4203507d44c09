"""Evaluate: measure a trained network on a split, usually test."""

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
    """Record an evaluation and return its run's id. The only reader of the test split."""
    file, trained_by = addresses.model_file(settings.run)
    address = addresses.dataset_to_evaluate(settings, trained_by)
    faces = dataset.load(addresses.dataset_folder(address))
    images, labels = faces.part(SPLITS.index(settings.split))
    if len(labels) == 0:
        raise InputError(f"data={address}: this dataset has no face in {settings.split}")
    model = files.load(file)
    learnt, all_known = _learnt(trained_by, faces)

    with (
        tracking.record("evaluate", settings, parent=parent) as run,
        TemporaryDirectory() as scratch,
    ):
        # Of the measured faces alone: another split of the rest does not make them unseen again.
        digest = dataset.digest(images, labels)
        looks = queries.evaluations(digest)
        run.use_dataset(faces, address, context=settings.split)
        run.tag(model=settings.run, trained_by=trained_by or "unknown")
        run.tag(learnt_all_known=all_known)
        run.tag(faces_digest=digest, earlier_looks=looks)  # this look counts from here on
        result = metrics.compute(labels, files.predict(model, images))
        run.log_metrics(metrics.metrics(result, settings.split))
        unseen = dataset.unseen(images, learnt)
        if of_unseen := metrics.subset(result, unseen):
            run.log_metrics({f"{settings.split}_accuracy_unseen": of_unseen.accuracy})
        run.log_text(metrics.predictions_csv(result, unseen), "predictions.csv")
        artifacts.write(result, settings.split, Path(scratch))
        plots.mistakes(result, images, Path(scratch) / "mistakes.png")
        run.log_files(Path(scratch))

    print(metrics.report_text(result))
    if of_unseen:
        print(f"without copies of training faces {metrics.accuracy_text(of_unseen)}")
    if not all_known:
        print("not all faces that this network has learnt are known: some may be among these")
    print(f"the {settings.split} split of this dataset had been evaluated {looks} times before")
    print(f"evaluate run {run.id}")
    return run.id


def _learnt(trained_by: str | None, faces: Dataset) -> tuple[NDArray, bool]:
    """Images (n, 48, 48, 1) that the network was trained on, and whether these are all.

    They are the train split of its run, and those of the network that it began with. Where no run
    is known, the train split of `faces` itself is taken.
    """
    if trained_by in (None, "unknown"):
        return faces.part(TRAIN)[0], False
    tags = queries.get(trained_by, "train").data.tags
    own = faces
    if tags["dataset_digest"] != faces.digest:
        own = dataset.load_without_test(addresses.dataset_folder(addresses.dataset_of(trained_by)))
    learnt = own.part(TRAIN)[0]
    if "start_trained_by" not in tags:
        return learnt, True
    try:
        earlier, all_known = _learnt(tags["start_trained_by"], faces)
    except InputError:  # its run was deleted, or its dataset is gone
        return learnt, False
    return np.concatenate([learnt, earlier]), all_known
