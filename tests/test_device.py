"""Tests of the device's description and of the self-test."""

from dataclasses import replace
from typing import Any

import pytest
from keras import ops

from pipeline.errors import TrainingError
from pipeline.training import device
from pipeline.training.self_test import check_convolution, check_overfitting, self_test


def test_the_self_test_passes_here() -> None:
    computer = device.describe(device.use_threads(0))
    self_test(device.choose_precision("auto", computer))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_convolution_with_one_wrong_channel_is_noticed(precision: str) -> None:
    def broken(images: Any, kernels: Any) -> Any:
        right = ops.conv(images, kernels, padding="valid")
        return ops.concatenate([right[..., :15], right[..., :1]], axis=-1)

    with pytest.raises(TrainingError, match="computes wrong numbers"):
        check_convolution(precision, broken)


def test_a_convolution_that_gives_nan_is_noticed() -> None:
    with pytest.raises(TrainingError, match="off by nan"):
        check_convolution("float32", lambda x, k: ops.conv(x, k, padding="valid") * float("nan"))


def test_a_batch_that_cannot_be_learnt_is_noticed() -> None:
    with pytest.raises(TrainingError, match="wrong gradients"):
        check_overfitting("float32", steps=0)


def test_the_description_says_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    computer = device.describe(1)
    if computer.name == "CPU":
        assert computer.gpu == "none: hidden by CUDA_VISIBLE_DEVICES"
    assert computer.threads == 1
    assert computer.backend in ("tensorflow", "jax", "torch")


@pytest.mark.parametrize("in_hardware", [True, False])
def test_a_precision_asked_for_is_kept_and_auto_is_the_faster_one(in_hardware: bool) -> None:
    computer = replace(device.describe(1), bfloat16=in_hardware)
    chosen = [device.choose_precision(w, computer) for w in ("float32", "bfloat16", "auto")]
    assert chosen == ["float32", "bfloat16", "bfloat16" if in_hardware else "float32"]
