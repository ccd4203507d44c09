"""Tests of what a person finds in MLflow: experiment, views, names, descriptions, model card."""

import base64
import json
import shlex
import subprocess
import time
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run

from pipeline.data import TEST, TRAIN, dataset
from pipeline.data.dataset import Dataset, unseen
from pipeline.errors import InputError
from pipeline.networks import learnt
from pipeline.percent import percent
from pipeline.reports import notes
from pipeline.runs import addresses, environment, experiment, queries, tracking
from pipeline.runs.views import EVALUATIONS, TRAININGS, VIEWS
from pipeline.settings import EvaluateSettings, IngestSettings, TrainSettings, recipe
from pipeline.steps.evaluate import evaluate
from pipeline.steps.ingest import ingest
from search.settings import GridSettings, SearchSettings
from search.studies import champion
from tests.conftest import Command


def own_experiment() -> Experiment:
    found = MlflowClient().get_experiment_by_name("emotion-search")
    assert found is not None
    return found


def run_of(step: str) -> Run:
    [found] = queries.search(f"tags.step = '{step}'")
    return found


def note_of(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).data.tags["mlflow.note.content"])


def record_one() -> str:
    with tracking.record("ingest", IngestSettings()) as run:
        pass
    return run.id


def test_the_experiment_has_a_description_and_views_that_mlflow_opens(trained: str) -> None:
    tags = own_experiment().tags
    assert "Facial emotion recognition" in tags["mlflow.note.content"]
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    listed = {"trainings": ["train"], "studies": [], "evaluations": ["evaluate"]}
    for view in VIEWS:
        about = json.loads(tags[view.tag])
        state = json.loads(
            zlib.decompress(base64.b64decode(about["state"].removeprefix("deflate;")))
        )
        assert about["name"] == view.name
        found = MlflowClient().search_runs(
            [own_experiment().experiment_id], state["searchFilter"], order_by=[f"{view.order} DESC"]
        )
        assert [run.data.tags["step"] for run in found] == listed[view.key]
    evaluated = run_of("evaluate").data
    for column in EVALUATIONS.columns:
        kind, _, name = column.replace("`", "").partition(".")
        if kind != "attributes":
            assert name in getattr(evaluated, kind), column


def test_views_are_made_once_and_never_over_a_users_own(store: Path) -> None:
    client = MlflowClient()
    client.set_experiment_tag("0", TRAININGS.tag, "the user's")
    client.set_experiment_tag("0", "mlflow.note.content", "mine")
    record_one()
    tags = own_experiment().tags
    assert (tags[TRAININGS.tag], tags["mlflow.note.content"]) == ("the user's", "mine")
    client.delete_experiment_tag("0", EVALUATIONS.tag)
    record_one()
    assert EVALUATIONS.tag not in own_experiment().tags


def test_runs_of_others_keep_their_experiment_and_old_ones_are_found_there(store: Path) -> None:
    old = record_one()
    MlflowClient().rename_experiment("0", "Default")  # as before there was an own experiment
    for view in VIEWS:
        MlflowClient().delete_experiment_tag("0", view.tag)
    with mlflow.start_run():  # of another program
        mlflow.log_param("x", 1)
    assert own_experiment_id(record_one()) != "0"
    default = MlflowClient().get_experiment("0")
    assert (default.name, {view.tag for view in VIEWS} & default.tags.keys()) == ("Default", set())
    assert queries.find(old, "ingest").info.experiment_id == "0"
    assert {run.info.run_id for run in queries.search("tags.step = 'ingest'")} > {old}


def own_experiment_id(run_id: str) -> str:
    found = own_experiment().experiment_id
    assert MlflowClient().get_run(run_id).info.experiment_id == found
    return found


