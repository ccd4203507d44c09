"""End of a study: confirm the best settings on fresh seeds, train and test the winner.

What an interrupted command has begun already is not done again.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import TrainingError
from pipeline.reports import notes
from pipeline.runs import outbox, queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings, TrainSettings
from search.jobs import EVALUATE_CHILD, TRAIN_CHILD, TRAIN_TRIAL, job, placement
from search.jobs.placement import Slots
from search.studies import champion, front, progress, storage, summary
from search.studies.deadline import Deadline
from search.studies.display import Display
from search.studies.lease import Lease, Leases
from search.studies.plan import Plan
from search.studies.results import FRONT_POINTS, ROUNDS, Finalist, confirmed_in_round

OTHER_SECONDS = 20.0
"""Seconds of the end of a study beside its trainings: evaluation, plots, registration."""


def finish(
    study: optuna.Study,
    plan: Plan,
    parent: Run,
    leases: Leases,
    deadline: Deadline,
    display: Display,
) -> None:
    """Confirm, choose, train, test and register, and draw the study; once for the same trials.

    One process does it; the others wait until it has, and one of them goes on if it dies. Nothing
    is done while trials run elsewhere, which is so only after a `timeout`.

    Raises TrainingError if no trial has finished.
    """
    name = study.study_name

    def on_wait(owner: str) -> None:
        display.print(f"the study {name} is being ended by process {owner}; waiting for it")

    with leases.hold(name, "end", on_wait=on_wait, give_up=deadline.is_over) as lease:
        outbox.wait()
        count = storage.count(study.get_trials(deepcopy=False))
        if count.running or lease is None:
            what = f"still running elsewhere: {count.running}" if lease else "time is up"
            print(f"{what}; another process ends the study")
            parent.leave()
            return
        if study.user_attrs.get("ended_with") == count.n_done:
            print(f"the study {name} has its {count.n_done} trials; see run {parent.id}")
            return
        tracking.end_children(parent)
        _end(study, plan, parent, lease, deadline, display)
        tracking.end_children(parent)  # of a node that was lost meanwhile
        study.set_user_attr("ended_with", count.n_done)


def _end(
    study: optuna.Study,
    plan: Plan,
    parent: Run,
    lease: Lease,
    deadline: Deadline,
    display: Display,
) -> None:
    if plan.settings.cost != "none":
        best = front.spread(front.pareto(study), FRONT_POINTS)
    else:
        best = finalists(study)
    if not best:
        raise TrainingError(f"no trial of the study {study.study_name} has finished; see its runs")
    progress.record_trials(study, plan, parent, finished=True)
    confirmed = _race(study, plan, parent, best, deadline, display)
    winner = confirmed[0]
    display.stop()
    display.print(f"training the winner, the configuration of trial {winner.trial.number}")
    run_id = _train(winner.settings, study, plan, parent)
    lease.require()  # the test split is opened once, and one model registered
    tested = _evaluate(run_id, study, plan.data, parent)
    lease.require()
    verdict = champion.register(run_id, tested, plan.data, parent)
    best_value = {f"val/best_{plan.settings.objective}": winner.mean}
    # One step after the best so far of the last trial, so that MLflow shows it as the present one.
    last_step = storage.count(study.get_trials(deepcopy=False)).n_done + 1
    parent.log_metrics(best_value | queries.test_accuracy(tested), step=last_step)
    parent.tag(winner=run_id, winning_trial=winner.trial.number, alias=verdict.alias)
    display.print(summary.record(study, plan, parent, confirmed, tested, verdict))


def finalists(study: optuna.Study, count: int = ROUNDS[0]) -> list[FrozenTrial]:
    """The finished trials with the best values, each setting once, best first."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(finished, key=lambda t: (-_gain(study, t.value or 0.0), t.number))
    distinct = {tuple(sorted(t.params.items())): t for t in reversed(ranked)}
    return [t for t in ranked if t in distinct.values()][:count]


def ranked(study: optuna.Study, confirmed: Sequence[Finalist]) -> list[Finalist]:
    """Finalists by the number of seeds that they were trained on, then by their mean, best first.

    Those that left the race earlier come later. Of equals the one found first is first.
    """
    return sorted(
        confirmed, key=lambda f: (-len(f.confirmed), -_gain(study, f.mean), f.trial.number)
    )


def _gain(study: optuna.Study, value: float) -> float:
    """`value`, higher for better."""
    return value if study.direction == optuna.study.StudyDirection.MAXIMIZE else -value


