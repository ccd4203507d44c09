"""Recorded trainings of the wide search space: learning curves for the benchmark of the search.

    python -m benchmarks.record --out FOLDER --source fer2013.csv

Records some 240 settings of `compact` at a quarter of its width: every other one is drawn uniformly
from search/spaces/wide.yaml, the others are mutations of the recipe, which is the first. 40
trainings repeat one of them on another seed. Each trains 20 epochs on 2,000 faces, as a trial of a
study does, and is judged after each epoch on 1,000 faces, which a search may see, and on 2,000
others, which tell how good it is. All faces come from the Training part of the source, and none is
a copy of another.

A training is written to FOLDER as soon as it ends, and the same command continues an interrupted
recording. The order mixes all kinds of settings, so that a part of a recording is a smaller one.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray
from optuna.distributions import distribution_to_json
from sklearn.model_selection import train_test_split

from benchmarks import processor, run
from pipeline.data import CLASSES, TRAIN, UNASSIGNED, VALIDATION, sources
from pipeline.data.dataset import Bytes, Dataset, digest, face_ids
from pipeline.errors import InputError, TrainingError
from pipeline.networks import files
from pipeline.settings import TrainSettings
from pipeline.training import device
from pipeline.training.fit import fit
from search.jobs import job
from search.methods.space import Point
from search.methods.unit_cube import UnitCube
from search.settings import SearchSettings
from search.studies.plan import Plan

STUDY = SearchSettings(
    network="compact", width=0.25, epochs=20, space="wide", fix="width=0.25 epochs=20", workers=1
)
"""The study whose trials are recorded."""
FACES = {"train": 2000, "seen": 1000, "true": 2000}
"""Faces to train on, to judge by as a search does, and to measure the true accuracy on."""
SPARE = 1.02
"""So many times as many faces are drawn, since copies are left out."""
COPY = 0.98
"""Correlation of the grey levels above which a face is a copy of another, saved anew."""
RECIPE_EVERY = 10
"""Of so many repeats the first is the recipe's."""
ABOUT = "about.json"
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Recording:
    out: Path
    """Folder for the recorded trainings."""
    source: str = "sample"
    """Source of the faces, as in ingest."""
    workers: int = 2
    """Trainings at a time, with one thread each, at the lowest priority."""
    settings: int = 240
    """Settings to train, the recipe included."""
    repeats: int = 40
    """Trainings that repeat one of them on another seed."""
    seed: int = 0
    """Seed of the settings and of the choice of faces."""


@dataclass(frozen=True)
class Planned:
    """A training to record: its number in the recording, and its point of the space."""

    number: int
    kind: Literal["recipe", "near", "uniform"]
    of: int
    """Number of the training that has the same point on seed 0, its own if it is that."""
    seed: int
    point: Point

    def file(self, folder: Path) -> Path:
        return folder / f"{self.number:04d}.json"


@dataclass(frozen=True)
class Judged:
    """Faces to train on and to judge by, and more of them that tell the true accuracy."""

    faces: Dataset
    images: Bytes
    labels: Bytes


class TrueAccuracy(keras.callbacks.Callback):
    """Callback that measures the network, as it is validated after each epoch, on more faces."""

    def __init__(self, images: Bytes, labels: Bytes) -> None:
        super().__init__()
        self.images, self.labels = images, labels
        self.values: list[float] = []

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        found = files.predict(self.model, self.images).argmax(axis=1)
        self.values.append(float((found == self.labels).mean()))


def main(recording: Recording) -> None:
    lower_priority()
    plan = Plan(STUDY, data="", start={})
    judged = choose_faces(recording.source, recording.seed)
    begin(recording, plan, judged)
    todo = list(islice(planned(plan, recording), recording.settings + recording.repeats))
    missing = [one for one in todo if not one.file(recording.out).exists()]
    print(f"{len(todo) - len(missing)} of {len(todo)} trainings are recorded", flush=True)
    lock, started = threading.Lock(), time.monotonic()
    left = len(missing)

    def record(one: Planned, stop: threading.Event) -> None:
        nonlocal left
        settings = replace(plan.training(one.point), seed=one.seed, threads=1)
        outcome = job.run(train, settings, judged, stop=stop)
        if outcome.kind == "failed":  # by itself: it would fail again
            outcome = job.Outcome("returned", {"true_accuracy": [], "error": outcome.text})
        if outcome.kind == "killed":
            print(f"training {one.number}: {outcome.text}; the same command repeats it", flush=True)
            return
        result = job.value_of(outcome, f"training {one.number}")
        write(one.file(recording.out), asdict(one) | result)
        with lock:
            left -= 1
            seconds = (time.monotonic() - started) / (len(missing) - left) * left
        best = max(result["true_accuracy"], default=0)
        print(
            f"{len(todo) - left} of {len(todo)}: training {one.number} ({one.kind}) true accuracy "
            f"{best:.3f} {result['error']}, {result.get('cpu_seconds', 0):.0f} s of a core, "
            f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f} left",
            flush=True,
        )

    job.run_parallel(recording.workers, record, missing)


def lower_priority() -> None:
    """Give this process, and those that it starts, the lowest priority."""
    if hasattr(os, "nice"):
        os.nice(19)


