"""Comparison of several networks on the same test faces, recorded as a run."""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.errors import InputError
from pipeline.reports import notes
from pipeline.runs import params, queries, tracking
from pipeline.settings import TrainSettings
from search.comparisons import page, paired_tests
from search.comparisons.paired_tests import Candidate, read_predictions
from search.settings import CompareSettings


def compare(settings: CompareSettings) -> str:
    """Record a comparison and return its run's id."""
    candidates = [_candidate(run, settings.ids) for run in settings.ids]
    paired_tests.require_same_faces(candidates)
    faces = len(candidates[0].predictions.labels)
    common = paired_tests.common_faces([candidate.predictions for candidate in candidates])
    candidates = [replace(c, predictions=p) for c, p in zip(candidates, common, strict=True)]
    left_out = faces - len(common[0].labels)
    pairs = paired_tests.every_pair(common)
    text = page.as_text(candidates, pairs, left_out)
    name = f"compare · {len(candidates)} networks"
    with tracking.record("compare", settings, name=name) as run, TemporaryDirectory() as scratch:
        run.tag(faces_digest=candidates[0].digest)
        run.describe(_note(text, settings))
        file = Path(scratch) / "comparison.html"
        file.write_text(page.render(candidates, pairs, left_out))
        run.log_file(file)
    print(text)
    print(f"compare run {run.id}: comparison.html")
    return run.id


def _note(text: str, settings: CompareSettings) -> str:
    """Description of a comparison: accuracies and verdicts, a line each, and the command."""
    lines = [f"- {line}" for line in text.splitlines()]
    return notes.paragraphs(
        "\n".join(lines),
        "By class, and with intervals: `comparison.html`.",
        notes.settings_note(settings),
    )


def _candidate(run_id: str, ids: list[str]) -> Candidate:
    run = queries.get(run_id, "evaluate", "train")
    trained = run
    if run.data.tags["step"] == "train":
        digest = run.data.tags.get("dataset_digest", "")
        evaluated = queries.evaluation_of(run_id, dataset_digest=digest)
        if evaluated is None:
            raise InputError(
                f"run {run_id} was not evaluated on test yet; -e evaluate -P run={run_id} does"
            )
        run = queries.get(evaluated, "evaluate")
    elif (trained_by := run.data.tags["trained_by"]) != "unknown":
        trained = queries.get(trained_by, "train")
    if run.info.status != "FINISHED":
        raise InputError(f"run {run_id} has not finished (it is {run.info.status})")
    settings = dict(trained.data.params)
    if trained.data.tags["step"] == "train":
        # A setting that was added after the run had its present default in it. Params are parsed,
        # since `mlflow run` records them as they were typed: 2e-4 or 0.0002.
        values = asdict(TrainSettings()) | params.recorded_settings(
            trained.data.params, TrainSettings
        )
        settings = {name: str(value) for name, value in values.items()}
    is_known = str(run.data.tags["trained_by"] != "unknown")  # for runs older than the tag
    return Candidate(
        name="ABCDEFGHIJKLMNOPQRSTUVWXYZ"[ids.index(run_id) % 26],
        settings=settings,
        run=run_id,
        digest=run.data.tags["faces_digest"],
        split=run.data.params["split"],
        all_known=run.data.tags.get("learnt_all_known", is_known) == "True",
        predictions=read_predictions(run.info.run_id),
    )
