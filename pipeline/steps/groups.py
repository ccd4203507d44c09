"""A group: the same training on several seeds, and its evaluation, as child runs of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from pipeline.data import dataset, votes
from pipeline.percent import interval, percent
from pipeline.reports import notes, plots, seeds
from pipeline.runs import addresses, queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import LATEST, EvaluateSettings, TrainSettings
from pipeline.steps import evaluate as evaluation
from pipeline.steps import train as training
from pipeline.steps.data import dataset_address


def train(settings: TrainSettings) -> str:
    """Record a training, or with `seeds` a group of trainings; the id of its run."""
    if settings.seeds is None:
        return training.train(settings)
    stopped = _stopped(settings)
    tracking.discard_project_run(stopped)
    name = notes.training_name(settings)
    with tracking.record("train_seeds", settings, run_id=stopped, name=name) as run:
        address = dataset_address(settings.data, run)
        faces = dataset.load_without_test(addresses.dataset_folder(address))
        run.use_dataset(faces, address, context="train")
        for seed in settings.seed_list:
            one = replace(settings, seeds=None, seed=seed, data=address)
            if queries.finished_run("train", one, faces.digest, parent=run.id):
                continue
            print(f"seed {seed}")
            resumable = queries.resumable_run(one, faces.digest)
            training.train(
                replace(one, resume=resumable.info.run_id if resumable else None), parent=run
            )
        members = [member.info.run_id for member in queries.members(run.id)]
        _record_curves(members, run)
        text = _record_figures(members, run, f"val/best_{settings.monitor}")
        if learnt := votes.learnt(faces.about, settings.targets):
            run.tag(labels=learnt)
            text += f", against {votes.AGAINST[learnt]}"
        run.describe(
            notes.paragraphs(
                f"**{text}.** All figures of each seed are in `seeds.csv`.",
                notes.settings_note(settings),
                f"Next, on the test images: `mlflow run . -e evaluate -P run={run.id}`",
            )
        )
    print(f"{text}\ngroup {run.id}")
    return run.id


def evaluate(settings: EvaluateSettings) -> str:
    """Record an evaluation, or the evaluations of a group; the id of its run."""
    trained = addresses.trainings(settings.run)
    if trained == [settings.run]:
        return evaluation.evaluate(settings)
    name = notes.joined(settings.split, f"{len(trained)} seeds")
    with tracking.record("evaluate_seeds", settings, name=name) as run:
        evaluated = [evaluation.evaluate(replace(settings, run=one), parent=run) for one in trained]
        text = _record_figures(evaluated, run, f"{settings.split}/accuracy")
        by_votes = queries.figures(run.id).get(f"{settings.split}/accuracy_votes")
        if by_votes is not None:
            text += (
                f", against {votes.AGAINST['hard']}; {percent(by_votes)} against "
                f"{votes.AGAINST['votes']}"
            )
        run.tag(group=settings.run)
        run.describe(notes.paragraphs(f"**{text}.**", notes.settings_note(settings)))
        if settings.split == "test":
            _tell_group(settings.run, evaluated, queries.figures(run.id))
    print(text)
    print(f"evaluations of group {settings.run}: run {run.id}")
    return run.id


def _tell_group(group: str, evaluated: Sequence[str], figures: Mapping[str, float]) -> None:
    """Put the figures on the group too, since groups are sorted by them.

    Only those on its own dataset, as for a single training.
    """
    trained_on = queries.get(group, "train_seeds").data.tags["dataset_digest"]
    tested_on = queries.get(evaluated[0], "evaluate").data.tags["dataset_digest"]
    if trained_on == tested_on:
        Run(group).log_metrics({k: v for k, v in figures.items() if k.startswith("test")})


def _stopped(settings: TrainSettings) -> str | None:
    """Id of the stopped group that these settings continue."""
    queries.use_store()
    tracking.end_dead_runs()
    data = settings.data
    if data == LATEST:
        newest = queries.latest("ingest")
        if newest is None:
            return None
        data = newest.info.run_id
    faces = dataset.load_without_test(addresses.dataset_folder(data))
    return queries.unfinished_group(settings, faces.digest)


def _record_figures(members: Sequence[str], run: Run, main: str) -> str:
    """Log seeds.csv and every figure's spread over the seeds; the spread of `main` as text."""
    figures = [
        {name: value for name, value in queries.figures(member).items() if name not in plots.CURVES}
        for member in members
    ]
    rows = [{"run": member, **found} for member, found in zip(members, figures, strict=True)]
    run.log_text(pd.DataFrame(rows).to_csv(index=False), "seeds.csv")
    found = seeds.summarise(figures)
    run.log_metrics(found)
    mean, std, low, high = (found[f"{main}{end}"] for end in ("", "_std", "_low", "_high"))
    if main.endswith("loss"):
        return f"{main} {mean:.4f}, standard deviation {std:.4f} over {len(members)} seeds"
    return (
        f"{main} {percent(mean)} ({interval(low, high)}), standard deviation {percent(std)} "
        f"over {len(members)} seeds"
    )


def _record_curves(members: Sequence[str], run: Run) -> None:
    """Log the mean of each curve, up to the shortest training's last epoch, and curves.png."""
    histories = [queries.curves(member, plots.CURVES) for member in members]
    epochs = min(len(values) for history in histories for values in history.values())
    curves = {
        name: np.array([history[name][:epochs] for history in histories]) for name in plots.CURVES
    }
    for epoch in range(epochs):
        run.log_metrics({k: float(v[:, epoch].mean()) for k, v in curves.items()}, step=epoch + 1)
    with TemporaryDirectory() as scratch:
        run.log_file(plots.band(curves, Path(scratch) / "curves.png"))
