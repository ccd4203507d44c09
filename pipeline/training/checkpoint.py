"""Checkpoints: state of a training between two epochs, written atomically."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, reason
from pipeline.networks import files
from pipeline.runs.metric_names import with_present_names
from pipeline.settings import Hyperparameters


@dataclass
class TrainState:
    """State of a training between two epochs: metrics of each epoch, and the weights to save."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[NDArray[Any]] = field(default_factory=list)
    resumed_from: int = 0
    """The last epoch of the checkpoint that this process began with; 0 if there was none."""
    seconds_before: float = 0.0
    """Seconds that earlier processes took up to that epoch."""
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds of training until now, those of earlier processes included."""
        return self.seconds_before + time.perf_counter() - self.began

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
    """Write `file` atomically: if the process is killed, the previous checkpoint remains.

    Another process may write it too, which takes this one for lost.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"history": state.history, "best_epoch": state.best_epoch}
    about["seconds"] = state.seconds
    arrays = {f"now_{i}": value for i, value in enumerate(files.get_state(variables))}
    arrays |= {f"best_{i}": value for i, value in enumerate(state.best_weights)}
    text = json.dumps(about | {"digest": _digest(about, arrays)})
    unfinished = file.with_suffix(f".{socket.gethostname()}-{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as out:
            np.savez(out, allow_pickle=False, about=np.array(text), **arrays)
            os.fsync(out.fileno())  # a power cut must not leave an empty file after the rename
    except OSError:  # a full disk
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(file)


def remove(file: Path) -> None:
    """Delete a checkpoint, and what a process left that was killed while it wrote one."""
    for found in (file, *file.parent.glob(f"{file.stem}.*.unfinished")):
        found.unlink(missing_ok=True)


def require_whole(file: Path) -> None:
    """Raise InputError if `file` is damaged, or was changed since `save` wrote it."""
    _read(file)


def load(file: Path, variables: Sequence[Any], state: TrainState) -> None:
    """Set `variables` and `state` from `file`. Raises InputError if it is not what was saved."""
    about, arrays = _read(file)
    now = [arrays[name] for name in _names(arrays, "now_")]
    if [array.shape for array in now] != [tuple(variable.shape) for variable in variables]:
        raise InputError(
            f"{file}: a checkpoint of another network or optimizer; remove it and train anew"
        )
    files.set_state(variables, now)
    state.best_weights = [arrays[name] for name in _names(arrays, "best_")]
    state.history = [with_present_names(logs) for logs in about["history"]]
    state.best_epoch = about["best_epoch"]
    state.resumed_from = len(state.history)
    state.seconds_before = about.get("seconds", 0.0)  # not in checkpoints of earlier versions


def _names(arrays: Mapping[str, Any], prefix: str) -> list[str]:
    return [f"{prefix}{i}" for i in range(sum(name.startswith(prefix) for name in arrays))]


def _read(file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `save` was given: its description, and its arrays by their names."""
    try:
        with np.load(file) as found:
            arrays = {name: found[name] for name in found}
        about = json.loads(str(arrays.pop("about")))
        whole = about.pop("digest") == _digest(about, arrays)
    # NumPy, zipfile and json raise a dozen types for a damaged file.
    except Exception as error:
        raise InputError(
            f"{file}: no checkpoint that can be read ({reason(error)}); remove it and train anew"
        ) from error
    if not whole:
        raise InputError(
            f"{file}: a checkpoint that was changed since it was written; remove it and train anew"
        )
    return about, arrays


def _digest(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the description and over name, type, shape and bytes of each array."""
    sha = hashlib.sha256(json.dumps(about).encode())
    for name, array in arrays.items():
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
