"""Registration of a study's winner as the model `emotion`.

It becomes champion only if McNemar's test says that it beats the present champion on test faces.
"""

import io
from contextlib import redirect_stderr

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.data import CLASSES
from pipeline.errors import InputError
from pipeline.percent import percent
from pipeline.reports import metrics, model_card
from pipeline.runs import queries
from pipeline.runs.tracking import Run
from pipeline.settings import EvaluateSettings
from search.comparisons.paired_tests import SIGNIFICANT, classes_of, common_faces, read_predictions
from search.jobs import EVALUATE_CHILD, job
from search.studies.results import Verdict

NAME = "emotion"
LONGEST_DESCRIPTION = 5_000
"""Maximum characters of a version's description in MLflow."""
DESCRIPTION = f"""Networks that read expressions in grey images of one face, 48x48 pixels.

The alias `champion` is the best so far on test images, `challenger` the one that was registered
last and is not better, by McNemar's test. Each version's description is its model card.

    mlflow run . -e evaluate -P run=models:/{NAME}@champion

{model_card.NOT_FOR}
"""
CHAMPION, CHALLENGER = "champion", "challenger"


def register(run_id: str, evaluated: str, data: str, parent: Run) -> Verdict:
    """Register the model of the train run `run_id`, whose evaluate run on `data` is `evaluated`.

    It becomes champion if there is none, or if it beats the present one on the same test faces
    (McNemar, p < 0.05), otherwise challenger. Faces that only one of the two was trained on are
    left out. A champion that can't be evaluated on these faces, or has other classes, remains
    champion.
    """
    client = MlflowClient()
    present = _champion(client)
    if present is not None and present.run_id == run_id:
        return Verdict(present.version, CHAMPION, "It is the champion already.")
    classes = ", ".join(classes_of(evaluated))
    alias, reason = _judge(present, evaluated, data, classes, parent)
    known = client.search_model_versions(f"name = '{NAME}' and run_id = '{run_id}'")
    version = known[0] if known else _new_version(run_id, evaluated, classes)
    client.set_registered_model_alias(NAME, alias, version.version)
    return Verdict(version.version, alias, reason)


def _new_version(run_id: str, evaluated: str, classes: str) -> ModelVersion:
    """Register the model of a train run, described by its model card."""
    client, run = MlflowClient(), queries.get(run_id, "train")
    tested = queries.test_accuracy(evaluated)
    tags = {"network": run.data.params["network"], "train_run": run_id, "evaluate_run": evaluated}
    tags["classes"] = classes
    tags |= {name: f"{value:.4f}" for name, value in tested.items() if name == "test/accuracy"}
    with redirect_stderr(io.StringIO()):  # MLflow prints three lines on what it registers
        version = mlflow.register_model(f"runs:/{run_id}/model", NAME, tags=tags)
    model_id = queries.logged_model(run_id)
    card = queries.model_text(model_id, model_card.FILE) if model_id else None
    if card:
        client.update_model_version(NAME, version.version, card[:LONGEST_DESCRIPTION])
    if not client.get_registered_model(NAME).description:
        client.update_registered_model(NAME, DESCRIPTION)
        client.set_registered_model_tag(NAME, "classes", classes)
    return version


def _champion(client: MlflowClient) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(NAME, CHAMPION)
    except MlflowException:
        return None  # no such model yet, or none of its versions has the alias


def _judge(
    present: ModelVersion | None, evaluated: str, data: str, classes: str, parent: Run
) -> tuple[str, str]:
    if present is None:
        return CHAMPION, "There was no champion to beat."
    if (its := present.tags.get("classes", ", ".join(CLASSES))) != classes:
        return CHALLENGER, f"It can't be compared with the champion, whose classes are {its}."
    try:
        runs = (evaluated, _evaluation_of(present, evaluated, data, parent))
        new, old = common_faces([read_predictions(run) for run in runs])
    except InputError as error:  # its run was deleted, or it was trained on all of these faces
        return CHALLENGER, f"It can't be compared with the champion ({error})."
    only_new, only_old, p = metrics.mcnemar(new.correct, old.correct)
    figures = (
        f"{percent(new.accuracy)} against {percent(old.accuracy)} on the same "
        f"{len(new.correct):,} test faces, McNemar p = {p:.2g}."
    )
    if p >= SIGNIFICANT:
        return CHALLENGER, f"It shows no significant difference from the champion, {figures}"
    if only_new > only_old:
        return CHAMPION, f"It beats version {present.version}, the champion before: {figures}"
    return CHALLENGER, f"The champion is better: {figures}"


def _evaluation_of(present: ModelVersion, evaluated: str, data: str, parent: Run) -> str:
    """Id of the champion's evaluate run on the same test faces, created if there is none."""
    digest = queries.get(evaluated, "evaluate").data.tags["faces_digest"]
    if present.run_id and (existing := queries.evaluation_of(present.run_id, faces_digest=digest)):
        return existing
    settings = EvaluateSettings(run=f"models:/{NAME}/{present.version}", data=data)
    return job.run_single(EVALUATE_CHILD, settings, parent.id, name="the champion's evaluation")
