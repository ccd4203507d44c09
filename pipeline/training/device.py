"""Detection of the device (CPU or GPU), choice of precision, and number of threads."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

CPU_FLAGS_OF_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86: AVX-512 or AMX; Arm: bf16
AMPERE = (8, 0)  # first CUDA compute capability with bfloat16 units


@dataclass(frozen=True)
class Device:
    """The device that Keras' backend uses."""

    backend: str
    name: str
    processor: str
    gpu: str
    """Name of the GPU with driver and CUDA version, or the reason why none is used."""
    bfloat16: bool
    """Whether bfloat16 is faster than float32 on it with this backend."""
    threads: int
    visible_gpus: str | None
    """CUDA_VISIBLE_DEVICES: of a trial the index of its GPU, None where it is not set."""


def use_threads(threads: int) -> int:
    """Limit the backend's threads (0: one a core) and return their number.

    To be called before the first tensor is created. With JAX, whose XLA has no such setting, the
    process is limited to that many cores.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if not threads:
        return cores
    match keras.backend.backend():
        case "tensorflow":
            _tensorflow().config.threading.set_intra_op_parallelism_threads(threads)
        case "torch":
            import torch

            torch.set_num_threads(threads)
        case "jax" if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
            return min(threads, cores)
    return threads


def describe(threads: int) -> Device:
    """The device in use; `threads` comes from `use_threads`."""
    processor, flags = _processor()
    gpu_name, capability = _gpu()
    on_cpu_bfloat16 = (
        bool(flags & CPU_FLAGS_OF_BFLOAT16) and keras.backend.backend() == "tensorflow"
    )
    return Device(
        backend=keras.backend.backend(),
        name=gpu_name or "CPU",
        processor=processor,
        gpu=f"{gpu_name}, {_driver()}" if gpu_name else _why_no_gpu(),
        bfloat16=capability >= AMPERE if gpu_name else on_cpu_bfloat16,
        threads=threads,
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def choose_precision(wanted: str, device: Device) -> str:
    """Resolve the setting `precision` (auto, float32 or bfloat16) to float32 or bfloat16."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.bfloat16 else "float32"


def _tensorflow() -> Any:
    """TensorFlow, for threads and GPUs, which Keras has no API for."""
    import tensorflow

    return tensorflow


def _processor() -> tuple[str, set[str]]:
    """The processor's name and feature flags from /proc/cpuinfo; only the name without Linux."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    return name, flags


def _gpu() -> tuple[str | None, tuple[int, int]]:
    """Name (None without a GPU) and compute capability of the backend's first GPU."""
    match keras.backend.backend():
        case "tensorflow":
            config = _tensorflow().config
            if found := config.list_physical_devices("GPU"):
                details = config.experimental.get_device_details(found[0])
                return details.get("device_name", "GPU"), details.get("compute_capability", (0, 0))
        case "jax":
            import jax

            if (found := jax.devices()[0]).platform == "gpu":
                major, minor = str(getattr(found, "compute_capability", "0.0")).split(".")
                return found.device_kind, (int(major), int(minor))
        case "torch":
            import torch

            if torch.cuda.is_available():
                return torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return None, (0, 0)


def _driver() -> str:
    """Version of the NVIDIA driver and the newest CUDA that it supports, from nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi"
    lines = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    versions = [line for line in lines.splitlines() if "Driver Version" in line]
    return " ".join(versions[0].strip("| ").split()) if versions else "nvidia-smi finds no driver"


def _why_no_gpu() -> str:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "none: hidden by CUDA_VISIBLE_DEVICES"
    if not shutil.which("nvidia-smi"):
        return "none: no NVIDIA driver installed (no nvidia-smi)"
    backend = keras.backend.backend()
    if backend == "tensorflow" and not _tensorflow().test.is_built_with_cuda():
        return f"none: this TensorFlow is built without CUDA; {_driver()}"
    return f"none: {backend} can't use it (see docs/install.md, make gpu); {_driver()}"
