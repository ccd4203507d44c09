"""Search for better settings than the report's grid, in a study that can be stopped and continued.

python -m search.optuna_study                              20 trials on the newest dataset
mlflow run . -e search -P study=wide -P space=wide -P trials=100 -P width=1 -P epochs=75
python -m search.optuna_study --storage postgresql://host/optuna     on each of several machines
"""

import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import InputError, command
from pipeline.settings import LATEST, SearchSettings

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

    from pipeline.tracking import Run
    from search.process import Outcome
    from search.space import Point

FIXED = ("network", "width", "epochs", "faces", "space", "seed")
"""Settings that a study keeps: with others its trials would not compare."""
WAIT = 2.0
"""Seconds between two looks whether a trial that runs elsewhere has to be repeated."""


def search(settings: SearchSettings) -> str:
    """Run a study, or go on with it, to its end; returns the id of its run."""
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from optuna.exceptions import StorageInternalError

    from pipeline import records, tracking
    from search import ending, process, storage, trial

    records.use_store()
    with ExitStack() as opening:
        opening.enter_context(storage.lock(settings.storage))
        database = storage.open_storage(settings.storage)
        study = _open_study(settings, database)
        if known := study.user_attrs.get("parent"):
            records.get(known, "study")
        tracking.give_up_joining(known)
        with tracking.record("study", settings, name=settings.study, run_id=known) as parent:
            data = _prepare(study, settings, parent)
            opening.close()
            process.alone(trial.check_device, "auto", what="this computer")
            work = partial(_work, settings, data, database, parent.id, time.monotonic())
            try:
                process.side_by_side(settings.workers, work, range(settings.workers))
            except StorageInternalError as error:
                raise storage.no_answer(settings.storage, error) from error
            with storage.lock(settings.storage, ".end"):
                ending.finish(study, settings, data, parent)
    return parent.id


def _open_study(settings: SearchSettings, records: "RDBStorage") -> "optuna.Study":
    """The study by its name, made if there is none. Raises InputError if it was begun otherwise."""
    import optuna

    from search.strategy import silence_optuna

    silence_optuna()
    study = optuna.create_study(
        storage=records, study_name=settings.study, direction="maximize", load_if_exists=True
    )
    begun = study.user_attrs.get("settings", {})
    for name in FIXED:
        if name in begun and begun[name] != getattr(settings, name):
            raise InputError(
                f"{name}={getattr(settings, name)}: the study {settings.study} was begun with "
                f"{name}={begun[name]}; give that, or another study="
            )
    return study


def _prepare(study: "optuna.Study", settings: SearchSettings, parent: "Run") -> str:
    """The first process gives the study its dataset and its settings; returns the faces' address.

    Another command, or machine, may have the same faces at another address.
    """
    from pipeline import dataset, records
    from pipeline.train import dataset_address
    from search.space import check, make_space

    begun = "parent" in study.user_attrs
    data = study.user_attrs["data"] if begun and settings.data == LATEST else settings.data
    address = dataset_address(data, parent)
    faces = dataset.load_without_test(records.dataset_folder(address))
    if begun and faces.digest != study.user_attrs["digest"]:
        raise InputError(
            f"data={settings.data}: the study {settings.study} was begun on another dataset "
            f"(digest {study.user_attrs['digest']}, not {faces.digest}); give another study="
        )
    if begun:
        return address
    dataset.require_test(faces, address)
    dataset.fewer(faces, settings.faces, settings.seed)  # raises now if there are too few
    parent.use_dataset(faces, address, context="train")
    for point in _first_points(settings):
        check(point, make_space(settings))
    study.set_user_attr("settings", {name: asdict(settings)[name] for name in FIXED})
    study.set_user_attr("data", address)
    study.set_user_attr("digest", faces.digest)
    study.set_user_attr("parent", parent.id)
    return address


def _first_points(settings: SearchSettings) -> "list[Point]":
    """What is tried first, as whole points of the study's space: what a proposal has to beat.

    That is the recipe of a network of ours, and the report's settings.
    """
    from search import grid, trial
    from search.space import complete, make_space

    space = make_space(settings)
    base = trial.trial_settings(settings, settings.data, {})
    own: Point = {"epochs": settings.epochs, "optimizer": base.optimizer}
    points = [] if settings.network == "report" else [own]
    points += [] if settings.no_grid else grid.points(settings.epochs)
    return [complete(point, space, base) for point in points]


