"""Checkpoints: state of a training between two epochs, written atomically."""

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.networks import files
from pipeline.runs.metric_names import with_present_names
from pipeline.settings import Hyperparameters


@dataclass
class TrainState:
    """State of a training between two epochs: metrics of each epoch, and the weights to save."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[NDArray[Any]] = field(default_factory=list)

    def record(
        self, logs: dict[str, float], weights: list[NDArray[Any]], settings: Hyperparameters
    ) -> None:
        """Append an epoch; keep its weights if it is the best one, or if the last one is kept."""
        self.history.append(logs)
        metric = f"val/{settings.monitor}"
        sign = -1.0 if settings.monitor == "loss" else 1.0
        is_best = not self.best_epoch or (
            sign * logs[metric] > sign * self.history[self.best_epoch - 1][metric]
        )
        if settings.keep_epoch == "last" or is_best:
            self.best_epoch, self.best_weights = len(self.history), weights


def save(file: Path, variables: Sequence[Any], state: TrainState) -> None:
    """Write `file` atomically: if the process is killed, the previous checkpoint remains."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = json.dumps({"history": state.history, "best_epoch": state.best_epoch})
    arrays = {f"now_{i}": value for i, value in enumerate(files.get_state(variables))}
    arrays |= {f"best_{i}": value for i, value in enumerate(state.best_weights)}
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as out:
        np.savez(out, allow_pickle=False, about=np.array(about), **arrays)
        os.fsync(out.fileno())  # a power cut must not leave an empty file after the rename
    unfinished.replace(file)


def load(file: Path, variables: Sequence[Any], state: TrainState) -> None:
    """Set `variables` and `state` from `file`. Raises InputError if it can't be read."""
    with _open(file) as arrays:
        about = json.loads(str(arrays["about"]))
        files.set_state(variables, [arrays[f"now_{i}"] for i in range(len(variables))])
        best_count = sum(name.startswith("best_") for name in arrays)
        state.best_weights = [arrays[f"best_{i}"] for i in range(best_count)]
    state.history = [with_present_names(logs) for logs in about["history"]]
    state.best_epoch = about["best_epoch"]


def _open(file: Path) -> Any:
    try:
        return np.load(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: no checkpoint that can be read ({error}); train anew") from error
