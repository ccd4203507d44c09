"""Progress of a study on its run: study.html, trials.csv, the best so far and a description."""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.data import votes
from pipeline.errors import InputError
from pipeline.reports.notes import code_block, command_line, words
from pipeline.runs import outbox
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings
from search.methods.samplers import rungs
from search.pages import page
from search.pages.rows import STATES, Aim
from search.studies import storage
from search.studies.front import COST
from search.studies.plan import Plan
from search.studies.table import trials_table

INTERVAL = 10.0
"""Seconds between two updates of a study's run by one process, unless the best has changed."""


@dataclass
class _Written:
    """What this process has last written to a study's run."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    time: float = -INTERVAL
    best: int | None = None


_written: defaultdict[str, _Written] = defaultdict(_Written)
"""By the id of the study's run."""


def record_progress(study: optuna.Study, plan: Plan, parent: Run) -> None:
    """Update study.html, trials.csv, the description and the best so far on a study's run.

    Called after each trial. It writes if the best has changed or all trials have ended, else at
    most every `INTERVAL` seconds, and not while another thread writes. If the MLflow store does not
    answer, it prints a line on stderr; the study goes on.
    """
    written = _written[parent.id]
    if not written.lock.acquire(blocking=False):
        return
    try:
        trials = study.get_trials(deepcopy=False)
        count = storage.count(trials)
        best = storage.best_trial(trials, maximize=plan.settings.maximize)
        number = best.number if best else None
        is_last = count.n_done >= plan.settings.trials and not count.running
        is_due = time.monotonic() - written.time >= INTERVAL
        if is_due or is_last or number != written.best:
            if not outbox.is_reachable():
                raise InputError("MLflow's server does not answer")
            _write(study, trials, plan, parent)
            written.time, written.best = time.monotonic(), number
    except Exception as error:  # of any kind: the trials matter more than their page
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        print(f"the page of the study could not be updated ({reason})", file=sys.stderr)
    finally:
        written.lock.release()


def _write(study: optuna.Study, trials: Sequence[FrozenTrial], plan: Plan, parent: Run) -> None:
    best = storage.best_trial(trials, maximize=plan.settings.maximize)
    if best and best.value is not None:
        name = f"val/best_{plan.settings.objective}"
        parent.log_metrics({name: best.value}, step=storage.count(trials).n_done)
    parent.describe(_description(study, trials, plan))
    record_trials(study, plan, parent, finished=False)


def record_trials(study: optuna.Study, plan: Plan, parent: Run, *, finished: bool) -> None:
    """Log trials.csv and study.html; `finished`: no further trial begins."""
    parent.log_text(trials_table(study).to_csv(index=False), "trials.csv")
    parent.log_text(page.render(study, page_info(study, plan, finished=finished)), "study.html")


def page_info(study: optuna.Study, plan: Plan, *, finished: bool) -> page.PageInfo:
    """What the page of a study says beside its trials."""
    settings = plan.settings
    trials = study.get_trials(deepcopy=False)
    images = f"{settings.max_train_faces:,} at most" if settings.max_train_faces else "all"
    return page.PageInfo(
        title=study.study_name,
        wanted=settings.trials,
        n_done=storage.count(trials).n_done,
        command=lambda number: _command(plan, trials[number]),
        finished=finished,
        facts=({"labels": labels} if (labels := against(study, plan.training({}))) else {})
        | {
            "dataset": str(study.user_attrs.get("digest", plan.data)),
            "training images": images,
            "network": f"{settings.network}, width {settings.width:g}",
            "epochs": f"{settings.epochs} at most",
            "space": settings.space,
            "sampler": settings.sampler,
            "pruner": settings.pruner,
        },
        objective=f"validation {settings.objective.replace('_', ' ')}",
        is_share=settings.objective != "loss",
        rungs=rungs_of(plan),
        costs=None
        if settings.cost == "none"
        else {t.number: t.user_attrs[COST] for t in trials if COST in t.user_attrs},
        cost_name=settings.cost.replace("_", "-"),
    )


def against(study: optuna.Study, training: TrainSettings) -> str:
    """What the figures of a training of the study are against; empty without votes to choose."""
    about = {"votes": ""} if study.user_attrs.get("has_votes") else {}
    return votes.AGAINST[votes.learnt(about, training.targets)]


def rungs_of(plan: Plan) -> list[int]:
    """Epochs at which the pruner compares trials; empty if they depend on the trials."""
    if plan.settings.pruner != "halving":
        return []
    return rungs(plan.settings.epochs, plan.max_small_epochs)


def _command(plan: Plan, one: FrozenTrial) -> str:
    return command_line(plan.training(one.params))


def _description(study: optuna.Study, trials: Sequence[FrozenTrial], plan: Plan) -> str:
    """State of a running study in a few lines of Markdown."""
    info = page_info(study, plan, finished=False)
    aim = Aim(info.objective, info.is_share, plan.settings.maximize)
    names = [one.state.name.lower() for one in trials]
    counts = [f"{names.count(state)} {word}" for state, word in STATES.items() if state in names]
    n_done = storage.count(trials).n_done
    lines = [f"{n_done} of {plan.settings.trials} trials have ended ({', '.join(counts)})."]
    if best := storage.best_trial(trials, maximize=plan.settings.maximize):
        lines += [
            f"**Best so far: {aim.name} {aim.text(best.value)}**, trial {best.number}: "
            f"{', '.join(words(best.params))}",
            code_block(_command(plan, best)),
        ]
    lines += [
        f"- trial {one.number} is running, epoch {one.last_step or 0}: "
        + ", ".join(words(one.params))
        for one in trials
        if one.state == TrialState.RUNNING
    ]
    lines.append("Charts of all trials are in the artifact `study.html`. Continue it, if it stops:")
    lines.append(code_block(command_line(plan.settings)))
    return "\n\n".join(lines)
