"""Tests of which GPU each training sees; that needs none."""

import os
import threading
from pathlib import Path

import pytest

from pipeline.errors import InputError
from search.jobs import gpus, job

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d2cd4a1-0000-0000-0000-000000000000)
  MIG 3g.20gb     Device  0: (UUID: MIG-8ba6f0d1-0000-0000-0000-000000000000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-5d2cd4a1-0000-0000-0000-000000000001)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "workers", "seen"),
    [("0,1,2,3", 4, ["0", "1", "2", "3"]), ("2,5", 4, ["2", "2", "5", "5"]), ("", 2, ["", ""])],
)
def test_workers_at_the_same_time_see_one_gpu_each(
    monkeypatch: pytest.MonkeyPatch, given: str, workers: int, seen: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    shared = gpus.Gpus(gpus.chosen("auto"), workers)
    together = threading.Barrier(workers)

    def work(_: int, stop: threading.Event) -> str:
        with shared.one() as environment:
            together.wait(60)
            return str(job.run(_seen, stop=stop, environment=environment).value)

    assert sorted(job.run_parallel(workers, work, range(workers))) == seen


def _seen(send: job.Send) -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_gpus_are_counted_without_a_framework(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus.visible() == ["0", "1"]
    assert gpus.environment("1")["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_only_visible_gpus_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,-1,4")
    assert gpus.chosen("3") == ["3"]
    with pytest.raises(InputError, match="gpus=1: no GPU 1; visible here: 0, 3"):
        gpus.chosen("1")
