"""Networks of 8-bit integers, and what an ONNX file says about itself. Needs the extra `export`."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

CALIBRATION_FACES = 256
BATCH = 32
"""Faces at a time during the calibration, which keeps what every layer returns for them."""
OPERATIONS = [
    "Add", "AveragePool", "Clip", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Relu",
]  # fmt: skip
"""What is computed in 8 bits. Not the softmax, whose probabilities would be multiples of 1/256."""


class _Faces(CalibrationDataReader):
    """Faces (N, 48, 48, 1) as ONNX Runtime asks for them."""

    def __init__(self, name: str, images: NDArray[np.uint8]) -> None:
        batches = np.array_split(images.astype(np.float32), -(-len(images) // BATCH))
        self._batches = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def quantize(source: Path, target: Path, images: NDArray[np.uint8]) -> None:
    """Write the network of `source` with weights and activations of 8 bits to `target`.

    Static quantization: each channel of the weights has a scale, and the range of an activation is
    that on `images` (N, 48, 48, 1), which must be training faces. Weights have 7 bits, since the
    sums of two products overflow with 8 on processors without VNNI.
    """
    with TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        name = onnx.load(prepared).graph.input[0].name
        quantize_static(
            prepared, target, _Faces(name, images), quant_format=QuantFormat.QDQ, per_channel=True,
            reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=OPERATIONS,
        )  # fmt: skip


def describe(file: Path, about: Mapping[str, str]) -> None:
    """Put `about` into the metadata of an ONNX file."""
    network = onnx.load(file)
    onnx.helper.set_model_props(network, dict(about))
    onnx.save(network, file)
