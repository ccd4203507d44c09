"""The experiment that holds the runs: made and described once, with saved views, and its addresses.

It is `emotion-search`, or what MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID says. In a database
of this project alone, MLflow's experiment 0, in which `mlflow run` starts its runs, gets that name.
"""

import os
import sys
import time

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from pipeline import secrets
from pipeline.errors import InputError
from pipeline.runs.signals import PROJECT_RUN
from pipeline.runs.views import TRAININGS, VIEWS, View

NAME = "emotion-search"
NAME_VARIABLE, ID_VARIABLE = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
DEFAULT_ID, DEFAULT_NAME = "0", "Default"
DESCRIBED = "emotion_search.described"
"""Tag of an experiment that was given a description and views: what a user deletes stays so."""
KIND = "mlflow.experimentKind"
NOTE = "mlflow.note.content"
PORT = 5000
LOCAL = "sqlite:"
MODEL_TRAINING = "workflowType=machine_learning"
"""Opens MLflow's pages for model training instead of those for language models."""

_TEXT = """Facial emotion recognition: every dataset, training, evaluation and search is a run here.

**Views** (the menu above the table): *Trainings*, the best on test first; *Studies*, searches with
their trials; *Evaluations*, every one on the test images. A run's page begins with its result and
the command that repeats it. Which of two networks is better: `mlflow run . -e compare -P
runs=ID,ID`.

The networks read posed and acted expressions in small grey images. They must not be used to judge
people.
"""


def use(run_id: str | None = None) -> str:
    """Id of the experiment for a new run, or of the run `run_id`, described if it is ours.

    Raises InputError if the experiment was deleted.
    """
    client = MlflowClient()
    joined = run_id or os.environ.get(PROJECT_RUN)
    if joined:
        found = client.get_experiment(client.get_run(joined).info.experiment_id)
    else:
        found = _chosen(client) or _find_or_create(client, NAME)
    if _is_adoptable(client, found):
        client.rename_experiment(DEFAULT_ID, NAME)
        found = client.get_experiment(DEFAULT_ID)
    if found.lifecycle_stage != "active":
        raise InputError(
            f"the experiment {found.name} was deleted; `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}` brings it back"
        )
    if found.name in (NAME, os.environ.get(NAME_VARIABLE)):
        _describe(client, found)
    return str(found.experiment_id)


def _chosen(client: MlflowClient) -> Experiment | None:
    """The experiment that the user's environment names."""
    if name := os.environ.get(NAME_VARIABLE):
        return _find_or_create(client, name)
    chosen = os.environ.get(ID_VARIABLE)
    return client.get_experiment(chosen) if chosen else None


def _find_or_create(client: MlflowClient, name: str) -> Experiment:
    if found := client.get_experiment_by_name(name):
        return found
    default = client.get_experiment(DEFAULT_ID) if name == NAME else None
    if default and _is_adoptable(client, default):
        return default
    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)  # another process was faster


def _is_adoptable(client: MlflowClient, found: Experiment) -> bool:
    """Whether `found` is experiment 0 of a local database, unnamed, with our runs alone."""
    is_default = (found.experiment_id, found.name) == (DEFAULT_ID, DEFAULT_NAME)
    is_local = mlflow.get_tracking_uri().startswith(LOCAL)
    if not (is_default and is_local) or os.environ.get(NAME_VARIABLE):
        return False
    if found.lifecycle_stage != "active" or client.get_experiment_by_name(NAME):
        return False
    runs = client.search_runs([DEFAULT_ID], max_results=1000)
    return all({"step", "mlflow.project.entryPoint"} & run.data.tags.keys() for run in runs)


def _describe(client: MlflowClient, found: Experiment) -> None:
    """Give the experiment its description and views, once and beside what is there already."""
    if DESCRIBED in found.tags:
        return
    now = time.time_ns() // 1_000_000
    wanted = {NOTE: _TEXT, KIND: "custom_model_development"}
    wanted |= {view.tag: view.value(now) for view in VIEWS}
    for name, value in {**wanted, DESCRIBED: "1"}.items():
        if name not in found.tags:
            client.set_experiment_tag(found.experiment_id, name, value)


def run_link(run_id: str) -> str:
    """Address of a run's page within MLflow's pages."""
    experiment = MlflowClient().get_run(run_id).info.experiment_id
    return f"#/experiments/{experiment}/runs/{run_id}?{MODEL_TRAINING}"


def run_address(run_id: str, port: int = PORT) -> str:
    """Address of a run's page in the browser."""
    return f"{_server(port)}/{run_link(run_id)}"


def view_address(view: View = TRAININGS, port: int = PORT) -> str:
    """Address of a saved view in the browser."""
    query = f"{MODEL_TRAINING}&viewStateShareKey={view.key}"
    return f"{_server(port)}/#/experiments/{use()}/runs?{query}"


def _server(port: int) -> str:
    """Address of the server, or of the one that `mlflow ui` starts."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("http"):
        return secrets.without_user(uri).rstrip("/")
    return f"http://127.0.0.1:{port}"


if __name__ == "__main__":  # for `make ui`
    from pipeline.runs.queries import use_store

    use_store()
    print(view_address(port=int(sys.argv[1])))