def seconds_needed(study: optuna.Study, plan: Plan) -> float:
    """Seconds without which no trial begins, by the longest of the trials so far.

    They are for the trial, one round of confirmation, the winner's training and its evaluation.
    """
    if not plan.settings.timeout:
        return 0.0
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    longest = max((t.duration.total_seconds() for t in finished if t.duration), default=0.0)
    rounds = -(-min(ROUNDS[0], len(finished)) // plan.settings.workers)
    return longest * (rounds + 2) + OTHER_SECONDS


def _race(
    study: optuna.Study,
    plan: Plan,
    parent: Run,
    best: Sequence[FrozenTrial],
    deadline: Deadline,
    display: Display,
) -> list[Finalist]:
    """Train the best configurations on new seeds, fewer on each; returns all finalists, ranked.

    The best six by one seed each are often not the best by their means. A round that would take
    the command beyond its deadline is left out.
    """
    settings = plan.settings
    racing = [Finalist(t, plan.training(t.params), []) for t in best]
    left: list[Finalist] = []
    for number in range(settings.confirm):
        count = confirmed_in_round(number, settings.cost)
        left, racing = [*left, *racing[count:]], racing[:count]
        longest = max(t.duration.total_seconds() if t.duration else 0.0 for t in best)
        rounds = -(-len(racing) // settings.workers)
        if number and deadline.is_over(reserve=longest * (rounds + 1) + OTHER_SECONDS):
            display.print(f"no time to confirm on more than {number} of {settings.confirm} seeds")
            break
        seed = settings.seed + 1 + number
        print(
            f"training the best {len(racing)} configurations on the new seed {seed}: "
            f"{display.summary(study.get_trials(deepcopy=False))}"
        )
        jobs = [(f.trial.number, replace(f.settings, seed=seed)) for f in racing]
        work = partial(_confirm_one, study, parent, plan.slots, display)
        values = job.run_parallel(settings.workers, work, jobs)
        racing = ranked(
            study,
            [
                replace(f, confirmed=[*f.confirmed, value])
                for f, value in zip(racing, values, strict=True)
            ],
        )
    return ranked(study, [*racing, *left])


def _confirm_one(
    study: optuna.Study,
    parent: Run,
    slots: Slots,
    display: Display,
    one: tuple[int, TrainSettings],
    stop: threading.Event,
) -> float:
    """The value of one configuration on a new seed; the worst one if it could not be trained."""
    number, training = one
    metric = f"val/best_{training.monitor}"
    if done := queries.finished_run("confirm", training, study.user_attrs["digest"], parent.id):
        return queries.metrics_of(done)[metric]
    tags = {"study": study.study_name, "trial": number, "seed": training.seed}
    name = f"trial {number} with seed {training.seed}"
    point = notes.words(study.get_trials(deepcopy=False)[number].params)
    run_name = notes.joined(f"trial {number} confirmed", f"seed {training.seed}", *point)

    def on_message(message: Any) -> None:
        if message[0] == "epoch":
            display.epoch(name, message[1], training.epochs)

    arguments = (training, parent.id, "confirm", tags, run_name)
    outcome = placement.run(slots, TRAIN_TRIAL, *arguments, on_message=on_message, stop=stop)
    display.ended(name, confirmed=True)
    if outcome.kind == "failed":
        display.print(f"{name} failed: {outcome.text}")
        return 0.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1e9
    return job.value_of(outcome, name)


def _train(winner: TrainSettings, study: optuna.Study, plan: Plan, parent: Run) -> str:
    """The run of the winner's training, the only one of a study whose model is saved."""
    # Trained alone, so with every core: the command in the summary does the same.
    winner = replace(winner, threads=0)
    digest = study.user_attrs["digest"]
    if done := queries.finished_run("train", winner, digest, parent.id):
        return done.info.run_id

    def train(_: None, stop: threading.Event) -> job.Outcome:
        return placement.run(plan.slots, TRAIN_CHILD, winner, parent.id, digest, stop=stop)

    [outcome] = job.run_parallel(1, train, [None])
    return str(job.value_of(outcome, "the winner's training"))


def _evaluate(run_id: str, study: optuna.Study, data: str, parent: Run) -> str:
    """The run of the one evaluation of the winner on the test split."""
    digest = study.user_attrs["digest"]
    if done := queries.evaluation_of(run_id, dataset_digest=digest):
        return done
    test = EvaluateSettings(run=run_id, data=data)
    return job.run_single(EVALUATE_CHILD, test, parent.id, name="the winner's evaluation")
