"""Measure a trained network on the test split, once everything is chosen.

mlflow run . -e evaluate                                   the newest train run
python -m pipeline.evaluate --run models:/emotion@champion
python -m pipeline.evaluate --run network.keras --data INGEST_RUN_ID
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline import InputError, command
from pipeline.settings import NONE, EvaluateSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.dataset import Dataset
    from pipeline.tracking import Run


def evaluate(settings: EvaluateSettings, parent: "Run | None" = None) -> str:
    """Record an evaluation and return its run's id. The only reader of the test split."""
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from pipeline import dataset, evaluation, figures, networks, records, tracking

    file, trained_by = records.model_file(settings.run)
    address = _dataset_address(settings, trained_by)
    faces = dataset.load(records.dataset_folder(address))
    images, labels = faces.part(dataset.SPLITS.index(settings.split))
    if len(labels) == 0:
        raise InputError(f"data={address}: this dataset has no face in {settings.split}")
    model = networks.load(file)
    learnt, all_known = _learnt(trained_by, faces)

    with (
        tracking.record("evaluate", settings, parent=parent) as run,
        TemporaryDirectory() as scratch,
    ):
        # Of the measured faces alone: another split of the rest does not make them unseen again.
        digest = dataset.digest(images, labels)
        looks = records.evaluations(digest)
        run.use_dataset(faces, address, context=settings.split)
        run.tag(model=settings.run, trained_by=trained_by or "unknown")
        run.tag(learnt_all_known=all_known)
        run.tag(faces_digest=digest, earlier_looks=looks)  # this look counts from here on
        result = evaluation.evaluate(labels, networks.predict(model, images))
        run.log_metrics(evaluation.metrics(result, settings.split))
        unseen = dataset.unseen(images, learnt)
        if of_unseen := evaluation.subset(result, unseen):
            run.log_metrics({f"{settings.split}_accuracy_unseen": of_unseen.accuracy})
        run.log_text(evaluation.predictions_csv(result, unseen), "predictions.csv")
        run.log_evaluation(result, settings.split, Path(scratch))
        run.log_file(figures.mistakes(result, images, Path(scratch) / "mistakes.png"))

    print(evaluation.report_text(result))
    if of_unseen:
        print(f"without copies of training faces {evaluation.accuracy_text(of_unseen)}")
    if not all_known:
        print("not all faces that this network has learnt are known: some may be among these")
    print(f"the {settings.split} split of this dataset had been evaluated {looks} times before")
    print(f"evaluate run {run.id}")
    return run.id


def _dataset_address(settings: EvaluateSettings, trained_by: str | None) -> str:
    from pipeline import records

    if settings.data != NONE:
        return settings.data
    if trained_by is None:
        raise InputError(f"run={settings.run}: a bare file has no dataset of its own; give data=")
    return records.dataset_of(trained_by)


def _learnt(trained_by: str | None, faces: "Dataset") -> "tuple[NDArray, bool]":
    """Images (n, 48, 48, 1) that the network was trained on, and whether these are all.

    They are the train split of its run, and those of the network that it began with. Where no run
    is known, the train split of `faces` itself is taken.
    """
    import numpy as np

    from pipeline import dataset, records

    if trained_by in (None, "unknown"):
        return faces.part(dataset.TRAIN)[0], False
    tags = records.get(trained_by, "train").data.tags
    own = faces
    if tags["dataset_digest"] != faces.digest:
        own = dataset.load_without_test(records.dataset_folder(records.dataset_of(trained_by)))
    learnt = own.part(dataset.TRAIN)[0]
    if "start_trained_by" not in tags:
        return learnt, True
    try:
        earlier, all_known = _learnt(tags["start_trained_by"], faces)
    except InputError:  # its run was deleted, or its dataset is gone
        return learnt, False
    return np.concatenate([learnt, earlier]), all_known


if __name__ == "__main__":
    command.run(EvaluateSettings, evaluate)
