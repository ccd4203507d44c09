"""The served model takes the faces that users hold, or says in one sentence why it does not."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from pipeline.data import sample
from pipeline.runs import addresses, tracking
from pipeline.runs.served_network import RefusedFaces, as_faces
from pipeline.settings import EvaluateSettings, TrainSettings
from pipeline.steps.evaluate import evaluate
from tests.commands import ROOT, Child, free_port
from tests.conftest import copy_stores

FACES = sample.draw(count=70, seed=5)[0][:2, ..., np.newaxis]
TAKEN: dict[str, Callable[[NDArray], Any]] = {
    "grey levels": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "float32": lambda x: x.astype(np.float32),
    "no channel axis": lambda x: x[..., 0],
    "rows of pixels": lambda x: x.reshape(2, -1),
    "lists": lambda x: x.tolist(),
    "one face": lambda x: x[0],
    "one face without axes": lambda x: x[0, ..., 0],
    "one row": lambda x: x[0].reshape(-1),
    "a table": lambda x: pd.DataFrame(x.reshape(2, -1)),
}
REFUSED: dict[str, tuple[Callable[[NDArray], Any], str]] = {
    "fractions": (lambda x: x / 255, "fractions; do not divide by 255"),
    "one fraction": (lambda x: x + 0.5 * (np.arange(2) == 1)[:, None, None, None], "fractions"),
    "a face of 0 and 1": (lambda x: (x > 99).astype(np.uint8), "face 0 has no value above 1"),
    "a black second face": (lambda x: x * np.array([1, 0])[:, None, None, None], "face 1 has no"),
    "too large": (lambda x: x.astype(int) + 99, "values from 110 to 348"),
    "negative": (lambda x: x.astype(int) - 99, "values from -"),
    "not finite": (lambda x: np.where(x == x.max(), np.nan, x), "not a finite number"),
    "channels first": (lambda x: x[:, None, ..., 0], "faces of shape (2, 1, 48, 48): expected"),
    "no face": (lambda x: x[:0], ": expected (N, 48, 48, 1)"),
    "different shapes": (lambda x: [x[0].tolist(), [1, 2]], "the faces differ in shape"),
    "words": (lambda x: [["a"] * 2304], "some values are not numbers"),
    "a table without header": (
        lambda x: pd.DataFrame(x[1:].reshape(1, -1), columns=range(9, 2313)),
        "has become its header",
    ),
}  # fmt: skip
Post = Callable[[str, bytes], tuple[int, Any]]


@pytest.mark.parametrize("kind", TAKEN)
def test_whole_grey_levels_are_taken_in_any_type_and_shape(kind: str) -> None:
    expected = FACES[:1] if kind.startswith("one ") else FACES
    taken = as_faces(TAKEN[kind](FACES))
    assert taken.dtype == np.uint8
    assert np.array_equal(taken, expected)


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_and_never_changed(kind: str) -> None:
    change, reason = REFUSED[kind]
    with pytest.raises(RefusedFaces) as refused:
        as_faces(change(FACES))
    assert reason in refused.value.sentence
    assert "\n" not in refused.value.sentence


@pytest.mark.slow
def test_the_logged_model_predicts_as_its_keras_file_does(trained: str) -> None:
    address = f"runs:/{trained}/model"
    file, trained_by = addresses.model_file(address)
    assert trained_by == trained
    direct = keras.saving.load_model(file, compile=False).predict(FACES, verbose=0)
    served = mlflow.pyfunc.load_model(address)
    for kind in ("int64", "lists", "a table"):
        assert np.array_equal(served.predict(TAKEN[kind](FACES)), direct)
    assert np.array_equal(mlflow.keras.load_model(address).predict(FACES, verbose=0), direct)


@pytest.mark.slow
def test_a_model_that_was_logged_by_mlflows_keras_is_still_evaluated(trained: str) -> None:
    """As in the versions before `served_network`."""
    network = mlflow.keras.load_model(f"runs:/{trained}/model")
    tags = MlflowClient().get_run(trained).data.tags
    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, 48, 48, 1))])
    with tracking.record("train", TrainSettings()) as run:
        run.tag(dataset=tags["dataset"], dataset_digest=tags["dataset_digest"])
        signature = ModelSignature(inputs)
        mlflow.keras.log_model(network, name="model", signature=signature, pip_requirements=[])
    old, new = (
        MlflowClient().get_run(evaluate(EvaluateSettings(run=run_id))).data.metrics
        for run_id in (run.id, trained)
    )
    assert old == new


@pytest.fixture(scope="module")
def champion(main_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a training whose model is registered as the champion."""
    folder = tmp_path_factory.mktemp("served")
    copy_stores(main_run, folder)
    store = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(store, store)
    [model] = client.search_logged_models(["0"])
    client.create_registered_model("emotion")
    version = client.create_model_version(
        "emotion", model.artifact_location, model.source_run_id, model_id=model.model_id
    )
    client.set_registered_model_alias("emotion", "champion", version.version)
    return folder


