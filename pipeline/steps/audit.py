"""Audit of a dataset's labels by networks that did not learn them, for people to look at."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipeline.data import TRAIN, VALIDATION, dataset, splitting
from pipeline.data.dataset import Dataset
from pipeline.networks import files
from pipeline.percent import percent
from pipeline.reports import doubts, notes, plots
from pipeline.runs import addresses, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import AuditSettings, TrainSettings, recipe
from pipeline.steps.data import dataset_address
from pipeline.steps.train import use_device
from pipeline.training.fit import fit
from pipeline.training.progress import EpochProgress


def audit(settings: AuditSettings) -> str:
    """Record an audit of the train split and return its run's id; the test split is not read."""
    name = notes.joined("audit", settings.network, f"{settings.folds} folds")
    with tracking.record("audit", settings, name=name) as run, TemporaryDirectory() as scratch:
        address = dataset_address(settings.data, run)
        folder = addresses.dataset_folder(address)
        faces = dataset.load_without_test(folder)
        run.use_dataset(faces, address, context="audit")
        probabilities = _out_of_fold(settings, faces, run)
        is_train = faces.split == TRAIN
        doubted = doubts.table(
            dataset.rows(folder, TRAIN),
            faces.labels[is_train],
            probabilities,
            faces.classes,
            None if faces.votes is None else faces.votes[is_train],
        )
        run.log_text(doubted.to_csv(index=False, float_format="%.4g"), "doubts.csv")
        first = doubted.head(settings.faces)
        run.log_file(
            plots.captioned(
                faces.images[is_train][first.index],
                doubts.captions(first, faces.classes),
                "Most doubted labels: place in the dataset and label, then the network's class",
                Path(scratch) / "doubts.png",
            )
        )
        run.log_metrics(
            {
                "audit/flagged": float(doubted["flagged"].sum()),
                "audit/accuracy": float((doubted["label"] == doubted["predicted"]).mean()),
            }
        )
        text = doubts.text(doubted)
        run.describe(
            notes.paragraphs(
                f"**{text}.**",
                "`doubts.png` shows the most doubted ones and `doubts.csv` lists all. They are for "
                "people to look at: a network is no judge of labels.",
                notes.settings_note(replace(settings, data=address)),
            )
        )
    print(f"{text}\naudit run {run.id}")
    return run.id


def _out_of_fold(settings: AuditSettings, faces: Dataset, run: Run) -> NDArray[np.float32]:
    """Probabilities (n, classes) of the training faces, each by a network that has not seen it."""
    folds = splitting.folds(faces, settings.folds, settings.seed)
    train = np.flatnonzero(faces.split == TRAIN)
    one = replace(
        recipe(TrainSettings, settings.network),
        width=settings.width,
        epochs=settings.epochs,
        seed=settings.seed,
        threads=settings.threads,
        keep_epoch="last",  # nothing is chosen by the faces that are held out
        patience=0,
        targets="hard",
    )
    precision = use_device(one, run)
    found = np.empty((len(train), len(faces.classes)), np.float32)
    with EpochProgress(settings.folds * settings.epochs) as progress:
        for number, held_out in enumerate(folds):
            progress.before = number * settings.epochs
            split = np.where(np.isin(train, held_out), VALIDATION, TRAIN).astype(np.uint8)
            fold = replace(faces.take(train), split=split)
            result = fit(
                one,
                fold,
                precision=precision,
                on_epoch=[progress.on_epoch],
                on_batch=progress.on_batch,
            )
            if result.interrupted or result.model is None:
                raise KeyboardInterrupt
            images, labels = fold.part(VALIDATION)
            answers = files.predict(result.model, images)
            found[split == VALIDATION] = answers
            accuracy = float((answers.argmax(axis=1) == labels).mean())
            run.log_metrics({"fold/accuracy": accuracy}, step=number + 1)
            print(
                f"fold {number + 1} of {settings.folds}: {len(labels):,} faces held out, agrees "
                f"with {percent(accuracy)} of their labels"
            )
    return found
