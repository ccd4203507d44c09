"""The network behind MLflow's scoring server: checks faces, then predicts.

This file is copied into every logged model and imported from there, so it imports nothing of the
project. It takes the arrays and lists that users hold, and never changes a value: what it can't
take as it is, it refuses with one sentence and HTTP status 400.
"""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

SIDE = 48
BATCH = 256
ONE_FACE = ((SIDE, SIDE), (SIDE, SIDE, 1), (SIDE * SIDE,))
EXPECTED = "expected whole grey levels 0 to 255"


class RefusedFaces(MlflowException):
    """Faces that can't be taken; status 400. The scoring server's answer is the sentence alone."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        # The server puts the faces in front of `message`, as numbers.
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class ServedNetwork:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network

    def get_raw_model(self) -> keras.Model:
        return self._network

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Probabilities (N, classes) of faces; see `as_faces`."""
        faces = as_faces(data)
        return np.asarray(self._network.predict(faces, batch_size=BATCH, verbose=0))


def _load_pyfunc(path: str) -> ServedNetwork:
    """The network of the .keras file in the folder `path`; MLflow calls this by its name."""
    [file] = Path(path).rglob("*.keras")
    return ServedNetwork(keras.saving.load_model(file, compile=False))


def as_faces(data: Any) -> np.ndarray:
    """Faces as uint8 (N, 48, 48, 1).

    `data` is an array, nested lists or a table of whole numbers 0 to 255 of any integer or float
    type: (N, 48, 48, 1), (N, 48, 48), rows of pixels (N, 2304), or one face without the first axis.
    Raises RefusedFaces for another shape, for fractions, for values out of range, and for a face
    without a value above 1, which was probably divided by 255.
    """
    numbers = _shaped(_numbers(data))
    if numbers.dtype != np.uint8:
        if not np.isfinite(numbers).all():
            _refuse("a value is not a finite number")
        if (numbers < 0).any() or (numbers > 255).any():
            _refuse(f"values from {numbers.min():g} to {numbers.max():g}")
        if (numbers != np.floor(numbers)).any():
            _refuse("some values are fractions; do not divide by 255")
    dark = np.flatnonzero(numbers.max(axis=(1, 2, 3)) <= 1)
    if len(dark):
        _refuse(f"face {dark[0]} has no value above 1; do not divide by 255")
    return numbers.astype(np.uint8)


def _numbers(data: Any) -> np.ndarray:
    if isinstance(data, pd.DataFrame):
        names = list(map(str, data.columns))
        if names != list(map(str, range(len(names)))) and _is_number(names[0]):
            _refuse("the first row of the table has become its header; add one")
        data = data.to_numpy()
    try:
        numbers = np.asarray(data)
    except ValueError:  # lists of different lengths
        _refuse("the faces differ in shape")
    if numbers.dtype == object:  # a table of several types, or Python's large integers
        try:
            numbers = numbers.astype(np.float64)
        except (TypeError, ValueError):
            _refuse("some values are not numbers")
    if numbers.dtype.kind not in "iuf":
        _refuse("some values are not numbers")
    return numbers


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _shaped(numbers: np.ndarray) -> np.ndarray:
    if numbers.shape in ONE_FACE:
        numbers = numbers[np.newaxis]
    if numbers.ndim < 2 or numbers.shape[1:] not in ONE_FACE or len(numbers) == 0:
        raise RefusedFaces(
            f"faces of shape {numbers.shape}: expected (N, 48, 48, 1), (N, 48, 48) or (N, 2304)"
        )
    return numbers.reshape(-1, SIDE, SIDE, 1)


def _refuse(found: str) -> NoReturn:
    raise RefusedFaces(f"{EXPECTED}: {found}")
