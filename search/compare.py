"""Which of several networks is better on the same test faces, and which can't be told apart.

mlflow run . -e compare -P runs=ID,ID
python -m search.compare --runs ID,ID,ID                   evaluate runs, or evaluated train runs
"""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline import InputError, command
from pipeline.settings import CompareSettings, TrainSettings

if TYPE_CHECKING:
    from search.paired import Candidate


def compare(settings: CompareSettings) -> str:
    """Record a comparison and return its run's id."""
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from pipeline import tracking
    from search import comparison_page, paired

    candidates = [_candidate(run, settings.ids) for run in settings.ids]
    paired.require_same_faces(candidates)
    faces = len(candidates[0].predictions.labels)
    fair = paired.fair([candidate.predictions for candidate in candidates])
    candidates = [replace(c, predictions=p) for c, p in zip(candidates, fair, strict=True)]
    left_out = faces - len(fair[0].labels)
    pairs = paired.every_pair(fair)
    with tracking.record("compare", settings) as run, TemporaryDirectory() as scratch:
        run.tag(faces_digest=candidates[0].digest)
        page = Path(scratch) / "comparison.html"
        page.write_text(comparison_page.render(candidates, pairs, left_out))
        run.log_file(page)
    print(comparison_page.as_text(candidates, pairs, left_out))
    print(f"compare run {run.id}: comparison.html")
    return run.id


def _candidate(run_id: str, ids: list[str]) -> "Candidate":
    from pipeline import records
    from search.paired import Candidate, read_predictions

    run = records.get(run_id, "evaluate", "train")
    trained = run
    if run.data.tags["step"] == "train":
        digest = run.data.tags.get("dataset_digest", "")
        evaluated = records.evaluation_of(run_id, dataset_digest=digest)
        if evaluated is None:
            raise InputError(
                f"run {run_id} was not evaluated on test yet; -e evaluate -P run={run_id} does"
            )
        run = records.get(evaluated, "evaluate")
    elif (trained_by := run.data.tags["trained_by"]) != "unknown":
        trained = records.get(trained_by, "train")
    if run.info.status != "FINISHED":
        raise InputError(f"run {run_id} has not finished (it is {run.info.status})")
    settings = dict(trained.data.params)
    if trained.data.tags["step"] == "train":
        # A setting that is younger than the run had what is now its default there. By their values:
        # `mlflow run` has them as they were typed, 2e-4 or 0.0002.
        values = asdict(TrainSettings()) | records.recorded_settings(trained, TrainSettings)
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


if __name__ == "__main__":
    command.run(CompareSettings, compare)
