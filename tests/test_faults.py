"""Tests of what comes from outside: addresses, stores, terminals, clocks, folders and signals."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow import MlflowClient
from optuna.study import StudyDirection
from requests import HTTPError

from pipeline import cli, paths, secrets
from pipeline.compiled import compiled
from pipeline.errors import InputError, one_line
from pipeline.runs import addresses, experiment, process, queries, signals, stores, tracking
from pipeline.settings import IngestSettings, TrainSettings
from search.settings import SearchSettings
from search.studies import storage, study
from tests.commands import ROOT
from tests.conftest import Start

PASSWORDS = ("s3cr3tpw", "se@cretpw", "a/b?c=s3cr3tpw", "100%s3cr3tpw")


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://alice:{}@host:5432/name",
        "mysql+pymysql://alice:{}@host/name?charset=utf8",
        "http://alice:{}@127.0.0.1:5993/path",
        "postgresql://host/name?user=alice&password={}",
        "mssql+pyodbc:///?odbc_connect=UID%3Dalice%3BPWD%3D{}",
    ],
)
def test_no_address_shows_its_user_or_password(
    address: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_addresses", set())
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setattr(secrets, "_users", set())
    full = address.format(password)
    for text in (secrets.masked(full), secrets.without_user(full), one_line(f"in {full}: no")):
        assert "cretpw" not in text
        assert "alice" not in text
        assert "s3cr" not in text
    secrets.remember(full)
    if "/" not in password and "@" not in password:
        said = str(InputError(f"password {password} of user 'alice' is wrong"))
        assert said == "password *** of user '***' is wrong"


def test_an_address_without_secrets_stays_as_it_is() -> None:
    for address in ("sqlite:////home/a@b/x.db", "models:/emotion@champion", "http://host:5000/a"):
        assert secrets.masked(address) == address


def test_any_text_becomes_one_line_that_can_be_printed() -> None:
    said = str(InputError("a\nb\r\x1b[31mc\x00\udcff ü 感 d"))
    assert said == r"a\nb\r\x1b[31mc\x00\udcff ü 感 d"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("file://fs", "MLflow records nothing in folders any more.*migrate-filestore"),
        ("fs", "MLflow records nothing in folders any more"),
        ("nonsense://u:s3cr3tpw@h/d", "expected sqlite:///mlflow.db"),
        ("mssql://u:s3cr3tpw@h/d", r"mssql://\*\*\*@h/d: pyodbc is not installed; pip"),
        ("postgresql://u:s3cr3tpw@h:port/d", "no address of a database"),
        ("postgresql://u:s3cr3tpw@127.0.0.1:9/d", "9/d: can't be used .*Connection refused"),
        ("sqlite:///none/x.db", "no folder none; make it first"),
        ("sqlite:///" + "a" * 300 + "/x.db", "File name too long"),
        ("sqlite:///text.db", "text.db is no sqlite database"),
        ("sqlite:///x?y=1&z=%", "y is no option of sqlite"),
    ],
)
def test_a_store_that_cannot_be_is_refused_with_the_remedy(
    store: Path, address: str, said: str
) -> None:
    (store / "text.db").write_text("no database, but text")
    mlflow.set_tracking_uri(address)
    with pytest.raises(InputError, match=said) as error:
        queries.use_store()
    assert "s3cr" not in str(error.value)
    assert not (store / "none").exists()


def test_a_database_of_another_version_is_to_be_backed_up_and_upgraded(store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = '7ac759974ad8'")
    shutil.copy("mlflow.db", "old.db")  # another address: MLflow has opened the first
    mlflow.set_tracking_uri(f"sqlite:///{store}/old.db")
    with pytest.raises(Exception, match="out-of-date") as error:
        queries.use_store()
    said = stores.explain(error.value)
    assert said is not None
    assert f"back it up, then `mlflow db upgrade sqlite:///{store}/old.db`" in said


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MLFLOW_EXPERIMENT_NAME", "gone", "was deleted; `mlflow experiments restore"),
        ("MLFLOW_EXPERIMENT_ID", "99", "`mlflow experiments search` lists"),
    ],
)
def test_an_experiment_that_is_not_there_is_explained(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    client = MlflowClient()
    client.delete_experiment(client.create_experiment("gone"))
    monkeypatch.setenv(variable, value)
    with pytest.raises(Exception, match="deleted|exist") as error:
        experiment.use()
    found = error.value
    assert said in (str(found) if isinstance(found, InputError) else str(stores.explain(found)))


def test_a_server_that_refuses_is_not_taken_for_a_full_disk() -> None:
    for error, is_of_disk in ((HTTPError("403 Client Error"), False), (OSError("9 of 10"), True)):
        assert ("is the disk full" in str(cli._explain(error))) is is_of_disk


@pytest.mark.parametrize("scheme", ["s3", "gs", "sftp", "wasbs", "hdfs", "foo"])
def test_a_model_in_a_store_that_cannot_be_reached_is_refused(scheme: str) -> None:
    with pytest.raises(InputError, match=f"{scheme}://b/m: no such model"):
        addresses.model_file(f"{scheme}://b/m")


@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000, "x/" + "a" * 300, "nul\0byte"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        addresses.model_file(f"{name}.keras")
    with pytest.raises(InputError):
        addresses.dataset_folder(name)


@pytest.mark.parametrize("direction", ["MINIMIZE", "MAXIMIZE"])
def test_a_study_of_another_program_is_left_alone(store: Path, direction: str) -> None:
    address = f"sqlite:///{store}/optuna.db"
    other = optuna.create_study(
        study_name="emotion", storage=address, direction=StudyDirection[direction]
    )
    other.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)
    database = storage.open_storage(address)
    with pytest.raises(InputError, match="that another program made; give another study="):
        study.open_study(SearchSettings(storage=address), database)
    assert optuna.load_study(study_name="emotion", storage=address).user_attrs == {}


def test_an_empty_study_with_another_direction_is_refused(store: Path) -> None:
    address = f"sqlite:///{store}/optuna.db"
    optuna.create_study(study_name="emotion", storage=address, direction="minimize")
    database = storage.open_storage(address)
    with pytest.raises(InputError, match="is to minimize, not to maximize"):
        study.open_study(SearchSettings(storage=address), database)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 2**32 - 2, "confirm": 3}, "seed=4294967294: expected at most 4294967292"),
        ({"confirm": 10**30}, "expected from 1 to 100"),
        ({"workers": 10**9}, "expected from 1 to 256"),
        ({"trials": 10**30}, "expected at most 1000000000"),
    ],
)
def test_numbers_that_would_fail_at_the_end_are_refused_at_the_start(
    settings: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        SearchSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"threads": 10**6}, {"batch_size": 10**20}, {"mixup": 1e308}])
def test_numbers_that_a_training_cannot_use_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        TrainSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.skipif(not process.BOOT_ID.exists(), reason="counts from the boot on Linux alone")
def test_a_process_is_known_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    name = process.this_process()
    real = time.time()
    for moved in (-3600.0, 3600.0):
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda m=moved: real - 1000 + m)
        assert process.is_running(name)
        assert process.this_process() == name
    host, pid, start = name.split(":")
    boot, ticks = start.split("-")
    assert process.is_gone(f"{host}:{pid}:{boot}-{int(ticks) - 100}"), "another with its number"
    before = f"{host}:{pid}:00000000{boot[8:]}-{ticks}"
    assert process.is_gone(before), "before the machine was started again"
    elsewhere = f"{host}:{pid}:{boot[:8]}.1-{ticks}"
    assert not process.is_gone(elsewhere), "in a container of this host with its name"
    assert not process.is_running(elsewhere), "in a container of this host with its name"
    monkeypatch.setattr(process, "_container", lambda: "1")  # as within that container
    assert process.this_process() == elsewhere
    assert process.is_running(elsewhere)
    assert not process.is_gone(name)


def test_a_run_that_mlflow_run_left_behind_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    client, project = MlflowClient(), {"mlflow.project.entryPoint": "train"}
    left, ours = (client.create_run("0", tags=project).info.run_id for _ in range(2))
    foreign = client.create_run("0").info.run_id
    waiting = client.create_run("0", tags=project).info.run_id
    monkeypatch.setenv(signals.PROJECT_RUN, ours)
    with subprocess.Popen(
        ["sleep", "60"], env=os.environ | {signals.PROJECT_RUN: waiting}
    ) as child:
        tracking.end_dead_runs()
        child.terminate()
    status = {run: client.get_run(run).info.status for run in (left, ours, foreign, waiting)}
    assert [*status.values()] == ["FAILED", "RUNNING", "RUNNING", "RUNNING"]
    tracking.end_dead_runs()
    assert client.get_run(waiting).info.status == "FAILED"


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_the_records_of_a_moved_or_copied_folder_name_its_own_files(
    store: Path, data: str, move: Callable[[Path, Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "old").mkdir()
    shutil.move("mlflow.db", "old/mlflow.db")
    with closing(sqlite3.connect("old/mlflow.db")) as database, database:
        database.execute("update experiments set artifact_location = ?", (f"{store}/old/mlruns/0",))
    mlflow.set_tracking_uri(f"sqlite:///{store}/old/mlflow.db")
    with tracking.record("ingest", IngestSettings()) as run:
        run.log_folder(Path(data), "dataset")
    move(store / "old", store / "new")
    mlflow.set_tracking_uri(f"sqlite:///{store}/new/mlflow.db")
    assert addresses.dataset_folder(run.id) == store / "new" / "mlruns" / "0" / run.id / (
        "artifacts/dataset"
    )
    assert "old was moved or copied" in capsys.readouterr().err
    assert MlflowClient().get_experiment("0").artifact_location == f"{store}/new/mlruns/0"
    assert (store / "old").exists() == (move is shutil.copytree)


def test_what_numba_compiles_works_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_place(*arguments: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.CacheImpl.__init__", no_place)
    assert compiled()(lambda x: x + 1)(1) == 2


@pytest.mark.slow
def test_ingest_works_without_git_on_an_ascii_terminal(
    start: Start, environment: dict[str, str], store: Path, csv: str
) -> None:
    shutil.move(csv, store / "fäces.csv")
    bare = environment | {"PATH": str(store), "PYTHONIOENCODING": "ascii"}
    done = start("pipeline.ingest", environment=bare, source="fäces.csv", cold=True)
    assert done.end() == 0
    assert done.stderr.splitlines() == ["note: git is not installed: runs do not record the commit"]
    [run] = MlflowClient().search_runs(["0"])
    assert "mlflow.source.git.commit" not in run.data.tags
    refused = start("pipeline.ingest", environment=bare, source="fäces", cold=True)
    assert refused.end() == 2
    assert refused.stderr.startswith(r"error: f\xe4ces: no such file or folder in ")


@pytest.mark.slow
def test_a_users_settings_of_keras_change_nothing(
    start: Start, environment: dict[str, str], store: Path, data: str
) -> None:
    (store / "keras.json").write_text(
        '{"image_data_format": "channels_first", "floatx": "float16"}'
    )
    settings = {"data": data, "network": "compact", "width": 0.05, "epochs": 1, "batch_size": 60}
    other = environment | {"KERAS_HOME": str(store)}
    done = start("pipeline.train", environment=other, cold=True, **settings)
    assert done.end() == 0, done.stderr


@pytest.mark.slow
def test_a_backend_that_is_not_installed_is_named(
    start: Start, environment: dict[str, str], store: Path
) -> None:
    model = ROOT / "models" / "compact.keras"
    for name in ("theano", "torch"):
        other = environment | {"KERAS_BACKEND": name}
        done = start("pipeline.predict", environment=other, cold=True, runs=model)
        assert done.end() == 2
        assert "error: Keras' backend can't be imported" in done.stderr
        assert done.stderr.count("\n") == 1


SLOW_SOURCE = """
import time