@pytest.fixture(scope="module")
def address(champion: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Address of the server that the documented command starts."""
    port = str(free_port())
    [words] = [line.split() for line in documented("sh") if line.startswith("mlflow models serve")]
    server = Child(
        words[0], [port if word == "5001" else word for word in words[1:]], champion, environment
    )
    try:
        server.wait_for("Uvicorn running on")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()


@pytest.fixture
def post(address: str) -> Post:
    def send(content: str, body: bytes) -> tuple[int, Any]:
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": content})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)["predictions"]
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)["message"]

    return send


def documented(language: str) -> list[str]:
    """The lines of the blocks of code in docs/serving.md."""
    text = (ROOT / "docs" / "serving.md").read_text()
    return "".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)).splitlines()


def as_json(data: Any, name: str = "inputs") -> bytes:
    if isinstance(data, pd.DataFrame):
        return json.dumps({"dataframe_split": data.to_dict(orient="split")}, default=int).encode()
    return json.dumps({name: np.asarray(data).tolist()}).encode()


@pytest.mark.slow
def test_the_scoring_server_answers_with_probabilities_or_with_one_sentence(post: Post) -> None:
    status, expected = post("application/json", as_json(FACES))
    assert status == 200
    assert np.sum(expected, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    for kind, change in TAKEN.items():
        status, answer = post("application/json", as_json(change(FACES)))
        rows = expected[:1] if kind.startswith("one ") else expected
        assert status == 200, kind
        assert np.allclose(answer, rows, atol=1e-6), kind
    for kind, (change, reason) in REFUSED.items():
        if kind in ("not finite", "different shapes"):  # no JSON of numpy's
            continue
        status, answer = post("application/json", as_json(change(FACES)))
        assert status == 400, kind
        assert reason in answer, kind
        assert len(answer) < 120, "the sentence alone, without the faces"


@pytest.mark.slow
def test_the_scoring_server_takes_other_forms_of_a_request(post: Post) -> None:
    _, expected = post("application/json", as_json(FACES))
    table = pd.DataFrame(FACES.reshape(2, -1))
    for content, body in (
        ("application/json", as_json(FACES, "instances")),
        ("text/csv", table.to_csv(index=False).encode()),
    ):
        status, answer = post(content, body)
        assert status == 200, content
        assert np.allclose(answer, expected, atol=1e-6)
    status, answer = post("text/csv", table.to_csv(index=False, header=False).encode())
    assert (status, "header" in answer) == (400, True)
    status, answer = post("application/json", b'{"inputs": [[1, 2], [3]]}')
    assert (status, "inhomogeneous shape" in answer) == (400, True)
    status, answer = post("application/json", b'{"inputs": {"a": 1}}')
    assert (status, answer) == (
        400,
        "expected whole grey levels 0 to 255: some values are not numbers",
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_documented_calls_from_python_and_by_curl_agree(
    champion: Path, address: str, environment: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{champion}/mlflow.db")
    exec("\n".join(documented("python")), {})
    called = capsys.readouterr().out.strip()
    make, curl = documented("sh")[1:]
    script = f"{make}\n{curl}".replace("http://127.0.0.1:5001", address)
    done = subprocess.run(
        ["bash", "-c", script], cwd=champion, env=environment, capture_output=True, check=True
    )
    assert called == str(np.argmax(json.loads(done.stdout)["predictions"], axis=1))
