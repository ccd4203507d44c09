"""Comparison of several networks on the same test faces, recorded as a run."""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Run

from pipeline.errors import InputError
from pipeline.reports import notes
from pipeline.runs import params, queries, tracking
from pipeline.settings import TrainSettings
from search.comparisons import page, paired_tests
from search.comparisons.paired_tests import Candidate, read_predictions
from search.settings import CompareSettings


def compare(settings: CompareSettings) -> str:
    """Record a comparison and return its run's id."""
    candidates = [candidate(run, settings.ids) for run in settings.ids]
    paired_tests.require_same_faces(candidates)
    faces = len(candidates[0].labels)
    common = iter(paired_tests.common_faces([p for c in candidates for p in c.members]))
    candidates = [replace(c, members=tuple(next(common) for _ in c.members)) for c in candidates]
    left_out = faces - len(candidates[0].labels)
    pairs = paired_tests.every_pair(candidates)
    text = page.as_text(candidates, pairs, left_out)
    name = f"compare · {len(candidates)} networks"
    with tracking.record("compare", settings, name=name) as run, TemporaryDirectory() as scratch:
        run.tag(faces_digest=candidates[0].digest)
        run.describe(_note(text.splitlines(), settings))
        file = Path(scratch) / "comparison.html"
        file.write_text(page.render(candidates, pairs, left_out))
        run.log_file(file)
    print(text)
    print(f"compare run {run.id}: comparison.html")
    return run.id


def _note(lines: list[str], settings: CompareSettings) -> str:
    """Description of a comparison: its verdicts, then accuracies, and the command.

    `lines` are a line for each network, and then the verdicts and remarks.
    """
    networks, verdicts = lines[: len(settings.ids)], lines[len(settings.ids) :]
    return notes.paragraphs(
        "\n".join(f"- **{line}**" for line in verdicts),
        "\n".join(f"- {line}" for line in networks),
        "By class, and with intervals: `comparison.html`.",
        notes.settings_note(settings),
    )


def candidate(run_id: str, ids: list[str]) -> Candidate:
    """The network or group of a train, evaluate or group run; `ids` are those that are compared."""
    given = queries.get(run_id, "evaluate", "train", "train_seeds", "evaluate_seeds")
    runs = [_evaluation(run) for run in _members(given)]
    trained = [run.data.tags["trained_by"] for run in runs]
    known = [run_id for run_id in trained if run_id != "unknown"]
    source = queries.get(known[0], "train") if known else runs[0]
    settings = dict(source.data.params)
    if known:
        # A setting that was added after the run had its present default in it. Params are parsed,
        # since `mlflow run` records them as they were typed: 2e-4 or 0.0002.
        values = asdict(TrainSettings()) | params.recorded_settings(
            source.data.params, TrainSettings
        )
        settings = {name: str(value) for name, value in values.items()}
    if len(runs) > 1:
        settings["seed"] = ", ".join(queries.get(one, "train").data.params["seed"] for one in known)
    # The default is for runs that are older than the tag.
    is_known = [
        run.data.tags.get("learnt_all_known", str(run.data.tags["trained_by"] != "unknown"))
        for run in runs
    ]
    return Candidate(
        name="ABCDEFGHIJKLMNOPQRSTUVWXYZ"[ids.index(run_id) % 26],
        settings=settings,
        run=run_id,
        digest=runs[0].data.tags["faces_digest"],
        split=runs[0].data.params["split"],
        all_known=all(known == "True" for known in is_known),
        members=tuple(read_predictions(run.info.run_id) for run in runs),
        evaluated=tuple(run.info.run_id for run in runs),
        trained=tuple(known),
    )


def _members(run: Run) -> list[Run]:
    """The train or evaluate runs of a group; the run itself if it is none."""
    if run.info.status != "FINISHED":
        raise InputError(f"run {run.info.run_id} has not finished (it is {run.info.status})")
    match run.data.tags["step"]:
        case "train_seeds":
            return queries.members(run.info.run_id)
        case "evaluate_seeds":
            return queries.children(run.info.run_id, "evaluate")
    return [run]


def _evaluation(run: Run) -> Run:
    """The evaluate run itself, or that of a train run on the test split."""
    if run.data.tags["step"] == "evaluate":
        return run
    digest = run.data.tags.get("dataset_digest", "")
    evaluated = queries.evaluation_of(run.info.run_id, dataset_digest=digest)
    if evaluated is None:
        wanted = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
        group = queries.is_group(wanted)
        raise InputError(
            f"run {run.info.run_id} was not evaluated on test yet; -e evaluate -P "
            f"run={wanted if group else run.info.run_id} does"
        )
    return queries.get(evaluated, "evaluate")
