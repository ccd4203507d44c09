"""Final phase of a study: confirm the best settings on new seeds, train and test the winner.

Trainings and evaluations that an interrupted command has finished are not repeated.
"""

import socket
import threading
import time
from dataclasses import replace
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import TrainingError
from pipeline.runs import queries
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings, TrainSettings
from search.jobs import EVALUATE_CHILD, TRAIN_CHILD, TRAIN_TRIAL, job
from search.settings import SearchSettings
from search.studies import champion, storage, summary, trial
from search.studies.results import Finalist

FINALISTS = 3
"""Number of settings that are confirmed; the best on one seed is often not the best on average."""


def finish(study: optuna.Study, settings: SearchSettings, data: str, parent: Run) -> None:
    """Confirm, choose, train, test and register the winner, and plot the study.

    Done once for the same number of trials, and not while trials are running elsewhere, which
    happens only after a `timeout`. Raises TrainingError if no trial has finished.
    """
    count = storage.count(study)
    if count.running:
        print(f"still running elsewhere: {count.running}; the last command ends the study")
        parent.leave()
        return
    if study.user_attrs.get("ended_with") == count.n_done:
        print(f"the study {study.study_name} has its {count.n_done} trials; see run {parent.id}")
        return
    if other := _claim(study, count.n_done):
        print(
            f"the machine {other} ends the study {study.study_name}; see run {parent.id}. If it is "
            "gone, ask for one trial more"
        )
        parent.leave()
        return
    try:
        _end(study, settings, data, parent)
    except BaseException:
        study.set_user_attr("ending", {})  # so that any machine may continue
        raise
    study.set_user_attr("ended_with", count.n_done)


def _end(study: optuna.Study, settings: SearchSettings, data: str, parent: Run) -> None:
    if not (best := finalists(study)):
        raise TrainingError(f"no trial of the study {study.study_name} has finished; see its runs")
    summary.record_study(study, settings, parent)
    print(f"confirming the best {len(best)} settings on {settings.confirm} seeds each")
    confirmed = _confirm(study, settings, data, parent, best)
    winner = choose(confirmed)
    run_id = _train(winner.settings, study, parent)
    tested = _evaluate(run_id, study, data, parent)
    verdict = champion.register(run_id, tested, data, parent)
    parent.log_metrics({"best_val_accuracy": winner.mean} | queries.test_accuracy(tested))
    parent.tag(winner=run_id, winning_trial=winner.trial.number, alias=verdict.alias)
    print(summary.record(study, settings, parent, confirmed, winner, tested, verdict))


def _claim(study: optuna.Study, n_done: int) -> str:
    """Claim the final phase for this machine; returns another machine's name if that has it.

    Processes of the same machine are excluded by the file lock.
    """
    here, claim = socket.gethostname(), study.user_attrs.get("ending", {})
    if claim.get("n_done") == n_done and claim["host"] != here:
        return claim["host"]
    study.set_user_attr("ending", {"n_done": n_done, "host": here})
    time.sleep(1)  # if two machines write at the same moment, the last write wins
    owner = study.user_attrs["ending"]["host"]
    return "" if owner == here else owner


def finalists(study: optuna.Study, count: int = FINALISTS) -> list[FrozenTrial]:
    """Finished trials with the best validation accuracy, best first, without duplicate settings."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(finished, key=lambda t: (-(t.value or 0.0), t.number))
    distinct = {tuple(sorted(t.params.items())): t for t in reversed(ranked)}
    return [t for t in ranked if t in distinct.values()][:count]


def choose(confirmed: list[Finalist]) -> Finalist:
    """The best by mean validation accuracy; the earlier trial in case of a tie."""
    return max(confirmed, key=lambda finalist: (finalist.mean, -finalist.trial.number))


def _confirm(
    study: optuna.Study,
    settings: SearchSettings,
    data: str,
    parent: Run,
    best: list[FrozenTrial],
) -> list[Finalist]:
    """Train each of the best settings on seeds that no trial used."""
    base = [trial.trial_settings(settings, data, t.params) for t in best]
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.confirm)
    jobs = [
        (t.number, replace(training, seed=seed))
        for t, training in zip(best, base, strict=True)
        for seed in seeds
    ]
    work = partial(_confirm_one, study, parent)
    values = iter(job.run_parallel(settings.workers, work, jobs))
    return [
        Finalist(t, training, [next(values) for _ in seeds])
        for t, training in zip(best, base, strict=True)
    ]


def _confirm_one(
    study: optuna.Study, parent: Run, one: tuple[int, TrainSettings], stop: threading.Event
) -> float:
    number, training = one
    existing = queries.finished_run("confirm", training, study.user_attrs["digest"], parent.id)
    if existing:
        return existing.data.metrics["best_val_accuracy"]
    tags = {"study": study.study_name, "trial": number, "seed": training.seed}
    outcome = job.run(TRAIN_TRIAL, training, parent.id, "confirm", tags, stop=stop)
    if outcome.kind == "failed":
        print(f"trial {number} with seed {training.seed} failed: {outcome.text}")
        return 0.0
    return job.value_of(outcome, f"trial {number} with seed {training.seed}")


def _train(winner: TrainSettings, study: optuna.Study, parent: Run) -> str:
    """Id of the winner's train run, the only one of a study with a saved model."""
    # All cores, since it is the only training, and as with the command in the summary.
    winner = replace(winner, threads=0)
    digest = study.user_attrs["digest"]
    if existing := queries.finished_run("train", winner, digest, parent.id):
        return existing.info.run_id
    return job.run_single(TRAIN_CHILD, winner, parent.id, digest, name="the winner's training")


def _evaluate(run_id: str, study: optuna.Study, data: str, parent: Run) -> str:
    """Id of the winner's evaluate run on the test split, created if there is none."""
    digest = study.user_attrs["digest"]
    if existing := queries.evaluation_of(run_id, dataset_digest=digest):
        return existing
    test = EvaluateSettings(run=run_id, data=data)
    return job.run_single(EVALUATE_CHILD, test, parent.id, name="the winner's evaluation")
