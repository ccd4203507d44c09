"""Files of recorded trainings for the benchmark of the search.

    python -m benchmarks.pack --recorded FOLDER --out FOLDER

packs what `python -m benchmarks.record` has written so far, which may be a part, into
`wide_tune.npz`, to choose the search's own parameters by, and `wide_report.npz`, to report figures
from. Half of the settings are in each, with their repeats on other seeds; the recipe is in both.
`benchmarks/recorded.py` reads them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import json_to_distribution

from benchmarks import run
from benchmarks.record import ABOUT
from benchmarks.recorded import numbers
from pipeline.data import CLASSES
from pipeline.errors import InputError
from pipeline.settings import Hyperparameters
from search.methods.space import Space, max_small_epochs
from search.settings import SearchSettings

HALVES = ("tune", "report")
CHANCE = 1 / len(CLASSES)
"""Accuracy of a training that diverged, from then on."""


@dataclass(frozen=True)
class Packing:
    recorded: Path
    """Folder that `python -m benchmarks.record` writes to."""
    out: Path
    """Folder for the two files."""


def main(packing: Packing) -> None:
    about, trainings = read(packing.recorded)
    packing.out.mkdir(parents=True, exist_ok=True)
    for number, half in enumerate(HALVES):
        chosen = [one for one in trainings if half_of(one["of"]) in (number, None)]
        file = packing.out / f"wide_{half}.npz"
        np.savez_compressed(file, **arrays(about, chosen))
        settings = len({one["of"] for one in chosen})
        failed = sum(bool(one["error"]) for one in chosen)
        print(
            f"{file}: {len(chosen)} trainings of {settings} settings, {failed} of them failed, "
            f"{file.stat().st_size / 1000:.0f} kB"
        )


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a recording's trainings have in common, and those that are recorded, by number.

    Raises InputError if none of the recipe is.
    """
    files = sorted(folder.glob("[0-9]*.json"))
    trainings = [json.loads(file.read_text()) for file in files]
    if not any(one["kind"] == "recipe" for one in trainings):
        raise InputError(
            f"recorded={folder}: has no training of the recipe; python -m benchmarks.record makes "
            "it first"
        )
    return json.loads((folder / ABOUT).read_text()), trainings


def half_of(number: int) -> int | None:
    """The half that a setting belongs to, by the number of its first training; None: both.

    Uniform settings and mutations alternate, so that a half has every other pair of them.
    """
    return number // 2 % 2 if number else None


def arrays(about: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Trainings as the arrays that `benchmarks.recorded` reads."""
    space = {name: json_to_distribution(bounds) for name, bounds in about["space"].items()}
    common = {
        "bounds": about["space"],
        "when": about["when"],
        "start": about["start"],
        "small_epochs": small_epochs(about, Space(space)),
    }
    epochs = about["base"]["epochs"]
    return {
        "space": np.array(json.dumps(common)),
        "settings": np.array([numbers(space, one["point"]) for one in trainings], np.float32),
        "setting": np.array([one["of"] for one in trainings], np.int16),
        "seen": curves(trainings, "val_accuracy", epochs),
        "true": curves(trainings, "true_accuracy", epochs),
    }


def small_epochs(about: Mapping[str, Any], space: Space) -> int:
    """The most epochs at a smaller image size that one of the trainings may have."""
    names = Hyperparameters.fields()
    base = Hyperparameters(
        **{name: value for name, value in about["base"].items() if name in names}
    )
    return max_small_epochs(SearchSettings(epochs=base.epochs), space, base)


def curves(trainings: Sequence[Mapping[str, Any]], metric: str, epochs: int) -> NDArray[Any]:
    """A metric after each epoch, (trainings, epochs); a training that failed goes on at chance."""
    values = [list(one.get(metric, [])) for one in trainings]
    whole = [v + [CHANCE] * (epochs - len(v)) for v in values]
    return np.array(whole, np.float32)


if __name__ == "__main__":
    run(main, Packing)
