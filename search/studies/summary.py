"""Summary of a study on its run: trials.csv, study.html, plots, description and summary.md."""

import math
import shlex
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from pipeline.runs import queries
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings, recipe
from search.grids import report_grid
from search.methods.samplers import rungs
from search.methods.space import most_small_epochs
from search.settings import SearchSettings
from search.studies import page, plots, storage, trial
from search.studies.charts import percent
from search.studies.importance import importance
from search.studies.results import Finalist, Verdict
from search.studies.table import trials_table

INTERVAL = 10.0
"""Seconds between two renewals of a study's page by one process, unless the best has changed."""
LONGEST_NOTE = 7_900
"""Characters of a run's description; MLflow refuses tags of more than 8,000."""


def record_study(study: optuna.Study, settings: SearchSettings, parent: Run) -> None:
    """Log trials.csv, study.html and the pictures of a study whose trials have ended."""
    trials = study.get_trials(deepcopy=False)
    table = trials_table(trials)
    parent.log_text(table.to_csv(index=False), "trials.csv")
    parent.log_text(page.render(study, _page_info(study, settings, finished=True)), "study.html")
    curves = {trial.number: trial.intermediate_values for trial in trials}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parent.log_file(plots.history(table, folder / "history.png"))
        parent.log_file(plots.curves(table, curves, _rungs(settings), folder / "curves.png"))


def _rungs(settings: SearchSettings) -> list[int]:
    """Epochs at which the pruner compares trials, where they don't depend on the trials."""
    if settings.pruner != "halving":
        return []
    return rungs(settings.epochs, most_small_epochs(settings))


def _page_info(study: optuna.Study, settings: SearchSettings, *, finished: bool) -> page.PageInfo:
    trials = study.get_trials(deepcopy=False)
    faces = f"{settings.max_train_faces:,} at most" if settings.max_train_faces else "all"
    return page.PageInfo(
        title=study.study_name,
        wanted=settings.trials,
        command=lambda number: _command(study, settings, trials[number]),
        finished=finished,
        facts={
            "dataset": str(study.user_attrs.get("digest", settings.data)),
            "training images": faces,
            "network": f"{settings.network}, width {settings.width:g}",
            "epochs": f"{settings.epochs} at most",
            "space": settings.space,
            "sampler": settings.sampler,
            "pruner": settings.pruner,
        },
        rungs=_rungs(settings),
    )


def _command(study: optuna.Study, settings: SearchSettings, one: FrozenTrial) -> str:
    data = study.user_attrs.get("data", settings.data)
    return train_command(trial.trial_settings(settings, data, one.params))


@dataclass
class _Progress:
    """What this process has last put on a study's run."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    written: float = -math.inf
    best: int | None = None


_progress: defaultdict[str, _Progress] = defaultdict(_Progress)
"""By the id of the study's run."""


def record_progress(study: optuna.Study, settings: SearchSettings, parent: Run) -> None:
    """Renew study.html, trials.csv, the description and the best so far of a study's run.

    Call it after each trial that ended. It writes at once if the best has changed or all trials
    have ended, else at most every `INTERVAL` seconds; and not while another thread writes. A store
    that does not answer costs a line on stderr, and not the study.
    """
    progress = _progress[parent.id]
    if not progress.lock.acquire(blocking=False):
        return
    try:
        best = _best_number(study)
        count = storage.count(study)
        is_last = count.settled >= settings.trials and not count.running
        is_due = time.monotonic() - progress.written >= INTERVAL
        if is_due or is_last or best != progress.best:
            _write_progress(study, settings, parent, count)
            progress.written, progress.best = time.monotonic(), best
    except Exception as error:  # whatever it is, the trials are worth more than the page on them
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        print(f"the page of the study could not be renewed ({reason})", file=sys.stderr)
    finally:
        progress.lock.release()


def _write_progress(
    study: optuna.Study, settings: SearchSettings, parent: Run, count: storage.Count
) -> None:
    if (best := _best_number(study)) is not None:
        value = study.get_trials(deepcopy=False)[best].value or 0.0
        parent.log_metrics({"best_val_accuracy": value}, step=count.settled)
    parent.tag(**{"mlflow.note.content": _note(study, settings, count)[:LONGEST_NOTE]})
    table = trials_table(study.get_trials(deepcopy=False))
    parent.log_text(table.to_csv(index=False), "trials.csv")
    parent.log_text(page.render(study, _page_info(study, settings, finished=False)), "study.html")


