"""A network in an ONNX file: loading and predicting, without Keras."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.data import CLASSES, SIDE
from pipeline.data.archives import open_regular, readable
from pipeline.errors import InputError, reason

LARGEST = 1 << 30
"""Bytes of the largest file that is loaded."""
BATCH = 64
"""Faces at a time; with six views the largest layer of `strong` takes 0.5 GB for them."""
SILENT = 4
"""Log level of ONNX Runtime at which its errors are raised but not also printed."""


class Network:
    """A network that returns a probability of each of its `classes` for each face."""

    def __init__(self, session: Any) -> None:
        self.classes = _classes(session)
        self._session = session
        self._input = session.get_inputs()[0].name

    def predict(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (N, classes) of `images` (N, 48, 48, 1), grey levels 0 to 255."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        answers = [self._run(part.astype(np.float32)) for part in parts]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *answers])

    def _run(self, images: NDArray[np.float32]) -> Any:
        return self._session.run(None, {self._input: images})[0]


def _classes(session: Any) -> tuple[str, ...]:
    """The names that `quantize.describe` wrote into the file; FER2013's where it did not."""
    names = session.get_modelmeta().custom_metadata_map.get("classes")
    return tuple(names.split(",")) if names else CLASSES


def load(file: Path, threads: int = 0) -> Network:
    """Load the network of an ONNX file; it computes with `threads`, 0 being one for each core.

    Raises InputError if it is none, or does not return probabilities for faces.
    """
    with readable(file), open_regular(file) as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InputError(f"{file}: more than {LARGEST >> 20} MB")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = SILENT
    try:
        # From memory, so that a file can't name others that hold its weights.
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        network = Network(session)
        inputs, outputs = (
            [(found.type, list(found.shape[1:])) for found in all_found]
            for all_found in (session.get_inputs(), session.get_outputs())
        )
    except Exception as error:  # of a dozen types, most of them of the compiled library
        raise InputError(f"{file}: ONNX Runtime can't load it ({reason(error, 150)})") from error
    expected = [("tensor(float)", [SIDE, SIDE, 1])], [("tensor(float)", [len(network.classes)])]
    if (inputs, outputs) != expected:
        raise InputError(
            f"{file}: takes {inputs} and returns {outputs}; "
            f"expected float (N, {SIDE}, {SIDE}, 1) and (N, {len(network.classes)})"
        )
    faces = np.arange(2 * SIDE * SIDE).reshape(2, SIDE, SIDE, 1) % 256
    try:
        answers = network.predict(faces)
    except Exception as error:
        raise InputError(f"{file}: does not compute ({reason(error, 150)})") from error
    sums = answers.sum(axis=1)
    if not (len(answers) == 2 and answers.min() >= 0 and np.allclose(sums, 1, atol=0.01)):
        raise InputError(f"{file}: returns no probabilities")
    return network
