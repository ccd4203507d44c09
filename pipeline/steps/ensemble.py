"""Ensemble of trained networks: one .keras file, compared with its members on validation."""

import shutil
from collections.abc import Iterable
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from pipeline.data import VALIDATION, dataset, votes
from pipeline.errors import InputError
from pipeline.networks import ensemble as networks
from pipeline.networks import files, learnt
from pipeline.networks.learnt import Learnt
from pipeline.percent import percent
from pipeline.reports import metrics, model_card, notes
from pipeline.runs import addresses, tracking
from pipeline.settings import EnsembleSettings

UNKNOWN = Learnt(np.empty(0, np.uint64), complete=False)
"""Training images of a file that does not name them."""


def ensemble(settings: EnsembleSettings) -> str:
    """Write the file and record its accuracy beside its members'; the id of the run.

    It is measured on the validation images that no member was trained on, as far as is known.
    Raises InputError for members with different classes, or if no such image is left.
    """
    members, trained_by = addresses.model_files(settings.run)
    address = addresses.dataset_to_evaluate(settings, trained_by)
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    _require_classes(members, faces.classes, address)
    known = reduce(Learnt.with_earlier, [learnt.read(file) or UNKNOWN for file in members.values()])
    images, labels = faces.part(VALIDATION)
    unseen = known.unseen(images)
    if not unseen.any():
        raise InputError(
            f"data={address}: each of its validation images was a training image of a member; give "
            "another dataset"
        )
    images, labels = images[unseen], labels[unseen]
    target = Path(settings.file)
    if any(target.resolve() == file.resolve() for file in members.values()):
        raise InputError(f"file={target}: is one of the networks; give another name")
    with (
        tracking.record("ensemble", settings, name=notes.joined("ensemble", target.stem)) as run,
        TemporaryDirectory() as scratch,
    ):
        run.use_dataset(faces, address, context="validation")
        models = {name: files.load(file) for name, file in members.items()}
        against = votes.AGAINST["hard"] if faces.votes is not None else ""
        compute = partial(metrics.compute, labels, classes=faces.classes, against=against)
        each = {name: compute(files.predict(model, images)) for name, model in models.items()}
        network = networks.mean(list(models.values()))
        whole = compute(files.predict(network, images))
        accuracies = {name: one.accuracy for name, one in each.items()}
        text = (
            f"validation accuracy {metrics.accuracy_text(whole)}, "
            f"its members {', '.join(map(percent, accuracies.values()))}"
        )
        count, parameters = len(known.hashes), network.count_params()
        card = model_card.ensemble_card(
            whole, accuracies, count, parameters, all_known=known.complete
        )
        file = Path(scratch) / target.name
        network.save(file)
        learnt.add(file, card, known, faces.classes)
        run.log_file(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        run.log_metrics({"val/accuracy": whole.accuracy})
        table = pd.DataFrame({"member": accuracies.keys(), "val/accuracy": accuracies.values()})
        run.log_text(table.to_csv(index=False), "members.csv")
        run.describe(
            notes.paragraphs(
                f"**{text[0].upper()}{text[1:]}.**",
                notes.settings_note(settings),
                "Next: measure it on the test images, when nothing is left to choose: "
                f"`mlflow run . -e evaluate -P run={target} -P data={address}`",
            )
        )
    print(text)
    if not known.complete:
        print("not all training images of its members are known: some may be among these")
    print(f"{target}: {len(members)} networks, {target.stat().st_size / 1e6:.1f} MB")
    print(f"ensemble run {run.id}")
    return run.id


def _require_classes(members: dict[str, Path], classes: Iterable[str], address: str) -> None:
    """Raise InputError for a member with other classes than those of the dataset at `address`."""
    for name, file in members.items():
        if learnt.classes(file) != tuple(classes):
            raise InputError(
                f"run={name}: reads {', '.join(learnt.classes(file))}; data={address} has "
                f"{', '.join(classes)}"
            )
