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
from search.settings import SearchSettings
from search.studies import front, plots
from search.studies.plan import Plan
from search.studies.results import Finalist, Verdict, not_worse, shown
from search.studies.storage import retry_history

MIN_TRIALS = 4
"""Finished trials that are needed to estimate parameter importance."""


def trials_table(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """Table of the trials that have ended, a row each; `val_accuracy` is the best of the epochs."""
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


def record_study(study: optuna.Study, plan: Plan, parent: Run) -> None:
    """Log trials.csv and the pictures of the trials so far."""
    trials = study.get_trials(deepcopy=False)
    table = trials_table(trials)
    parent.log_text(table.to_csv(index=False), "trials.csv")
    curves = {trial.number: trial.intermediate_values for trial in trials}
    settings = plan.settings
    marks = rungs(settings.epochs, plan.max_small_epochs) if settings.pruner == "halving" else []
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
    """Share of the variance of validation accuracy by parameter (fANOVA; Hutter et al. 2014).

    Empty if too few trials have finished, or if all have the same accuracy.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < MIN_TRIALS or len({trial.value for trial in finished}) == 1:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def record(
    study: optuna.Study,
    plan: Plan,
    parent: Run,
    confirmed: Sequence[Finalist],
    tested: str,
    verdict: Verdict,
) -> str:
    """Log summary.md and return it; `confirmed` are the finalists, ranked."""
    settings, winner = plan.settings, confirmed[0]
    name = settings.objective
    table = trials_table(study.get_trials(deepcopy=False))
    m = queries.test_accuracy(tested)
    finalists = "\n".join(
        f"| {f.trial.number} | {shown(f.mean, name)} "
        f"| {', '.join(shown(v, name) for v in f.confirmed)} "
        f"| {shown(f.trial.value or 0.0, name)} | {_params_text(f.trial.params)} |"
        for f in confirmed
    )
    text = f"""# Study {study.study_name}

Best settings, trial {winner.trial.number}:

    {train_command(winner.settings)}

Validation {name} {shown(winner.mean, name)}, mean of {len(winner.confirmed)} seeds that the search
had not used. {_uncertainty(study, confirmed)}

Test accuracy {m["test_accuracy"]:.1%} (95 % interval {m["test_accuracy_low"]:.1%} to
{m["test_accuracy_high"]:.1%}), measured once, after the choice. Registered as version
{verdict.version} of the model `emotion`, alias `{verdict.alias}`. {verdict.reason}

## The best settings on new seeds

| trial | mean | each seed | in the search | settings |
|---|---|---|---|---|
{finalists}

The value in the search is the best of many and therefore optimistic; the mean over new seeds is
less so.

{_front(study, plan)}

## Parameter importance

{_importance_text(importance(study))}

## Cost

{cost(table, settings, parent)}
"""
    parent.log_text(text, "summary.md")
    return text


def _front(study: optuna.Study, plan: Plan) -> str:
    """The front of the study as a table, with the command of each point; empty without a cost."""
    settings = plan.settings
    if settings.cost == "none":
        return ""
    rows = "\n".join(
        f"| {t.number} | {t.user_attrs[front.COST]:,} "
        f"| {shown(t.value or 0.0, settings.objective)} "
        f"| `{train_command(plan.training(t.params))}` |"
        for t in front.pareto(study)
    )
    name = settings.cost.replace("_", "-")
    return (
        f"## Front of {settings.objective} against {name}\n\n| trial | {name} "
        f"| {settings.objective} in the search | command |\n|---|---|---|---|\n{rows}\n\n"
    )


def _uncertainty(study: optuna.Study, confirmed: Sequence[Finalist]) -> str:
    """A sentence on the finalists that are not significantly worse, and the cheapest of them."""
    winner, faces = confirmed[0], study.user_attrs.get("validation_faces", 0)
    others = not_worse(confirmed, winner, faces)
    if not others:
        return "The other finalists are significantly worse." if len(confirmed) > 1 else ""
    numbers = ", ".join(str(other.trial.number) for other in others)
    cheapest = min([winner, *others], key=lambda f: f.seconds)
    saved = winner.seconds / cheapest.seconds if cheapest.seconds else 1.0
    cheaper = ""
    if cheapest is not winner and saved > 1.1:
        cheaper = f" Trial {cheapest.trial.number} is {saved:.1f} times as fast to train."
    return f"It does not differ significantly from trial {numbers}.{cheaper}"


def train_command(settings: TrainSettings) -> str:
    """Command line that trains with these settings, without defaults."""
    defaults = asdict(recipe(TrainSettings, settings.network)) | {
        "network": TrainSettings().network
    }
    given = [
        f"-P {name}={shlex.quote(str(value))}"
        for name in settings.fields()
        if (value := getattr(settings, name)) != defaults[name] and name != "threads"
    ]
    return " ".join(["mlflow run . -e train", *given])


def _importance_text(shares: Mapping[str, float]) -> str:
    if not shares:
        return "Too few trials have finished, or all with the same accuracy, for an estimate."
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    lines = [f"- {name}: {share:.0%}" for name, share in ranked]
    return "Share of the variance of validation accuracy over finished trials (fANOVA):\n\n" + (
        "\n".join(lines)
    )


def cost(table: pd.DataFrame, settings: SearchSettings, parent: Run) -> str:
    """Epochs and hours of the trials, the time for recording, and a comparison with the grid."""
    epochs, hours = int(table["epochs"].sum()), table["seconds"].sum() / 3600
    states = table["state"].value_counts()
    counts = ", ".join(f"{n} {plots.state_name(state)}" for state, n in states.items())
    grid_epochs = sum(point["epochs"] for point in report_grid.points("all", settings.epochs))
    ended = table[table["state"] != "fail"]
    column = f"{plots.PARAM}epochs"
    planned = int(ended[column].sum()) if column in ended else settings.epochs * len(ended)
    return (
        f"{len(table)} trials ({counts}): {epochs:,} epochs in {hours:.2f} hours of training. "
        f"Those that did not fail asked for {planned:,}; ending early saved "
        f"{1 - ended['epochs'].sum() / planned:.0%} of them. "
        f"The report's 13 settings at this length take {grid_epochs:,} epochs "
        f"({epochs / grid_epochs:.2f} times as many were spent). Recording the epochs and "
        f"calling the pruner took {_recording_share(parent):.1%} of the trials' time."
    )


def _recording_share(parent: Run) -> float:
    """Share of the time of a study's ended trials that was spent on recording."""
    trials = queries.search(f"tags.step = 'trial' and tags.mlflow.parentRunId = '{parent.id}'")
    ended = [t for t in trials if t.info.end_time and "recording_seconds" in t.data.metrics]
    seconds = sum(t.info.end_time - t.info.start_time for t in ended) / 1000
    recording = sum(t.data.metrics["recording_seconds"] for t in ended)
    return recording / seconds if seconds else 0.0


def _worker(trial: FrozenTrial) -> str | None:
    """Name of a trial's worker, host:pid/number."""
    attrs = trial.user_attrs
    if "process" not in attrs:
        return None
    host, pid, _ = attrs["process"].rsplit(":", 2)
    return f"{host}:{pid}/{attrs.get('worker', 0)}"


def _params_text(params: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in params.items())


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
