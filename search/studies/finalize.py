"""End of a study: confirm the best settings on fresh seeds, train and test the winner.

What an interrupted command has begun already is not done again.
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
from search.jobs import EVALUATE_WHOLE, RUN_TRAINING, TRAIN_WHOLE, job
from search.settings import SearchSettings
from search.studies import champion, storage, summary, trial
from search.studies.results import Finalist

FINALISTS = 3
"""Settings that are trained again: the best by one seed each is often not the best by its mean."""


def finish(study: optuna.Study, settings: SearchSettings, data: str, parent: Run) -> None:
    """Confirm, choose, train, test and register, and draw the study; once for the same trials.

    Nothing is done while trials run elsewhere, which is so only after a `timeout`.

    Raises TrainingError if no trial has finished.
    """
    count = storage.count(study)
    settled = count.settled
    if count.running:
        print(f"still running elsewhere: {count.running}; whoever finishes last ends the study")
        parent.leave()
        return
    if study.user_attrs.get("ended_with") == settled:
        print(f"the study {study.study_name} has its {settled} trials; see run {parent.id}")
        return
    if other := _claim(study, settled):
        print(
            f"the machine {other} ends the study {study.study_name}; see run {parent.id}. If it is "
            "gone, ask for one trial more"
        )
        parent.leave()
        return
    try:
        _end(study, settings, data, parent)
    except BaseException:
        study.set_user_attr("ending", {})  # so that any machine may go on
        raise
    study.set_user_attr("ended_with", settled)


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
    # One step after the best so far of the last trial, so that this is the run's present value.
    confirmed_value = {"best_val_accuracy": winner.mean} | queries.headline(tested)
    parent.log_metrics(confirmed_value, step=storage.count(study).settled + 1)
    parent.tag(winner=run_id, winning_trial=winner.trial.number, alias=verdict.alias)
    print(summary.record(study, settings, parent, confirmed, winner, tested, verdict))


def _claim(study: optuna.Study, settled: int) -> str:
    """Say that this machine ends the study, unless another one did: returns that one's name.

    Among processes of one machine the lock sees to it.
    """
    here, claim = socket.gethostname(), study.user_attrs.get("ending", {})
    if claim.get("settled") == settled and claim["host"] != here:
        return claim["host"]
    study.set_user_attr("ending", {"settled": settled, "host": here})
    time.sleep(1)  # of two machines that write at the same moment, the last one's name stays
    stays = study.user_attrs["ending"]["host"]
    return "" if stays == here else stays


def finalists(study: optuna.Study, count: int = FINALISTS) -> list[FrozenTrial]:
    """The finished trials with the best validation accuracy, each setting once, best first."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(finished, key=lambda t: (-(t.value or 0.0), t.number))
    distinct = {tuple(sorted(t.params.items())): t for t in reversed(ranked)}
    return [t for t in ranked if t in distinct.values()][:count]


def choose(confirmed: list[Finalist]) -> Finalist:
    """The best by mean validation accuracy; of equals the one found first."""
    return max(confirmed, key=lambda finalist: (finalist.mean, -finalist.trial.number))


def _confirm(
    study: optuna.Study,
    settings: SearchSettings,
    data: str,
    parent: Run,
    best: list[FrozenTrial],
) -> list[Finalist]:
    """Train each of the best settings on seeds that no trial had."""
    base = [trial.trial_settings(settings, data, t.params) for t in best]
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.confirm)
    jobs = [
        (t.number, replace(training, seed=seed))
        for t, training in zip(best, base, strict=True)
        for seed in seeds
    ]
    work = partial(_confirm_one, study, parent)
    values = iter(job.side_by_side(settings.workers, work, jobs))
    return [
        Finalist(t, training, [next(values) for _ in seeds])
        for t, training in zip(best, base, strict=True)
    ]


def _confirm_one(
    study: optuna.Study, parent: Run, one: tuple[int, TrainSettings], stop: threading.Event
) -> float:
    number, training = one
    done = queries.on_record("confirm", training, study.user_attrs["digest"], parent.id)
    if done:
        return done.data.metrics["best_val_accuracy"]
    tags = {"study": study.study_name, "trial": number, "seed": training.seed}
    outcome = job.run(RUN_TRAINING, training, parent.id, "confirm", tags, stop=stop)
    if outcome.kind == "failed":
        print(f"trial {number} with seed {training.seed} failed: {outcome.text}")
        return 0.0
    return job.returned(outcome, f"trial {number} with seed {training.seed}")


def _train(winner: TrainSettings, study: optuna.Study, parent: Run) -> str:
    """The run of the winner's training, the only one of a study whose model is kept."""
    # Trained alone, so with every core: the command in the summary does the same.
    winner = replace(winner, threads=0)
    digest = study.user_attrs["digest"]
    if done := queries.on_record("train", winner, digest, parent.id):
        return done.info.run_id
    what = "the winner's training"
    return job.alone(TRAIN_WHOLE, winner, parent.id, digest, what=what)


def _evaluate(run_id: str, study: optuna.Study, data: str, parent: Run) -> str:
    """The run of the one evaluation of the winner on the test split."""
    digest = study.user_attrs["digest"]
    if done := queries.evaluation_of(run_id, dataset_digest=digest):
        return done
    test = EvaluateSettings(run=run_id, data=data)
    return job.alone(EVALUATE_WHOLE, test, parent.id, what="the winner's evaluation")
