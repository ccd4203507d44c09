"""Tests of leases, and of outages of a study's database, on SQLite and on a real PostgreSQL."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sql
from optuna.trial import TrialState

from pipeline.errors import InputError
from pipeline.runs import process
from search.jobs import job
from search.settings import SearchSettings
from search.studies import database, lease, storage
from search.studies.lease import Leases
from search.studies.study import open_study
from tests import postgres

needs_postgres = pytest.mark.skipif(postgres.MISSING, reason="PostgreSQL or psycopg is missing")
POSTGRES = pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


@pytest.fixture
def address(request: pytest.FixtureRequest, store: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{store}/empty.db"
    given: str = request.getfixturevalue("server").address
    with sql.create_engine(given).begin() as connection:
        connection.exec_driver_sql("drop schema public cascade")
        connection.exec_driver_sql("create schema public")
    return given


both = pytest.mark.parametrize("address", ["sqlite", POSTGRES], indirect=True)


@pytest.mark.slow
@both
def test_processes_that_begin_a_study_at_once_on_no_database_begin_it_once(address: str) -> None:
    def begin(_: int, stop: threading.Event) -> job.Outcome:
        return job.run(_begin, address, stop=stop)

    outcomes = job.run_parallel(4, begin, range(4))
    assert [outcome.kind for outcome in outcomes] == ["returned"] * 4, outcomes
    assert len({outcome.value for outcome in outcomes}) == 1


def _begin(send: job.Send, address: str) -> str:
    """Begin the study as a command does; returns the process that did."""
    with Leases(address).hold("emotion", "open"):
        study = open_study(SearchSettings(storage=address), storage.open_storage(address))
        if "parent" not in study.user_attrs:
            time.sleep(0.2)
            study.set_user_attr("parent", process.this_process())
        return str(study.user_attrs["parent"])


@both
def test_a_lease_is_held_by_one_at_a_time(address: str) -> None:
    inside, most = 0, 0

    def work(_: int, stop: threading.Event) -> None:
        nonlocal inside, most
        own = Leases(address)
        for _turn in range(3):
            with own.hold("a", "take"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1

    job.run_parallel(4, work, range(4))
    assert most == 1


@both
def test_a_holder_that_is_gone_is_replaced(
    address: str, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    leases = Leases(address)
    monkeypatch.setattr(lease, "TERM", 3.0)
    told: list[str] = []
    with leases.hold("a", "end") as held:
        assert held is not None
        _give_to(address, f"{process.this_process()}1")  # a process of this machine that is gone
        begin = time.monotonic()
        with leases.hold("a", "end"):
            assert time.monotonic() - begin < 3
        with pytest.raises(InputError, match="another process has taken over"):
            held.require()
        with leases.hold("a", "end") as mine:
            assert mine is not None
            mine.require()
            _give_to(address, "elsewhere:1:0")
            with leases.hold("a", "end", give_up=lambda: True) as refused:
                assert refused is None, "it may be alive"
            begin = time.monotonic()
            with leases.hold("a", "end", on_wait=told.append) as taken:
                assert taken is not None
            assert time.monotonic() - begin > 3
    assert told == ["elsewhere:1:0"]


def _give_to(address: str, owner: str) -> None:
    with sql.create_engine(address).begin() as connection:
        connection.execute(sql.update(lease.LEASES).values(owner=owner, token="other"))


@needs_postgres
@pytest.mark.slow
@pytest.mark.parametrize("address", ["postgres"], indirect=True)
def test_a_study_outlasts_an_outage_of_its_database_and_says_when_it_cannot(
    address: str,
    server: postgres.Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    leases, settings = Leases(address), SearchSettings(storage=address)
    study = open_study(settings, storage.open_storage(address))
    trial = study.ask()
    server.stop()
    back = threading.Timer(4, server.start)
    back.start()
    with leases.hold("emotion", "take") as held:
        assert held is not None
        trial.report(0.5, 1)
        study.tell(trial, 0.5)
    back.join()
    assert "does not answer; trying again for 300 s" in capsys.readouterr().err
    study = optuna.load_study(study_name="emotion", storage=address)
    [told] = study.trials
    assert (told.state, told.value, told.intermediate_values) == (
        TrialState.COMPLETE,
        0.5,
        {1: 0.5},
    )

    monkeypatch.setattr(database, "OUTAGE", 1.0)
    server.stop()
    try:
        with pytest.raises(InputError, match=r"storage=.*can't be used"):
            leases.change(lease.LEASES.c.study == "emotion", renewals=0)
    finally:
        server.start()


@needs_postgres
@pytest.mark.slow
@pytest.mark.parametrize("address", ["postgres"], indirect=True)
def test_a_result_that_has_arrived_before_the_connection_was_lost_is_no_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = storage.open_storage(address)
    study = open_study(SearchSettings(storage=address), opened)
    trial = study.ask()
    lost = iter([True])

    @sql.event.listens_for(opened.engine, "commit")
    def lose(connection: sql.Connection) -> None:
        """Commit, and end the connection before the client knows."""
        if next(lost, False):
            connection.connection.driver_connection.commit()  # type: ignore[union-attr]
            own = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
            with sql.create_engine(address).begin() as other:
                other.exec_driver_sql(f"select pg_terminate_backend({own})")

    opened.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    assert [one.state for one in study.trials] == [TrialState.COMPLETE]