def read(seed):
    print("reading", flush=True)
    time.sleep(60)
"""


def test_a_signal_before_a_run_begins_ends_the_command_with_130(start: Start, store: Path) -> None:
    (store / "slow.py").write_text(SLOW_SOURCE)
    child = start("pipeline.ingest", source="slow:read")
    child.wait_for("reading")
    child.send(signal.SIGTERM)
    assert child.end() == 130
    assert child.stderr == "interrupted\n"


def test_a_path_under_mlflow_run_is_looked_up_where_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    (store / "typed").mkdir()
    (store / "typed" / "fer2013.csv").touch()
    monkeypatch.setattr(paths, "caller_folder", lambda: store / "typed")
    assert paths.find("fer2013.csv") == store / "typed" / "fer2013.csv"
    assert paths.find("other.csv") == Path("other.csv")
    assert paths.find("~/other.csv") == Path.home() / "other.csv"
    assert paths.searched("other.csv") == f"{store / 'typed'} or {store}"


@pytest.mark.slow
def test_mlflow_run_elsewhere_finds_relative_paths_and_hides_the_storages_password(
    environment: dict[str, str], store: Path, csv: str
) -> None:
    def mlflow_run(step: str, parameter: str) -> "subprocess.CompletedProcess[str]":
        command = ["mlflow", "run", str(ROOT), "-e", step, "-P", parameter, "--env-manager=local"]
        return subprocess.run(command, cwd=store, env=environment, capture_output=True, text=True)

    done = mlflow_run("ingest", f"source={Path(csv).name}")
    assert done.returncode == 0, done.stderr
    refused = mlflow_run("search", "storage=postgresql://alice:s3cr3tpw@127.0.0.1:9/d")
    assert "storage=postgresql://***@127.0.0.1:9/d: can't be used" in refused.stderr
    newest = MlflowClient().search_runs(["0"])[0]
    assert newest.data.params["storage"] == "postgresql://***@127.0.0.1:9/d"
    assert b"s3cr3tpw" not in (store / "mlflow.db").read_bytes()