def test_the_environment_names_another_experiment(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    run_id = record_one()
    found = MlflowClient().get_experiment_by_name("faces")
    assert MlflowClient().get_run(run_id).info.experiment_id == found.experiment_id
    assert TRAININGS.tag in found.tags
    assert MlflowClient().get_experiment_by_name("emotion-search") is None
    MlflowClient().delete_experiment(found.experiment_id)
    with pytest.raises(InputError, match="the experiment faces was deleted; `mlflow experiments"):
        record_one()


def test_a_command_ends_with_the_address_of_its_run(command: Command, csv: str) -> None:
    said = command("pipeline.ingest", source=csv)
    run = run_of("ingest")
    address = f"http://127.0.0.1:5000/#/experiments/0/runs/{run.info.run_id}?"
    assert address in said.stdout.splitlines()[-1]


def test_runs_are_named_by_what_differs(trained: str) -> None:
    training = "report · lr 0.002 · batch size 32 · epochs 2 · width 0.05 · seed 0"
    assert run_of("train").info.run_name == training
    accuracy = percent(run_of("evaluate").data.metrics["test/accuracy"])
    assert run_of("evaluate").info.run_name == f"test · {training} · {accuracy}"
    assert run_of("ingest").info.run_name == "faces.csv · 120 images"
    compact = replace(recipe(TrainSettings, "compact"), seed=1)
    assert notes.training_name(compact) == "compact · seed 1"
    long = notes.joined("test", "x" * 200, "seed 1")
    assert len(long) == notes.LONGEST_NAME
    assert long.endswith("x… · seed 1")


def test_a_name_that_a_user_gave_stays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, name in (("adaptable-conch-243", "mine"), ("my first", "my first")):
        made = MlflowClient().create_run("0", run_name=given).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", made)
        with tracking.record("ingest", IngestSettings(), name="mine"):
            pass
        assert MlflowClient().get_run(made).info.run_name == name


def test_a_description_has_the_result_and_a_command_that_repeats_the_run(trained: str) -> None:
    train, tested = note_of(trained), note_of(run_of("evaluate").info.run_id)
    m = run_of("evaluate").data.metrics
    interval = f"{percent(m['test/accuracy_low'])} to {percent(m['test/accuracy_high'])}"
    assert train.startswith(f"**Test accuracy {percent(m['test/accuracy'])}** (95 % interval")
    assert interval in train
    assert interval in tested
    assert "**Validation accuracy" in train
    assert "lr 0.002" in train
    settings = TrainSettings(
        data=run_of("ingest").info.run_id, width=0.05, epochs=2, batch_size=32, lr=0.002
    )
    command = notes.command_line(settings)
    block = train.partition("Repeat it:\n\n")[2].partition("\n\n")[0]
    assert max(map(len, block.splitlines())) < 90, "MLflow's page is widened by a line"
    typed = ["bash", "-c", f"printf '%s\\n' {block}"]
    assert subprocess.check_output(typed, text=True).splitlines() == shlex.split(command)
    assert f"-P data={settings.data}" in command
    assert f"mlflow run . -e evaluate -P run={trained}" in tested


def test_a_run_that_fails_says_why_in_its_description(store: Path) -> None:
    with pytest.raises(ValueError, match="too bad"), tracking.record("grid", GridSettings()) as run:
        raise ValueError("too bad")
    assert note_of(run.id).startswith("**Failed**: ValueError: too bad")


def test_a_description_keeps_no_password(store: Path) -> None:
    storage = "postgresql://me:swordfish@localhost/optuna"
    with tracking.record("study", SearchSettings(storage=storage)) as run:
        run.describe(notes.settings_note(SearchSettings(storage=storage)))
    assert "localhost/optuna" in note_of(run.id)
    assert "swordfish" not in note_of(run.id)


def test_trainings_sort_by_test_accuracy_and_the_model_knows_its_dataset(trained: str) -> None:
    tested = run_of("evaluate").data.metrics
    training = MlflowClient().get_run(trained)
    assert tested.items() <= training.data.metrics.items()
    [output] = training.outputs.model_outputs
    model = MlflowClient().get_logged_model(output.model_id)
    digest = training.data.tags["dataset_digest"]
    assert model.tags["mlflow.note.content"].startswith("# report, a network")
    assert "**Accuracy on test" in model.tags["mlflow.note.content"]
    assert "val/accuracy" in {m.key for m in model.metrics}
    on_dataset = [
        m for m in model.metrics if (m.dataset_name, m.dataset_digest) == ("faces.csv", digest)
    ]
    assert {m.key: m.value for m in on_dataset} == tested


def test_figures_on_another_dataset_stay_off_the_training(trained: str, csv: str) -> None:
    before = MlflowClient().get_run(trained).data.metrics["test/accuracy"]
    other = ingest(IngestSettings(source=csv, seed=7))
    evaluate(EvaluateSettings(data=other))
    history = MlflowClient().get_metric_history(trained, "test/accuracy")
    assert [point.value for point in history] == [before]


def test_the_model_card_lies_beside_the_model_and_within_its_file(trained: str) -> None:
    model_id = queries.logged_model(trained)
    assert model_id is not None
    card = queries.model_text(model_id, "model_card.md")
    assert card is not None
    assert card.index("**Accuracy on test") < card.index("**Accuracy on validation")
    assert card.count("| happy |") == 2
    assert "must not be used to judge people: not for hiring" in card
    file, _ = addresses.model_file(trained)
    with zipfile.ZipFile(file) as archive:
        within = archive.read(learnt.CARD).decode()
    assert "**Accuracy on validation" in within
    assert keras.saving.load_model(file, compile=False).output_shape == (None, 7)


def test_a_bare_file_knows_what_it_has_learnt(trained: str, csv: str) -> None:
    file, _ = addresses.model_file(trained)
    Path("bare.keras").write_bytes(file.read_bytes())
    own = dataset.load(addresses.dataset_folder(addresses.dataset_of(trained)))
    other = ingest(IngestSettings(source=csv, seed=7))
    images = dataset.load(addresses.dataset_folder(other)).part(TEST)[0]
    expected = unseen(images, own.part(TRAIN)[0])
    assert 0 < expected.sum() < len(images)

    told = learnt.read(Path("bare.keras"))
    assert told is not None
    assert told.unseen(images).tolist() == expected.tolist()
    tested = MlflowClient().get_run(evaluate(EvaluateSettings("bare.keras", data=other)))
    assert tested.data.tags["learnt_all_known"] == "True"
    assert f"({expected.sum()} images)" in note_of(tested.info.run_id)


def test_the_newest_dataset_to_evaluate_on_is_called_by_its_run(trained: str) -> None:
    settings = EvaluateSettings("bare.keras", data="latest")
    found = addresses.dataset_to_evaluate(settings, None)
    assert found == addresses.dataset_of(trained)


def test_a_file_that_says_nothing_is_told_from_one_that_learnt_other_images(
    dataset: Dataset, store: Path
) -> None:
    images = dataset.part(TRAIN)[0]
    with zipfile.ZipFile("nothing.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    Path("no zip.keras").write_text("x")
    assert learnt.read(Path("nothing.keras")) is None
    assert learnt.read(Path("no zip.keras")) is None
    first, rest = learnt.learnt_from(images[:10]), learnt.learnt_from(images[10:])
    both = rest.with_earlier(first)
    assert both.complete
    assert not both.unseen(images).any()
    assert not rest.with_earlier(None).complete
    assert rest.unseen(images).tolist() == unseen(images, images[10:]).tolist()


def test_a_file_whose_list_of_training_images_is_damaged_says_nothing(
    dataset: Dataset, store: Path
) -> None:
    file = Path("damaged.keras")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
    learnt.add(file, "", learnt.learnt_from(dataset.part(TRAIN)[0]), dataset.classes)
    with zipfile.ZipFile(file) as archive:
        begin = archive.getinfo(learnt.FACES).header_offset + 30 + len(learnt.FACES)
    whole = file.read_bytes()
    for place in range(begin, begin + 100):  # some end in another error of zlib's than others
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert learnt.read(file) is None


def test_a_registered_model_is_described_by_its_card(trained: str) -> None:
    evaluated = run_of("evaluate").info.run_id
    with tracking.record("study", SearchSettings()) as parent:
        verdict = champion.register(trained, evaluated, addresses.dataset_of(trained), parent)
    client = MlflowClient()
    version = client.get_model_version("emotion", verdict.version)
    assert "**Accuracy on test" in version.description
    assert version.tags["train_run"] == trained
    assert float(version.tags["test/accuracy"]) == pytest.approx(
        run_of("evaluate").data.metrics["test/accuracy"], abs=1e-4
    )
    model = client.get_registered_model("emotion")
    assert "must not be used to judge people" in model.description


def test_the_environment_is_one_artifact(trained: str) -> None:
    recorded = mlflow.artifacts.load_dict(f"runs:/{trained}/environment.json")
    assert recorded["packages"]["keras"] == keras.__version__
    assert recorded["packages"]["numpy"] == np.__version__
    assert recorded["device"]["threads"] > 0
    assert recorded["device"]["processor"]
    assert recorded["processor_affinity"]
    assert recorded["git"]["changed"] in (True, False, "unknown")


@pytest.fixture
def repository(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a repository of its own, with a tracked and a tracked but ignored file."""
    folder = store / "project"
    folder.mkdir()
    (folder / ".gitignore").write_text("*.secret\n")
    for name in ("code.py", "key.secret"):
        (folder / name).write_text("old\n")
    for arguments in (["init", "-q"], ["add", "-f", "."], ["commit", "-qm", "first"]):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True)
    monkeypatch.setattr(environment, "ROOT", folder)
    for cached in (environment.environment, environment.changes):
        cached.cache_clear()
        monkeypatch.setattr(environment, cached.__name__, cached.__wrapped__)
    return folder


def test_uncommitted_changes_are_kept_without_ignored_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.environment()["git"]["changed"] is False
    assert environment.changes() == ""
    for name in ("code.py", "key.secret"):
        (repository / name).write_text("new\n")
    (repository / "note.secret").write_text("untracked\n")
    assert environment.environment()["git"]["changed"] is True
    assert "+new" in environment.changes()
    assert "secret" not in environment.changes()
    monkeypatch.setattr(environment, "LONGEST_DIFF", 20)
    assert "[cut:" in environment.changes()


def test_without_git_and_in_anothers_repository_the_commit_is_unknown(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = {"commit": "unknown", "changed": "unknown"}
    within = repository / "within"
    within.mkdir()
    monkeypatch.setattr(environment, "ROOT", within)  # a copy in some other repository
    assert environment.environment()["git"] == unknown
    monkeypatch.setattr(environment, "ROOT", repository)
    monkeypatch.setenv("PATH", "")
    assert environment.environment()["git"] == unknown
    assert "mlflow.source.git.commit" not in tracking._commit_tag()


def test_a_long_training_has_system_metrics_and_a_short_one_has_none(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def system_metrics() -> set[str]:
        with tracking.record("train", TrainSettings()) as run:
            time.sleep(1.5)
        names = MlflowClient().get_run(run.id).data.metrics
        return {name for name in names if name.startswith("system/")}

    assert system_metrics() == set()
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    assert "system/cpu_utilization_percentage" in system_metrics()


def test_make_ui_opens_the_trainings(store: Path) -> None:
    address = experiment.view_address(port=5050)
    assert address.startswith("http://127.0.0.1:5050/#/experiments/0/runs?")
    assert address.endswith("workflowType=machine_learning&viewStateShareKey=trainings")