def choose_faces(source: str, seed: int) -> Judged:
    """The faces of a recording, stratified by class, of copies of the same face one.

    Raises InputError if the source has too few.
    """
    faces = sources.read(source, seed)
    training = np.flatnonzero(np.isin(faces.split, (TRAIN, UNASSIGNED)))
    _, first = np.unique(face_ids(faces.images[training]), return_index=True)
    rows, wanted = training[np.sort(first)], sum(FACES.values())
    if len(rows) < SPARE * wanted + len(CLASSES):
        raise InputError(
            f"source={source}: has {len(rows):,} different training faces; a recording needs "
            f"{SPARE * wanted + len(CLASSES):,.0f}"
        )
    rows = _draw(rows, round(SPARE * wanted), faces.labels, seed)[0]
    rows = rows[are_different(faces.images[rows])]
    if len(rows) < wanted + len(CLASSES):
        raise InputError(f"source={source}: too many of its faces are copies of others")
    parts = {}
    for name, count in FACES.items():
        parts[name], rows = _draw(rows, count, faces.labels, seed)
    used = np.concatenate([parts["train"], parts["seen"]])
    split = np.repeat(np.array([TRAIN, VALIDATION], np.uint8), [FACES["train"], FACES["seen"]])
    images, labels = faces.images[used], faces.labels[used]
    about = {"source": source, "digest": digest(images, labels, split)}
    true = parts["true"]
    dataset = Dataset(images, labels, split, about)
    return Judged(dataset, faces.images[true][..., np.newaxis], faces.labels[true])


def _draw(rows: Rows, count: int, labels: Bytes, seed: int) -> tuple[Rows, Rows]:
    """`count` of the rows, stratified by class, and the others."""
    drawn, others = train_test_split(
        rows, train_size=count, random_state=seed, stratify=labels[rows]
    )
    return drawn, others


def are_different(images: Bytes) -> NDArray[np.bool_]:
    """Mask (N,) of the images (N, 48, 48) that no earlier one is a copy of, up to compression."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return np.asarray(~np.tril(flat @ flat.T > COPY, -1).any(axis=1))


def begin(recording: Recording, plan: Plan, judged: Judged) -> None:
    """Make the folder, with all that its trainings have in common.

    Raises InputError if it is that of another recording.
    """
    space = plan.space
    about = {
        "seed": recording.seed,
        "settings": recording.settings,
        "repeats": recording.repeats,
        "faces": FACES,
        "digest": digest(judged.faces.images, judged.images, judged.labels),
        "space": {name: distribution_to_json(bounds) for name, bounds in space.bounds.items()},
        "when": {name: list(condition) for name, condition in space.when.items()},
        "start": space.complete({}, plan.base),
        "base": {**asdict(plan.base), **space.fixed},
    }
    file = recording.out / ABOUT
    if not file.exists():
        recording.out.mkdir(parents=True, exist_ok=True)
        write(file, about)
    elif changed := [k for k, v in json.loads(file.read_text()).items() if v != about[k]]:
        raise InputError(
            f"out={recording.out}: was begun with other {', '.join(changed)}; give another folder"
        )


def planned(plan: Plan, recording: Recording) -> Iterator[Planned]:
    """The trainings of a recording in their order: settings, and after some a repeat of one."""
    space = plan.space
    cube = UnitCube(space.bounds, space.when)
    recipe = space.complete({}, plan.base)
    every = recording.settings // max(1, recording.repeats)
    firsts: list[Planned] = []
    repeats = 0
    for k in range(recording.settings):
        rng = np.random.default_rng([recording.seed, k])
        if k == 0:
            first = Planned(0, "recipe", 0, 0, recipe)
        elif k % 2:
            point = cube.params(cube.uniform(rng, 1)[0])
            first = Planned(k + repeats, "uniform", k + repeats, 0, point)
        else:
            point = mutation(cube, recipe, rng)
            first = Planned(k + repeats, "near", k + repeats, 0, point)
        yield first
        firsts.append(first)
        if repeats < recording.repeats and (k + 1) % every == 0:
            again, seed = (
                (firsts[0], 1 + repeats // RECIPE_EVERY)
                if repeats % RECIPE_EVERY == 0
                else (firsts[-1 - repeats % 2], 1)
            )
            repeats += 1
            yield replace(again, number=k + repeats, seed=seed)


def mutation(cube: UnitCube, recipe: Point, rng: np.random.Generator) -> Point:
    """A point around the recipe: two to some twelve of its values are changed, little or much."""
    step = 0.5 * 10 ** -rng.random(1)
    share = rng.choice([0.1, 0.3, 0.6], 1)
    return cube.params(cube.mutate(cube.nearest(recipe)[None], rng, step, share)[0])


def train(send: job.Send, settings: TrainSettings, judged: Judged) -> dict[str, Any]:
    """A training's metrics, lists with a value an epoch; fewer, and an error, if it diverged."""
    computer = device.describe(device.use_threads(settings.threads))
    precision = device.choose_precision(settings.precision, computer)
    judge = TrueAccuracy(judged.images, judged.labels)
    history: list[dict[str, float]] = []
    error = ""
    try:
        result = fit(
            settings,
            judged.faces,
            precision=precision,
            on_epoch=[lambda epoch, logs: history.append(logs)],
            callbacks=[judge],
        )
        if result.interrupted:
            raise KeyboardInterrupt
    except TrainingError as reason:
        error = str(reason)
    names = [name for name in (history[0] if history else {}) if name.startswith(("train", "val"))]
    return {
        **{name.replace("/", "_"): [round(logs[name], 5) for logs in history] for name in names},
        "true_accuracy": judge.values[: len(history)],
        "error": error,
        "cpu_seconds": round(time.process_time(), 1),
        "processor": processor(),
    }


def write(file: Path, content: dict[str, Any]) -> None:
    """Write a file of which no reader sees a part."""
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content) + "\n")
    unfinished.replace(file)


if __name__ == "__main__":
    try:
        run(main, Recording)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        sys.exit(130)
