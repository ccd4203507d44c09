"""Summary of a study on its run: summary.md."""

from collections.abc import Mapping, Sequence

import optuna
import pandas as pd
from optuna.study import StudyDirection

from pipeline.percent import percent
from pipeline.reports.notes import code_block, command_line, words
from pipeline.runs import queries
from pipeline.runs.metric_names import RECORDING_SECONDS
from pipeline.runs.tracking import Run
from search.grids import report_grid
from search.pages.importance import importance
from search.settings import SearchSettings
from search.studies import front
from search.studies.plan import Plan
from search.studies.progress import against
from search.studies.results import Finalist, Verdict, not_worse, shown, standard_error
from search.studies.table import PARAM, trials_table

STATE_NAMES = {"complete": "finished", "fail": "failed"}


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
    table = trials_table(study)
    finalists = "\n".join(
        f"| {f.trial.number} | {shown(f.mean, name)} "
        f"| {', '.join(shown(v, name) for v in f.confirmed)} "
        f"| {shown(f.trial.value or 0.0, name)} | {', '.join(words(f.trial.params))} |"
        for f in confirmed
    )
    labels = against(study, winner.settings)
    count = len(winner.confirmed)
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    text = f"""# Study {study.study_name}

Best settings, trial {winner.trial.number}:

{code_block(command_line(winner.settings))}

Validation {name} {shown(winner.mean, name)}, mean of {seeds} that the search
had not used{f", against {labels}" if labels else ""}. {uncertainty(study, confirmed)}

Test accuracy {queries.test_text(queries.test_accuracy(tested))},
measured once, after the choice.
Registered as version {verdict.version} of the model `emotion`, alias `{verdict.alias}`.
{verdict.reason}

## The best settings on new seeds

| trial | mean | each seed | in the search | settings |
|---|---|---|---|---|
{finalists}

The value in the search is the best of many and therefore optimistic; the mean over new seeds is
less so.

{_front(study, plan)}

## Parameter importance

{_importance_text(importance(study), name)}

## Cost

{cost(table, settings, parent)}
"""
    parent.log_text(text, "summary.md")
    parent.describe(text)
    return text


def _front(study: optuna.Study, plan: Plan) -> str:
    """The front of the study as a table, with the command of each point; empty without a cost."""
    settings = plan.settings
    if settings.cost == "none":
        return ""
    rows = "\n".join(
        f"| {t.number} | {t.user_attrs[front.COST]:,} "
        f"| {shown(t.value or 0.0, settings.objective)} "
        f"| `{command_line(plan.training(t.params))}` |"
        for t in front.pareto(study)
    )
    name = settings.cost.replace("_", "-")
    return (
        f"## Front of {settings.objective} against {name}\n\n| trial | {name} "
        f"| {settings.objective} in the search | command |\n|---|---|---|---|\n{rows}\n\n"
    )


def uncertainty(study: optuna.Study, confirmed: Sequence[Finalist]) -> str:
    """A sentence on the finalists that are not significantly worse, and the cheapest of them."""
    winner, faces = confirmed[0], 0
    if study.direction == StudyDirection.MAXIMIZE:  # a share of the faces, unlike a loss
        faces = study.user_attrs.get("validation_faces", 0)
    if len(confirmed) > 1 and not standard_error(confirmed, faces):
        return "Single seeds do not tell whether the other finalists are worse."
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


def _importance_text(shares: Mapping[str, float], name: str) -> str:
    if not shares:
        return f"Too few trials have finished, or all with the same {name}, for an estimate."
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    lines = [f"- {parameter}: {percent(share, 0)}" for parameter, share in ranked]
    title = f"Share of the variance of validation {name} over finished trials (fANOVA):"
    return "\n".join([title, "", *lines])


def cost(table: pd.DataFrame, settings: SearchSettings, parent: Run) -> str:
    """Epochs and hours of the trials, the time for recording, and a comparison with the grid."""
    epochs, hours = int(table["epochs"].sum()), table["seconds"].sum() / 3600
    states = table["state"].value_counts()
    counts = ", ".join(f"{n} {STATE_NAMES.get(state, state)}" for state, n in states.items())
    grid_epochs = sum(point["epochs"] for point in report_grid.points("all", settings.epochs))
    ended = table[table["state"] != "fail"]
    column = f"{PARAM}epochs"
    planned = int(ended[column].sum()) if column in ended else settings.epochs * len(ended)
    return (
        f"{len(table)} trials ({counts}): {epochs:,} epochs in {hours:.2f} hours of training. "
        f"Those that did not fail asked for {planned:,}; ending early saved "
        f"{percent(1 - ended['epochs'].sum() / planned, 0)} of them. "
        f"The report's 13 configurations at this length take {grid_epochs:,} epochs "
        f"({epochs / grid_epochs:.2f} times as many were spent). Recording the epochs and "
        f"calling the pruner took {percent(_recording_share(parent))} of the trials' time."
    )


def _recording_share(parent: Run) -> float:
    """Share of the time of a study's ended trials that was spent on recording."""
    trials = queries.search(f"tags.step = 'trial' and tags.mlflow.parentRunId = '{parent.id}'")
    ended = [(t, queries.metrics_of(t)) for t in trials if t.info.end_time]
    timed = [(t, m) for t, m in ended if RECORDING_SECONDS in m]
    seconds = sum(t.info.end_time - t.info.start_time for t, _ in timed) / 1000
    recording = sum(m[RECORDING_SECONDS] for _, m in timed)
    return recording / seconds if seconds else 0.0
