"""Time to the report's accuracy: a network of this project and the report's recipe.

    python -m benchmarks.time_to_accuracy --data INGEST_RUN_ID_OR_FOLDER

Both train on the same faces and are evaluated on their validation split. The project's network
trains until an epoch reaches the target. The report's recipe (60 epochs, batch 16, Adam at 0.0002,
float32) takes hours; without --whole it trains on --report_faces faces, and its time is
extrapolated: seconds a face times the faces of 60 epochs, after which the report had 61.7 %. The
time of the project's network includes its construction and validation, the extrapolated one
neither; both exclude imports.
"""

import time
from dataclasses import dataclass, replace

import keras
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import processor
from pipeline.data import TRAIN, dataset, splitting
from pipeline.data.dataset import Dataset
from pipeline.runs import addresses
from pipeline.settings import TrainSettings, recipe
from pipeline.training import device
from pipeline.training.fit import fit

REPORT = TrainSettings(epochs=60, batch_size=16, lr=0.0002, patience=0)


@dataclass(frozen=True)
class Race:
    data: str = "latest"
    """A dataset folder, an ingest run's id, or latest."""
    target: float = 0.617
    """Validation accuracy to reach: the report's best on its test set."""
    network: str = "compact"
    """Network of this project."""
    epochs: int = 12
    """Epochs of its schedule, which must be enough to reach the target."""
    seed: int = 0
    """Seed of both trainings."""
    report_faces: int = 2000
    """Faces of the epoch from which the report's time is extrapolated."""
    whole: bool = False
    """Train the report's recipe to the target too, which takes hours."""


class ReachedTarget(Exception):  # noqa: N818  # not an error
    pass


def seconds_to_target(
    settings: TrainSettings, faces: Dataset, target: float, precision: str
) -> tuple[float, int] | None:
    """Seconds and epochs until `target`; None if the training ends without reaching it."""
    start = time.perf_counter()
    reached = 0

    def check(epoch: int, logs: dict[str, float]) -> None:
        nonlocal reached
        print(f"  epoch {epoch}: {logs['val/accuracy']:.3f}", flush=True)
        if logs["val/accuracy"] >= target:
            reached = epoch
            raise ReachedTarget

    try:
        if fit(settings, faces, precision=precision, on_epoch=[check]).interrupted:
            raise KeyboardInterrupt
    except ReachedTarget:
        return time.perf_counter() - start, reached
    return None


def extrapolated(settings: TrainSettings, faces: Dataset, count: int) -> float:
    """Seconds of all epochs of `settings`, extrapolated from the second epoch on `count` faces."""
    speeds: list[float] = []
    fit(
        replace(settings, epochs=2),
        splitting.subsample(faces, count, settings.seed),
        precision="float32",
        on_epoch=[lambda epoch, logs: speeds.append(logs["time/images_per_second"])],
    )
    return settings.epochs * int((faces.split == TRAIN).sum()) / speeds[-1]


def main(race: Race) -> None:
    faces = dataset.load_without_test(addresses.dataset_folder(race.data))
    precision = device.choose_precision("auto", device.describe(device.use_threads(0)))
    ours = replace(recipe(TrainSettings, race.network), epochs=race.epochs, seed=race.seed)
    print(f"{race.network}, {precision}")
    result = seconds_to_target(ours, faces, race.target, precision)
    if result is None:
        raise SystemExit(f"{race.network} does not reach {race.target} in {race.epochs} epochs")
    seconds, epochs = result

    report = replace(REPORT, seed=race.seed)
    said = f"extrapolated from an epoch of {race.report_faces:,} faces to {report.epochs} epochs"
    print("the report's recipe, float32")
    if race.whole:
        reached = seconds_to_target(report, faces, race.target, "float32")
        if reached is None:
            raise SystemExit(f"the report's recipe does not reach {race.target}")
        theirs, said = reached[0], f"reached after {reached[1]} epochs"
    else:
        theirs = extrapolated(report, faces, race.report_faces)

    table = Table("side", "minutes", "ratio", "how", title=f"to {race.target:.1%} on validation")
    table.add_row(race.network, f"{seconds / 60:.1f}", "1", f"reached after {epochs} epochs")
    table.add_row("the report's recipe", f"{theirs / 60:.1f}", f"{theirs / seconds:.0f}", said)
    Console(width=120).print(table, f"{processor()}, Keras {keras.__version__}")


if __name__ == "__main__":
    main(tyro.cli(Race))