def _enqueue_next(study: "optuna.Study", points: "list[Point]") -> None:
    """Put up the first of `points` that was not tried, unless a trial waits to be repeated.

    One at a time: Optuna takes waiting trials in their order, and a repeat must not wait behind
    points for which the study may have no trials left.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    tried = [trial.system_attrs.get("fixed_params") for trial in trials]
    untried = [point for point in points if point not in tried]
    if untried and not any(trial.state == TrialState.WAITING for trial in trials):
        study.enqueue_trial(untried[0])


def _work(
    settings: SearchSettings,
    data: str,
    records: "RDBStorage",
    parent: str,
    began: float,
    worker: int,
    stop: threading.Event,
) -> None:
    """A worker: take one trial after another until the study has enough, or time is up."""
    import optuna

    from search import storage, trial
    from search.space import most_small_epochs
    from search.strategy import make_pruner

    study = optuna.load_study(
        study_name=settings.study,
        storage=records,
        pruner=make_pruner(settings.pruner, settings.epochs, most_small_epochs(settings)),
    )
    while not stop.is_set() and not 0 < settings.timeout <= time.monotonic() - began:
        with storage.lock(settings.storage):
            taken = _take(study, settings, worker)
        if taken == "done":
            return
        if taken == "wait":
            stop.wait(WAIT)
            continue
        current, point = taken
        beat = storage.heartbeat(records, current)
        training = trial.trial_settings(settings, data, point)
        try:
            outcome = trial.run(current, training, parent, settings.epochs, beat=beat, stop=stop)
        except optuna.exceptions.UpdateFinishedTrialError:
            print(f"trial {current.number} was taken over by another worker")
            continue
        _settle(study, current, outcome)
        if outcome.kind == "refused":
            raise InputError(outcome.text)
        print(_line(study, current.number), flush=True)


def _take(study: "optuna.Study", settings: SearchSettings, worker: int) -> Any:
    """The next trial and its point; "wait" while others may still be needed, or "done"."""
    from pipeline import lifetime
    from search import storage
    from search.space import make_space, suggest
    from search.strategy import make_sampler, sampler_seed

    storage.fail_dead_trials(study)
    count = storage.count(study)
    if count.settled >= settings.trials and not count.running:
        return "done"
    if count.settled + count.running >= settings.trials:
        return "wait"
    _enqueue_next(study, _first_points(settings))
    trials = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(settings.sampler, sampler_seed(settings.seed, trials))
    trial = study.ask()
    trial.set_user_attr("process", lifetime.this_process())
    trial.set_user_attr("worker", worker)
    return trial, suggest(trial, make_space(settings))


def _settle(study: "optuna.Study", trial: "optuna.Trial", outcome: "Outcome") -> None:
    """Tell the study how a trial ended. One that could not end by itself is tried again."""
    from optuna.trial import TrialState

    from search import storage

    if outcome.text and outcome.kind != "pruned":
        trial.set_user_attr("error", outcome.text)
    match outcome.kind:
        case "returned":
            study.tell(trial, outcome.value, skip_if_finished=True)
        case "pruned":
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        case "failed":
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        case "killed":
            storage.fail_and_retry(study, trial.number, outcome.text)
        case "interrupted" | "refused":
            storage.fail_and_retry(study, trial.number, outcome.text, was_killed=False)


def _line(study: "optuna.Study", number: int) -> str:
    trial = study.trials[number]
    value = f"validation accuracy {trial.value:.1%}" if trial.value is not None else ""
    error = trial.user_attrs.get("error", "")
    seconds = trial.duration.total_seconds() if trial.duration else 0
    point = " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in trial.params.items()
    )
    return (
        f"trial {number} {trial.state.name.lower()} {value}{error} after "
        f"{len(trial.intermediate_values)} epochs, {seconds:.0f} s: {point}"
    )


if __name__ == "__main__":
    command.run(SearchSettings, search)
