"""What the tests share: a working folder with its own stores, and commands as a user types them."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, closing, redirect_stdout
from importlib import import_module
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path

import mlflow
import numpy as np
import pytest
from filelock import FileLock

from pipeline.data import UNASSIGNED
from pipeline.data.dataset import Dataset, Faces, save
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble
from pipeline.settings import MainSettings
from search.jobs import job
from tests import commands
from tests.commands import ROOT, Child

VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., Child]

# A fork server looks for modules where it is started, which is a test's working folder.
os.environ["PYTHONPATH"] = str(ROOT)
job.PRELOADED += commands.PRELOADED
set_forkserver_preload(job.PRELOADED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests first in the part of each process, so that none is left for the end."""
    if (processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) == 1:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    fast = [item for item in items if not item.get_closest_marker("slow")]
    part = -(-len(fast) // processes)
    items[:] = [
        item
        for number in range(processes)
        for item in slow[number::processes] + fast[number * part : (number + 1) * part]
    ]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is made once for all tests, whichever process runs them; see `once`."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make `folder`, unless this or another process has done so."""
    made = folder / ".made"
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def empty_stores(shared: Path) -> Path:
    """A folder with an empty MLflow database and an empty Optuna database: making costs seconds."""

    def make(folder: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
        subprocess.run(
            [sys.executable, "-c", "import mlflow, optuna; mlflow.MlflowClient()"
            ".search_experiments(); optuna.storages.RDBStorage('sqlite:///optuna.db')"],
            cwd=folder, env=environment, capture_output=True, check=True,
        )  # fmt: skip

    return once(shared / "empty_stores", make)


def copy_stores(source: Path, folder: Path) -> None:
    """Copy the databases and artifacts of a working folder, whose path stands in the database."""
    for name in ("mlflow.db", "optuna.db"):
        shutil.copy(source / name, folder)
    if (source / "mlruns").exists():
        shutil.copytree(source / "mlruns", folder / "mlruns", dirs_exist_ok=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, kind, *_ in database.execute(f"pragma table_info({table})").fetchall():
                if kind.startswith(("VARCHAR", "TEXT")):
                    database.execute(
                        f"update {table} set {column} = replace({column}, ?, ?) "
                        f"where instr({column}, ?)",
                        (str(source), str(folder), str(source)),
                    )


@pytest.fixture(autouse=True)
def store(tmp_path: Path, empty_stores: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with empty databases; MLflow's artifacts go into it too."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    copy_stores(empty_stores, tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def no_databases(store: Path) -> None:
    """A working folder as on a fresh clone."""
    for name in ("mlflow.db", "optuna.db"):
        (store / name).unlink()


@pytest.fixture(scope="session")
def main_run(shared: Path, empty_stores: Path, dataset: Dataset) -> Path:
    """A working folder in which `pipeline.main` has run; what it said is in stdout.txt."""

    def make(folder: Path) -> None:
        copy_stores(empty_stores, folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        source = write_csv(dataset, folder)
        settings = MainSettings(source=source, width=0.05, epochs=2, batch_size=32, lr=0.002)
        with chdir(folder), Path("stdout.txt").open("w") as stdout, redirect_stdout(stdout):
            import_module("pipeline.steps.main").main(settings)

    return once(shared / "main_run", make)


@pytest.fixture
def trained(main_run: Path, store: Path) -> str:
    """The train run of a `pipeline.main` in the working folder."""
    copy_stores(main_run, store)
    [run] = mlflow.MlflowClient().search_runs(["0"], "tags.step = 'train'")
    return str(run.info.run_id)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a child process that finds the project from any folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # mlflow.set_tracking_uri sets a variable too, which would lead children to another store.
    own = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    # Two processes that a server starts for jobs of MLflow's, which nothing here has.
    return {**own, "PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture
def start(environment: dict[str, str], store: Path) -> Iterator[Start]:
    """Start `python -m MODULE ARGUMENTS …` in the working folder and leave it running."""
    children: list[Child] = []

    def start_child(
        module: str,
        *arguments: str,
        environment: dict[str, str] = environment,
        cold: bool = False,
        **settings: object,
    ) -> Child:
        child = Child(module, [*arguments, *options(settings)], store, environment, cold=cold)
        children.append(child)
        return child

    yield start_child
    for child in children:
        child.close()


@pytest.fixture
def command(start: Start) -> Command:
    """Run `python -m MODULE --name value …` in the working folder and return what it printed."""

    def run(
        module: str, *arguments: str, cold: bool = False, **settings: object
    ) -> subprocess.CompletedProcess[str]:
        child = start(module, *arguments, cold=cold, **settings)
        status = child.end()
        return subprocess.CompletedProcess(module, status, child.stdout, child.stderr)

    return run


def options(settings: Mapping[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def faces() -> Faces:
    """120 drawn faces without a split."""
    images, labels = draw(count=120, seed=1)
    return Faces(images, labels, np.full(120, UNASSIGNED, np.uint8))


@pytest.fixture(scope="session")
def dataset(faces: Faces) -> Dataset:
    return assemble(faces, source="drawn", policy="report", seed=0)


@pytest.fixture
def csv(dataset: Dataset, store: Path) -> str:
    return write_csv(dataset, store)


def write_csv(dataset: Dataset, folder: Path) -> str:
    """Write 120 drawn faces in Kaggle's format, without a split: the whole sample takes seconds."""
    rows = [
        f"{label},{' '.join(map(str, image.ravel()))}"
        for image, label in zip(dataset.images, dataset.labels, strict=True)
    ]
    (folder / "faces.csv").write_text("\n".join(["emotion,pixels", *rows]))
    return str(folder / "faces.csv")


@pytest.fixture
def data(dataset: Dataset, store: Path) -> str:
    """A dataset folder of 120 drawn faces."""
    save(dataset, store / "faces")
    return str(store / "faces")
