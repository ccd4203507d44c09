"""Profile of a training step on a CPU, without and with the project's optimizations.

    python -m benchmarks.step --data INGEST_RUN_ID_OR_FOLDER

Each row trains the network in a new process: without oneDNN (TensorFlow's default on a processor
without AVX-512), with it, with fused batch normalisation, and in bfloat16 if the processor supports
it; with images of 48 and of 32 pixels. TensorFlow's profiler then traces a few steps, and the
seconds are summed by kind of operation. The second table shows the input pipeline on one core.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import processor
from pipeline.data import SIDE, dataset, splitting
from pipeline.data.batches import TrainBatches
from pipeline.data.dataset import Dataset
from pipeline.networks import build as networks
from pipeline.runs import addresses
from pipeline.settings import TrainSettings, recipe
from pipeline.training import device
from pipeline.training.fit import fit
from pipeline.training.losses import make_loss
from pipeline.training.optimizers import make_optimizer

REST = "rest"
STEPS = 8  # traced steps
INSIDE = "StatefulPartitionedCall/"  # prefix of the name of every operation of a compiled step
KINDS = {  # by a part of an operation's name, which contains the layer's name
    "Conv2DBackpropFilter": "gradients of filters",
    "/conv2d": "other convolution",
    "batch_normalization": "batch normalisation",
    "/adam": "optimizer",
    "/sgd": "optimizer",
}
INPUTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "flip": {"flip": True},
    "shift, zoom, rotate": {"shift": 3, "zoom": 0.1, "rotate": 10.0},
    "cutout": {"cutout": 12},
    "mixup": {"mixup": 0.2},
}


@dataclass(frozen=True)
class Profile:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    network: str = "compact"
    """Network to train."""
    faces: int = 3000
    """Training faces of a row."""
    row: Literal["all", "one"] = "all"
    """one: measure one row and print it (used by the benchmark itself)."""
    precision: str = "float32"
    """Precision of that row."""
    side: int = SIDE
    """Image size of that row, in pixels."""
    fused: bool = True
    """Whether that row uses the fused batch normalisation instead of Keras'."""


def main(profile: Profile) -> None:
    if profile.row == "one":
        print(json.dumps(measure(profile)))
        return
    rows = Table("oneDNN", "normalisation", "precision", "side", "faces/s", "shares of the time")
    for onednn, fused, precision in _configurations():
        for side in (SIDE, 32):
            row = replace(profile, row="one", precision=precision, side=side, fused=fused)
            found = _in_a_process(row, onednn)
            shares = ", ".join(f"{kind} {share:.0%}" for kind, share in found["shares"].items())
            normalisation = "fused" if fused else "Keras'"
            rows.add_row(
                onednn, normalisation, precision, str(side), f"{found['speed']:.0f}", shares
            )
    inputs = Table("input", "faces/s")
    for name, speed in _inputs(profile):
        inputs.add_row(name, f"{speed:,.0f}")
    Console(width=130).print(rows, inputs, f"{profile.network}, {processor()}")


def _configurations() -> list[tuple[str, bool, str]]:
    rows: list[tuple[str, bool, str]] = [
        ("off", False, "float32"),
        ("on", False, "float32"),
        ("on", True, "float32"),
    ]
    if device.describe(0).bfloat16:
        rows += [("on", False, "bfloat16"), ("on", True, "bfloat16")]
    return rows


def _in_a_process(row: Profile, onednn: str) -> dict[str, Any]:
    options = [word for name, value in asdict(row).items() for word in (f"--{name}", str(value))]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1" if onednn == "on" else "0"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.step", *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(row: Profile) -> dict[str, Any]:
    """Faces a second after the first epoch, and the share of each kind of operation."""
    if not row.fused:
        vars(networks)["FusedBatchNormalization"] = keras.layers.BatchNormalization
    faces = _faces(row)
    settings = replace(
        recipe(TrainSettings, row.network),
        epochs=2,
        image_size=row.side,
        resize_at=1.0,
        max_train_faces=row.faces,
    )
    speeds: list[float] = []
    fit(
        settings,
        faces,
        precision=row.precision,
        on_epoch=[lambda epoch, logs: speeds.append(logs["time/images_per_second"])],
    )
    return {"speed": speeds[-1], "shares": _shares(settings, faces, row.precision)}


def _shares(settings: TrainSettings, faces: Dataset, precision: str) -> dict[str, float]:
    batches = TrainBatches(faces, settings)
    model = networks.build(settings, precision=precision, to_train=True)
    model.compile(make_optimizer(settings, steps=100), make_loss(settings))
    few = [batches[index] for index in range(STEPS)]
    images, targets = (np.concatenate(part) for part in zip(*few, strict=True))
    train = functools.partial(model.fit, images, targets, settings.batch_size, verbose=0)
    train()  # compilation is not part of a step
    seconds = dict.fromkeys([*KINDS.values(), REST], 0.0)
    for operation, duration in _traced(train):
        seconds[_kind(operation)] += duration
    if not any(seconds.values()):
        raise SystemExit("no operation was traced: this needs TensorFlow, computing on a CPU")
    return {kind: part / sum(seconds.values()) for kind, part in seconds.items()}


def _traced(run: Callable[[], Any]) -> Iterator[tuple[str, float]]:
    """Name and seconds of every operation that TensorFlow computes in `run`."""
    # Keras has no profiler API, and only TensorFlow can read the profile's format.
    from tensorflow.profiler import experimental as profiler
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with profiler.Profile(folder):
            run()
        for file in Path(folder).rglob("*.xplane.pb"):
            for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes:
                for line in plane.lines:
                    for event in line.events:
                        name = plane.event_metadata[event.metadata_id].name
                        if name.startswith(INSIDE):
                            yield name, event.duration_ps / 1e12


def _kind(operation: str) -> str:
    return next((kind for part, kind in KINDS.items() if part in operation), REST)


def _inputs(profile: Profile) -> Iterator[tuple[str, float]]:
    faces = _faces(profile)
    base = recipe(TrainSettings, profile.network)
    rows = {name: TrainSettings(**change) for name, change in INPUTS.items()}
    rows[f"{profile.network}'s recipe"] = base
    rows["the same at 48 pixels"] = replace(base, image_size=SIDE)
    for name, settings in rows.items():
        batches = TrainBatches(faces, replace(settings, batch_size=base.batch_size))
        batches[0]  # numba compiles
        start = time.perf_counter()
        for index in range(len(batches)):
            batches[index]
        yield name, len(batches.images) / (time.perf_counter() - start)


def _faces(profile: Profile) -> Dataset:
    faces = dataset.load_without_test(addresses.dataset_folder(profile.data))
    return splitting.subsample(faces, profile.faces, seed=0)


if __name__ == "__main__":
    main(tyro.cli(Profile))
