"""Tests of studies: no trial is lost or run twice, whatever happens to the processes."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from pipeline.data import UNASSIGNED
from pipeline.data.dataset import Faces, load_without_test, save
from pipeline.data.sample import draw
from pipeline.data.splitting import assemble
from pipeline.errors import InputError, Pruned, TrainingError
from pipeline.runs import process, queries, tracking
from pipeline.runs.environment import FILE
from search.jobs import TRAIN_TRIAL, job
from search.methods import samplers, space
from search.methods.curve_sampler import KIND
from search.settings import SearchSettings
from search.studies import finalize, front, progress, storage, summary, trial
from search.studies.deadline import Deadline
from search.studies.display import Display
from search.studies.lease import Leases
from search.studies.plan import Plan
from search.studies.proposals import enqueue
from search.studies.study import Worker, earlier_study, open_study, search
from tests.commands import Child, until
from tests.conftest import Start
from tests.tiny import TINY

SMALL: dict[str, Any] = {"network": TINY, "epochs": 2, "confirm": 1, "grid": "none"}
LONG = SMALL | {"epochs": 60, "pruner": "none"}
"""A trial of these settings takes seconds, so that a signal hits it."""

REST: Any = ({}, space.make_space(SearchSettings()), 20)


@pytest.fixture
def start_study(start: Start) -> Callable[..., Child]:
    """Start `python -m search.optuna_study` in the working folder and leave it running."""
    return partial(start, "search.optuna_study")


def runs(step: str) -> list[Run]:
    queries.use_store()
    return list(queries.search(f"tags.step = '{step}'"))


def stored_study(name: str = "emotion") -> optuna.Study:
    return optuna.load_study(study_name=name, storage="sqlite:///optuna.db")


def end(study: optuna.Study, plan: Plan, parent: tracking.Run) -> None:
    leases = Leases("sqlite:///optuna.db")
    finalize.finish(study, plan, parent, leases, Deadline(0), Display(plan, Deadline(0)))


def as_text(params: dict[str, Any]) -> list[str]:
    """Parameters as a key to sort by."""
    return sorted(map(str, params.items()))


def resumed_from(trial: optuna.trial.FrozenTrial) -> int:
    """The epoch of the checkpoint that a repeated trial began with; 0 if there was none."""
    run = MlflowClient().get_run(trial.user_attrs["run"])
    return int(run.data.metrics.get("resumed_from_epoch", 0))


def training_process() -> int | None:
    """Process id of a running trial that has recorded an epoch."""
    for run in runs("trial"):
        if run.info.status == "RUNNING" and "val/accuracy" in run.data.metrics:
            return int(run.data.tags["process"].split(":")[1])
    return None


def assert_accounted_for(trials: int) -> None:
    """Assert that all trials have ended, none is missing or duplicate, and all runs have ended."""
    study = stored_study()
    assert storage.count(study.trials) == storage.Count(n_done=trials, running=0)
    [parent] = runs("study")
    children = runs("trial")
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert all(run.info.status != "RUNNING" for run in [*children, *runs("confirm"), parent])
    on_trials = [t.user_attrs["run"] for t in study.trials if "run" in t.user_attrs]
    assert sorted(on_trials) == sorted(run.info.run_id for run in children)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_study_ends_with_every_trial(
    start_study: Callable[..., Child], data: str, store: Path
) -> None:
    study = start_study(data=data, trials=2, **LONG)
    os.kill(until(training_process), signal.SIGKILL)
    assert study.end() == 0, study.stderr

    assert_accounted_for(2)
    trials = stored_study().trials
    [killed] = [t for t in trials if "killed by SIGKILL" in t.user_attrs.get("error", "")]
    [repeat] = [t for t in trials if storage.retry_history(t) == [killed.number]]
    assert repeat.params == killed.params
    epoch = resumed_from(repeat)
    assert epoch >= 1, "it was not trained from its first epoch again"
    assert repeat.last_step is not None
    assert repeat.last_step > epoch
    assert [*repeat.intermediate_values] == [*range(1, repeat.last_step + 1)], "a whole curve"
    for known in range(1, epoch):
        assert repeat.intermediate_values[known] == killed.intermediate_values[known]
    run = MlflowClient().get_run(killed.user_attrs["run"])
    assert (run.info.status, run.data.tags["error"]) == (
        "FAILED",
        "its process was killed by SIGKILL",
    )

    # The end of the study: one registered model, and all artifacts.
    [parent], [winner], [test] = runs("study"), runs("train"), runs("evaluate")
    assert parent.info.status == "FINISHED"
    client = MlflowClient()
    champion = client.get_model_version_by_alias("emotion", "champion")
    assert champion.run_id == winner.info.run_id == test.data.tags["trained_by"]
    assert len(client.search_logged_models([parent.info.experiment_id])) == 1
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files >= {"study.html", "trials.csv", "summary.md"}
    assert "mlflow run . -e train -P " in study.stdout

    # The run of every trial has its number.
    for one in trials:
        run = client.get_run(one.user_attrs["run"])
        assert run.data.tags["trial"] == str(one.number)
        assert run.data.tags["study"] == "emotion"

    # The same command again does nothing, and creates no second run of the study.
    again = start_study(data=data, trials=2, **LONG)
    assert again.end() == 0, again.stderr
    assert "has its 2 trials" in again.stdout
    assert_accounted_for(2)

    # With another dataset the study is not continued.
    images, labels = draw(count=120, seed=2)
    faces = Faces(images, labels, np.full(120, UNASSIGNED, np.uint8))
    save(assemble(faces, source="drawn", policy="report", seed=0), store / "others")
    refused = start_study(data=store / "others", trials=3, **LONG)
    assert refused.end() == 2
    assert "the study emotion was begun on another dataset" in refused.stderr


@pytest.mark.slow
def test_a_front_of_macro_f1_against_parameters_is_searched_confirmed_and_shown(
    start_study: Callable[..., Child], data: str, environment: dict[str, str]
) -> None:
    options = SMALL | {"vary": "width=0.05..0.5", "objective": "macro_f1", "cost": "parameters"}
    two_gpus = environment | {"CUDA_VISIBLE_DEVICES": "0,1"}
    study = start_study(data=data, trials=5, environment=two_gpus, **options)
    assert study.end() == 0, study.stderr
    assert_accounted_for(5)

    client = MlflowClient()
    used = {
        mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{FILE}")["device"]["visible_gpus"]
        for run in [*runs("trial"), *runs("confirm")]
    }
    assert used == {"0", "1"}, "one GPU each"
    finished = stored_study().get_trials(states=(TrialState.COMPLETE,))
    for one in finished:
        metrics = client.get_run(one.user_attrs["run"]).data.metrics
        assert one.value == pytest.approx(metrics["val/best_macro_f1"], abs=1e-6)
    costs = {one.number: one.user_attrs[front.COST] for one in finished}
    assert len(set(costs.values())) > 1

    # Of the front, every point costs more and is better than the one before; each has a command.
    on_front = [one.number for one in front.pareto(stored_study())]
    _, _, section = study.stdout.partition("## Front of macro_f1 against parameters")
    rows = [line.split("|")[1:] for line in section.splitlines() if "mlflow run" in line]
    assert [int(row[0]) for row in rows] == on_front
    assert [int(row[1].replace(",", "")) for row in rows] == [costs[n] for n in on_front]
    assert all("-P monitor=macro_f1" in row[3] for row in rows)
    confirmed = {int(run.data.tags["trial"]) for run in runs("confirm")}
    assert confirmed == {t.number for t in front.spread(front.pareto(stored_study()), 3)}


@pytest.mark.slow
def test_ctrl_c_accounts_for_every_trial_and_the_same_command_goes_on(
    start_study: Callable[..., Child], data: str
) -> None:
    study = start_study(data=data, trials=2, **LONG)
    until(training_process)
    study.send(signal.SIGINT)
    assert study.end() == 130
    assert {run.info.status for run in runs("trial")} == {"KILLED"}
    assert runs("study")[0].info.status == "KILLED"
    interrupted = [t for t in stored_study().trials if t.state == TrialState.FAIL]
    waiting = [t for t in stored_study().trials if t.state == TrialState.WAITING]
    assert interrupted
    # The two workers' trials may end in any order.
    by_lr = [sorted((t.params for t in ts), key=as_text) for ts in (waiting, interrupted)]
    assert by_lr[0] == by_lr[1]

    # The dataset may have another address now.
    moved = Path(data).rename(f"{data} moved")
    start_study(data=moved, trials=2, **LONG)
    continued = stored_study()
    until(lambda: storage.count(continued.trials) == storage.Count(n_done=2, running=0))
    finished = continued.get_trials(states=(TrialState.COMPLETE,))
    assert sorted((t.params for t in finished), key=as_text) == by_lr[0]


@pytest.mark.slow
def test_a_killed_command_takes_its_trial_along_and_the_next_puts_it_up_again(
    start_study: Callable[..., Child], data: str
) -> None:
    command = start_study(data=data, **LONG | {"workers": 1, "epochs": 2000})
    training = until(training_process)
    command.kill()
    until(lambda: not psutil.pid_exists(training))
    study = stored_study()
    storage.fail_dead_trials(study)  # what every command does first
    killed, repeat = study.trials
    assert (killed.state, repeat.state) == (TrialState.FAIL, TrialState.WAITING)
    assert repeat.params == killed.params
    assert MlflowClient().get_run(killed.user_attrs["run"]).info.status in ("KILLED", "FAILED")


def test_a_command_whose_faces_are_gone_uses_up_no_trial(data: str) -> None:
    settings = SearchSettings(data=data, trials=2, network=TINY, epochs=2, grid="none")
    database = storage.open_storage(settings.storage)
    study = optuna.create_study(study_name=settings.study, storage=database)
    gone = f"{data}/gone"
    plan = Plan(settings, gone, {})
    with (
        pytest.raises(InputError, match="gone: no such dataset folder"),
        tracking.record("study", settings) as parent,
    ):
        Worker(
            0,
            plan,
            database,
            Leases(settings.storage),
            parent.id,
            Deadline(0),
            Display(plan, Deadline(0)),
        ).run(threading.Event())
    assert storage.count(study.trials) == storage.Count(n_done=0, running=0)


@pytest.mark.slow
def test_settings_that_fail_on_a_fresh_seed_do_not_win(data: str) -> None:
    settings = SearchSettings(network=TINY, epochs=6, confirm=1, trials=2)
    study = optuna.create_study(direction="maximize")
    bounds = space.make_space(settings).bounds
    # With the first settings the loss is not finite.
    for optimizer, lr, value in (("sgd", 1e30, 0.9), ("adam", 0.01, 0.2)):
        params = {"epochs": 6, "batch_size": 32, "lr": lr, "optimizer": optimizer}
        wide = {name: bounds[name] for name in params} | {"lr": FloatDistribution(1e-5, 1e30)}
        study.enqueue_trial(params)
        asked = study.ask(wide)
        asked.report(value, 2)
        study.tell(asked, value)
    study.set_user_attr("digest", load_without_test(Path(data)).digest)
    with tracking.record("study", settings) as parent:
        end(study, Plan(settings, data, {}), parent)
    assert MlflowClient().get_run(parent.id).data.tags["winning_trial"] == "1"

    # As if the command had been killed at the very end: finished runs are not repeated.
    study.set_user_attr("ended_with", None)
    with tracking.record("study", settings, run_id=parent.id) as parent:
        end(study, Plan(settings, data, {}), parent)
    assert len(runs("train")) == len(runs("evaluate")) == 1
    assert [run.info.status for run in runs("confirm")].count("FINISHED") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_databases")
def test_four_processes_at_once_on_no_database_share_one_study(
    start_study: Callable[..., Child], data: str
) -> None:
    studies = [start_study(data=data, trials=2, workers=1, **SMALL) for _ in range(4)]
    for study in studies:
        assert study.end() == 0, study.stderr
    assert_accounted_for(2)
    assert len(runs("train")) == len(runs("evaluate")) == 1


@pytest.mark.slow
def test_a_command_that_is_killed_while_it_ends_a_study_is_replaced_by_one_that_waits(
    start_study: Callable[..., Child], data: str
) -> None:
    studies = [start_study(data=data, trials=2, workers=1, **LONG) for _ in range(2)]
    waiting = "the study emotion is being ended by process"
    [waits] = until(lambda: [study for study in studies if waiting in study.stdout])
    [ends] = [study for study in studies if study is not waits]
    ends.kill()
    assert waits.end() == 0, waits.stderr
    assert_accounted_for(2)
    assert [run.info.status for run in runs("train")].count("FINISHED") == 1
    assert len(runs("evaluate")) == 1


def test_a_trial_whose_command_was_killed_is_put_up_again_with_its_settings(store: Path) -> None:
    study, run_id = _abandoned_trial(process=f"{os.uname().nodename}:1:0")
    storage.fail_dead_trials(study)
    _assert_put_up_again(study, run_id)


def test_a_trial_of_another_machine_that_gives_no_sign_of_life_is_put_up_again(
    store: Path,
) -> None:
    study, run_id = _abandoned_trial(process="elsewhere:1:0")
    storage.fail_dead_trials(study)
    assert study.trials[0].state == TrialState.RUNNING, "it may well be alive"

    records = study._storage._backend  # type: ignore[attr-defined]
    with records.engine.begin() as connection:
        connection.exec_driver_sql(
            "update trial_heartbeats set heartbeat = datetime('now', '-2 minutes')"
        )
    storage.fail_dead_trials(study)
    _assert_put_up_again(study, run_id)


def _abandoned_trial(process: str) -> tuple[optuna.Study, str]:
    """A study with one running trial, whose run has the same process."""
    queries.use_store()
    database = storage.open_storage("sqlite:///optuna.db")
    study = optuna.create_study(
        storage=database, direction="maximize", pruner=samplers.make_pruner("halving", 2)
    )
    trial = study.ask()
    storage.make_heartbeat(database, trial)
    space.make_space(SearchSettings(epochs=5)).suggest(trial)
    run_id = MlflowClient().create_run("0", tags={"step": "trial"}).info.run_id
    trial.set_user_attr("process", process)
    trial.set_user_attr("run", run_id)
    trial.report(0.5, 1)
    trial.should_prune()
    return study, run_id


def _assert_put_up_again(study: optuna.Study, run_id: str) -> None:
    failed, repeat = study.trials
    assert (failed.state, repeat.state) == (TrialState.FAIL, TrialState.WAITING)
    assert repeat.params == failed.params
    assert "completed_rung_0" in failed.system_attrs
    assert "completed_rung_0" not in repeat.system_attrs, "it is judged anew"
    assert storage.count(study.trials) == storage.Count(n_done=0, running=0)
    assert MlflowClient().get_run(run_id).info.status == "FAILED"


def test_settings_whose_process_is_killed_again_and_again_are_given_up(store: Path) -> None:
    study, _ = _abandoned_trial(process="elsewhere:1:0")
    interruptions = 5
    for number in range(interruptions + storage.RETRIES + 1):
        assert study.trials[-1].state == TrialState.RUNNING, "what is no kill does not count"
        was_killed = number >= interruptions
        storage.fail_and_retry(study, number, "out of memory", was_killed=was_killed)
        if study.trials[-1].state == TrialState.WAITING:
            study.ask()
    assert len(study.trials) == interruptions + storage.RETRIES + 1
    assert storage.count(study.trials) == storage.Count(n_done=1, running=0)


def test_a_study_tries_the_recipe_the_grid_and_proposals_and_nothing_twice(store: Path) -> None:
    settings = SearchSettings(trials=20, grid="all")
    database = storage.open_storage("sqlite:///optuna.db")
    study = open_study(settings, database)
    plan = Plan(settings, "none", {})
    worker = Worker(
        0,
        plan,
        database,
        Leases("sqlite:///optuna.db"),
        "none",
        Deadline(0),
        Display(plan, Deadline(0)),
    )
    taken: list[dict[str, Any]] = []
    while not worker.has_enough(trials := worker.trials()):
        taking = worker.take(trials)
        assert taking is not None, "no trial runs"
        trial, point = taking
        taken.append(point)
        if len(taken) == 5:
            storage.fail_and_retry(study, trial.number, "its process was killed")
        else:
            study.tell(trial, 1 / len(taken))
    assert taken[5] == taken.pop(4), "what was killed comes first"
    first = plan.first_points()
    assert len(first) == 14
    assert taken[:14] == first
    assert len(taken) == 20 == len({tuple(sorted(point.items())) for point in taken})


def test_samplers_learn_from_their_proposals_in_a_search_with_a_cost() -> None:
    known = {}
    for sampler, key in (("curves", KIND), ("cmaes", "cma:generation")):
        plan = Plan(SearchSettings(grid="none", sampler=sampler, cost="parameters"), "faces", {})
        study = optuna.create_study(direction="maximize")
        for number in range(6):
            enqueue(study, plan, study.trials)
            point = plan.space.suggest(study.ask())
            study.tell(number, point["lr"])
        known[sampler] = [one.system_attrs.get(key) for one in study.trials]
    assert known["curves"] == [None, "mutation", "mutation", "uniform", "uniform", "near"]
    assert None not in known["cmaes"][2:]


def test_a_command_whose_time_is_up_takes_no_trial(store: Path) -> None:
    database = storage.open_storage("sqlite:///optuna.db")
    study = optuna.create_study(storage=database, study_name="emotion")
    plan = Plan(SearchSettings(timeout=2), "none", {})
    worker = Worker(
        0,
        plan,
        database,
        Leases("sqlite:///optuna.db"),
        "none",
        Deadline(0.001),
        Display(plan, Deadline(0.001)),
    )
    worker.run(threading.Event())
    assert study.trials == []


@pytest.mark.parametrize(
    "other",
    [{"network": "strong"}, {"width": 0.5}, {"epochs": 3}, {"max_train_faces": 90}, {"seed": 1}],
)  # fmt: skip
def test_the_trials_of_a_study_compare(store: Path, other: dict[str, Any]) -> None:
    database = storage.open_storage("sqlite:///optuna.db")
    study = optuna.create_study(study_name="emotion", storage=database, direction="maximize")
    study.set_user_attr("settings", vars(SearchSettings()))
    [(name, value)] = other.items()
    with pytest.raises(InputError, match=f"{name}={value}: the study emotion was begun with"):
        open_study(SearchSettings(**other), database)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"warm_start": "nothing"}, "warm_start=nothing: no such study in sqlite.*; it has before"),
        ({"objective": "loss"}, "this study has objective=accuracy; give objective=accuracy"),
        ({"network": "strong"}, "this study has network=compact; give network=compact"),
        ({"sampler": "tpe"}, "the sampler tpe can't use an earlier study; give sampler=curves"),
    ],
)
def test_an_earlier_study_that_cannot_be_used_is_named(
    store: Path, option: dict[str, Any], said: str
) -> None:
    database = storage.open_storage("sqlite:///optuna.db")
    before = optuna.create_study(study_name="before", storage=database, direction="maximize")
    before.set_user_attr("settings", vars(SearchSettings()))
    settings = SearchSettings(**{"warm_start": "before", "grid": "none"} | option)

    def propose() -> None:
        plan = Plan(settings, "none", {}, earlier_study(settings, database))
        study = open_study(settings, database)
        study.enqueue_trial(plan.first_points()[0])
        study.tell(study.ask(), 0.5)
        enqueue(study, plan, study.trials)

    with pytest.raises(InputError, match=said):
        propose()


def test_what_a_person_reads_of_a_study_is_drawn_and_counted(store: Path) -> None:
    settings = SearchSettings(epochs=15)
    study = optuna.create_study(direction="maximize")
    bounds = space.make_space(settings)
    states = [TrialState.COMPLETE] * 5 + [TrialState.PRUNED, TrialState.FAIL]
    for number, state in enumerate(states):
        study.sampler = samplers.make_sampler("random", number, *REST)
        trial = study.ask()
        point = bounds.suggest(trial)
        for epoch, level in enumerate((0.2, 0.4, 0.3), start=1):
            trial.report(level + point["lr"], epoch)
        study.tell(trial, 0.4 + point["lr"] if state == TrialState.COMPLETE else None, state)
    table = summary.trials_table(study)
    assert table["state"].tolist() == [state.name.lower() for state in states]
    assert table["best_value"].tolist() == pytest.approx((0.4 + table["param_lr"]).tolist())
    assert table["epochs"].tolist() == [3] * 7
    shares = summary.importance(study)
    assert sum(shares.values()) == pytest.approx(1)

    with tracking.record("study", settings) as parent:
        progress.record_trials(study, Plan(settings, "none", {}), parent, finished=True)
    names = {file.path for file in MlflowClient().list_artifacts(parent.id)}
    assert names - {"changes.diff"} == {"trials.csv", "study.html", "environment.json"}
    cost = summary.cost(table, settings, parent)
    assert "7 trials (5 finished, 1 pruned, 1 failed): 21 epochs" in cost
    assert "asked for 90; ending early saved 80 % of them" in cost


def test_a_command_whose_time_is_up_leaves_the_study_to_those_that_still_train(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = _abandoned_trial(process="")
    with (
        tracking.record("study", SearchSettings()) as parent,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
    ):
        name = process.name_of(other.pid)
        parent.tag(process=f"{process.this_process()},{name}")
        end(study, Plan(SearchSettings(), "none", {}), parent)
        assert "still running elsewhere: 1;" in capsys.readouterr().out
        assert runs("study")[0].data.tags["process"] == name
    assert runs("study")[0].info.status == "RUNNING"
    tracking.end_dead_runs()
    assert runs("study")[0].info.status == "FAILED", "the last of its processes is gone"


@pytest.mark.slow
def test_a_trial_is_not_pruned_at_a_reduced_image_size(data: str) -> None:
    settings = SearchSettings(width=0.1, epochs=4)
    plan = Plan(settings, data, {})
    whole = plan.training({"epochs": 4, "image_size": 32, "resize_at": 0.5})
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=2.0))
    current = study.ask()
    with tracking.record("study", settings) as parent:
        outcome = trial.run(
            current, whole, parent.id, 4, heartbeat=lambda: None, stop=threading.Event()
        )
    assert (outcome.kind, outcome.text) == ("pruned", "pruned after epoch 3")
    [run] = runs("trial")
    assert (run.info.status, run.data.tags["trial_state"]) == ("KILLED", "PRUNED")


@pytest.mark.slow
def test_a_trial_of_a_lost_machine_goes_on_elsewhere_from_a_shared_checkpoint(
    data: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Plan(SearchSettings(network=TINY, epochs=6), data, {}).training({"epochs": 6})
    shared, stop = store / "shared", threading.Event()
    epochs: list[int] = []
    prune_after = 0

    def on_message(message: Any) -> bool:
        if message[0] == "epoch":
            epochs.append(message[1])
            if len(epochs) == 3:
                stop.set()
        return len(epochs) > 3 and len(epochs) == prune_after

    def run() -> job.Outcome:
        arguments = (training, parent.id, "trial", {"study": "a", "first": 0}, "a", shared)
        return job.run(TRAIN_TRIAL, *arguments, stop=stop, on_message=on_message)

    with tracking.record("study", SearchSettings()) as parent:
        assert run().kind == "interrupted"
        [file] = shared.iterdir()
        stop.clear()
        (store / "elsewhere").mkdir()
        monkeypatch.chdir(store / "elsewhere")
        assert run().kind == "returned"
        begun = MlflowClient().search_runs(["0"], "tags.step = 'trial'")[0]
        assert begun.data.metrics["resumed_from_epoch"] >= 3
        assert epochs[-6:] == [*range(1, 7)], "its curve is whole"
        assert not list(shared.iterdir())

        file.write_bytes(b"damaged")
        assert run().kind == "returned"
        begun = MlflowClient().search_runs(["0"], "tags.step = 'trial'")[0]
        assert "resumed_from_epoch" not in begun.data.metrics

        epochs.clear()
        assert run().kind == "interrupted"
        stop.clear()
        prune_after = len(epochs) + 5
        assert run().kind == "pruned"
        begun = MlflowClient().search_runs(["0"], "tags.step = 'trial'")[0]
        assert begun.data.metrics["resumed_from_epoch"] >= 3


def test_a_folder_of_checkpoints_that_cannot_be_is_refused(store: Path, data: str) -> None:
    (store / "file").touch()
    with pytest.raises(InputError, match=r"checkpoints=file/here: .*Not a directory"):
        search(SearchSettings(data=data, checkpoints="file/here"))


@pytest.mark.parametrize(
    "address", ["nosuch://me:secret@host/name", "sqlite:////nowhere/at/all.db"]
)
def test_a_storage_that_cannot_be_opened_is_a_mistake_of_one_line(
    address: str, store: Path
) -> None:
    with pytest.raises(InputError, match=r"storage=.*can't be used") as error:
        storage.open_storage(address)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_password_is_not_put_on_record(store: Path) -> None:
    address = "postgresql://me:secret@server/optuna"
    with tracking.record("study", SearchSettings(storage=address)):
        pass
    assert runs("study")[0].data.params["storage"] == "postgresql://***@server/optuna"


def test_a_study_whose_run_was_deleted_says_how_to_get_it_back(data: str) -> None:
    with tracking.record("study", SearchSettings()) as parent:
        pass
    study = open_study(SearchSettings(), storage.open_storage("sqlite:///optuna.db"))
    study.set_user_attr("parent", parent.id)
    MlflowClient().delete_run(parent.id)
    with pytest.raises(InputError) as refused:
        search(SearchSettings(data=data, **SMALL))
    assert str(refused.value) == (
        f"run {parent.id} was deleted; `mlflow runs restore` brings it back"
    )


@pytest.mark.slow
def test_a_job_tells_how_it_ended() -> None:
    stop = threading.Event()
    assert job.run(_job, "return", stop=stop) == job.Outcome("returned", "done")
    failed = job.run(_job, "fail", stop=stop)
    assert (failed.kind, failed.text) == ("failed", "no more faces")
    assert job.run(_job, "prune", stop=stop, on_message=lambda _: True).kind == "pruned"
    refused = job.run(_job, "write", stop=stop)
    assert (refused.kind, refused.text) == ("refused", "[Errno 28] No space left on device")
    killed = job.run(_job, "die", stop=stop)
    assert (killed.kind, killed.text) == ("killed", "its process was killed by SIGKILL")


@pytest.mark.slow
def test_a_job_is_interrupted_when_its_starter_is_told_to_stop() -> None:
    stop = threading.Event()
    beats: list[float] = []

    def heartbeat() -> None:
        beats.append(time.monotonic())
        if len(beats) == 3:  # heartbeats continue while a job sends no message
            stop.set()

    waited = job.run(_job, "wait", stop=stop, heartbeat=heartbeat)
    assert waited.kind == "interrupted"
    assert 1 < beats[2] - beats[0] < 10


def _job(send: job.Send, what: str) -> str:
    if what == "fail":
        raise TrainingError("no more faces")
    if what == "write":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        time.sleep(60)
    if what == "prune" and send("prune?"):
        raise Pruned("pruned")
    return "done"
