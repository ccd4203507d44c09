"""What the tests share: a working folder with its own store, and commands as a user types them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.data import UNASSIGNED
from pipeline.data.dataset import Dataset, Faces
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300
"""Seconds after which a command, or a wait for it, counts as hung; a busy machine is no failure."""
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; MLflow's database and artifacts go into it."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a child process that finds the project from any folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # mlflow.set_tracking_uri sets a variable too, which would lead children to another store.
    own = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    return {**own, "PYTHONPATH": str(ROOT), "PATH": path}


@pytest.fixture
def command(environment: dict[str, str], store: Path) -> Command:
    """Run `python -m MODULE --name value …` in the working folder and return what it printed."""

    def run(module: str, **settings: object) -> subprocess.CompletedProcess[str]:
        arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=store, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def faces() -> Faces:
    """120 drawn faces without a split."""
    images, labels = draw(count=120, seed=1)
    return Faces(images, labels, np.full(120, UNASSIGNED, np.uint8))


@pytest.fixture(scope="session")
def dataset(faces: Faces) -> Dataset:
    return assemble(faces, source="drawn", policy="report", seed=0)