def _best_number(study: optuna.Study) -> int | None:
    """Number of the best finished trial, of equals the first."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max(finished, key=lambda one: (one.value or 0.0, -one.number), default=None)
    return best.number if best else None


def _note(study: optuna.Study, settings: SearchSettings, count: storage.Count) -> str:
    """The state of a running study in a few lines of Markdown."""
    trials = study.get_trials(deepcopy=False)
    states = pd.Series([one.state.name.lower() for one in trials if one.state.is_finished()])
    counts = ", ".join(f"{n} {plots.word(state)}" for state, n in states.value_counts().items())
    lines = [f"{count.settled} of {settings.trials} trials have ended ({counts or 'none'})."]
    if (number := _best_number(study)) is not None:
        best = trials[number]
        lines += [
            f"**Best so far: {percent(best.value or 0.0)} validation accuracy**, trial {number}: "
            f"{_words(best.params)}",
            f"    {_command(study, settings, best)}",
        ]
    running = [one for one in trials if one.state == TrialState.RUNNING]
    lines += [
        f"- trial {one.number} runs, epoch {one.last_step or 0}: {_words(one.params)}"
        for one in running
    ]
    lines.append("Charts of all trials are in the artifact `study.html`.")
    return "\n\n".join(lines)


def record(
    study: optuna.Study,
    settings: SearchSettings,
    parent: Run,
    confirmed: Sequence[Finalist],
    winner: Finalist,
    tested: str,
    verdict: Verdict,
) -> str:
    """Log summary.md and return it."""
    table = trials_table(study.get_trials(deepcopy=False))
    m = queries.headline(tested)
    finalists = "\n".join(
        f"| {f.trial.number} | {f.mean:.1%} | {', '.join(f'{v:.1%}' for v in f.confirmed)} "
        f"| {f.trial.value:.1%} | {_words(f.trial.params)} |"
        for f in confirmed
    )
    text = f"""# Study {study.study_name}

Best settings, trial {winner.trial.number}:

    {train_command(winner.settings)}

Validation accuracy {winner.mean:.1%}, mean of {len(winner.confirmed)} seeds that the search had not
used. Test accuracy {m["test_accuracy"]:.1%} (95 % interval {m["test_accuracy_low"]:.1%} to
{m["test_accuracy_high"]:.1%}), measured once, after the choice. Registered as version
{verdict.version} of the model `emotion`, alias `{verdict.alias}`. {verdict.reason}

## The best, on fresh seeds

| trial | mean | each seed | in the search | settings |
|---|---|---|---|---|
{finalists}

The value in the search is the best of many, so it flatters. The mean over fresh seeds does so less.

## What mattered

{_what_mattered(importance(study))}

## What it cost

{cost(table, settings, parent)}
"""
    parent.log_text(text, "summary.md")
    parent.tag(**{"mlflow.note.content": text[:LONGEST_NOTE]})
    return text


def train_command(settings: TrainSettings) -> str:
    """The command that trains with these settings; defaults are left out."""
    defaults = asdict(recipe(TrainSettings, settings.network)) | {
        "network": TrainSettings().network
    }
    given = [
        f"-P {name}={shlex.quote(str(value))}"
        for name in settings.fields()
        if (value := getattr(settings, name)) != defaults[name] and name != "threads"
    ]
    return " ".join(["mlflow run . -e train", *given])


def _what_mattered(shares: Mapping[str, float]) -> str:
    if not shares:
        return "Too few trials finished, or all alike, to say what mattered."
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    lines = [f"- {name}: {share:.0%}" for name, share in ranked]
    return "Share of the spread of validation accuracy over the finished trials (fANOVA):\n\n" + (
        "\n".join(lines)
    )


def cost(table: pd.DataFrame, settings: SearchSettings, parent: Run) -> str:
    """Epochs and hours of the trials, what the record took, and the report's whole grid."""
    epochs, hours = int(table["epochs"].sum()), table["seconds"].sum() / 3600
    states = table["state"].value_counts()
    counts = ", ".join(f"{n} {plots.word(state)}" for state, n in states.items())
    whole = sum(point["epochs"] for point in report_grid.points("all", settings.epochs))
    ended = table[table["state"] != "fail"]
    asked = int(ended[f"{plots.PARAM}epochs"].sum())
    return (
        f"{len(table)} trials ({counts}): {epochs:,} epochs in {hours:.2f} hours of training. "
        f"Those that did not fail asked for {asked:,}; ending early saved "
        f"{1 - ended['epochs'].sum() / asked:.0%} of them. "
        f"The report's 13 settings at this length take {whole:,} epochs "
        f"({epochs / whole:.2f} times as many were spent). Putting epochs on record, and asking "
        f"the pruner, took {_recording(parent):.1%} of the trials' time."
    )


def _recording(parent: Run) -> float:
    """Share of the time of a study's ended trials that their record took."""
    trials = queries.search(f"tags.step = 'trial' and tags.mlflow.parentRunId = '{parent.id}'")
    told = [t for t in trials if t.info.end_time and "recording_seconds" in t.data.metrics]
    seconds = sum(t.info.end_time - t.info.start_time for t in told) / 1000
    recording = sum(t.data.metrics["recording_seconds"] for t in told)
    return recording / seconds if seconds else 0.0


def _words(params: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in params.items())


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
