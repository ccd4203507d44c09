"""Summary of a study on its run: trials.csv, plots and summary.md."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from pipeline.runs import queries
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings, recipe
from search.grids import report_grid
from search.methods.samplers import rungs
from search.methods.space import most_small_epochs
from search.settings import SearchSettings
from search.studies import plots
from search.studies.results import Finalist, Verdict
from search.studies.storage import retry_history

FEWEST = 4
"""Finished trials below which nothing is said about what mattered."""


def trials_table(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """A row for each trial that has ended; `val_accuracy` is the best of its epochs."""
    ended = [trial for trial in trials if trial.state.is_finished()]
    starts = [trial.datetime_start for trial in ended if trial.datetime_start]
    first = min(starts) if starts else None
    names = list(dict.fromkeys(name for trial in ended for name in trial.params))
    rows = []
    for trial in ended:
        begin = trial.datetime_start
        row = {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "val_accuracy": max(trial.intermediate_values.values(), default=None),
            "epochs": len(trial.intermediate_values),
            "begin": (begin - first).total_seconds() if begin and first else None,
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "worker": _worker(trial),
            "repeats": ", ".join(map(str, retry_history(trial))),
            "run": trial.user_attrs.get("run"),
            "error": trial.user_attrs.get("error"),
        }
        rows.append(row | {plots.PARAM + name: trial.params.get(name) for name in names})
    return pd.DataFrame(rows)


def record_study(study: optuna.Study, settings: SearchSettings, parent: Run) -> None:
    """Log trials.csv and the pictures of the trials so far."""
    trials = study.get_trials(deepcopy=False)
    table = trials_table(trials)
    parent.log_text(table.to_csv(index=False), "trials.csv")
    curves = {trial.number: trial.intermediate_values for trial in trials}
    judged = settings.pruner == "halving"
    marks = rungs(settings.epochs, most_small_epochs(settings)) if judged else []
    shares = importance(study)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parent.log_file(plots.history(table, folder / "history.png"))
        parent.log_file(plots.curves(table, curves, marks, folder / "curves.png"))
        parent.log_file(plots.slices(table, folder / "slices.png"))
        parent.log_file(plots.parallel(table, folder / "parallel.png"))
        parent.log_file(plots.parallel_page(table, folder / "parallel.html"))
        parent.log_file(plots.timeline(table, folder / "timeline.png"))
        if shares:
            finished = int((table["state"] == "complete").sum())
            parent.log_file(plots.importance(shares, finished, folder / "importance.png"))


def importance(study: optuna.Study) -> dict[str, float]:
    """Shares of the spread of validation accuracy; empty if too few trials finished to tell."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < FEWEST or len({trial.value for trial in finished}) == 1:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


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


def _worker(trial: FrozenTrial) -> str | None:
    """host, process and number of a worker, as host:pid/number."""
    attrs = trial.user_attrs
    if "process" not in attrs:
        return None
    host, pid, _ = attrs["process"].rsplit(":", 2)
    return f"{host}:{pid}/{attrs.get('worker', 0)}"


def _words(params: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in params.items())


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
