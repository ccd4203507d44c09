"""ONNX files give what Keras gives, for every test-time augmentation, and say so in the record."""

import zipfile
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from pipeline.data import CLASSES, VALIDATION, dataset, sample
from pipeline.errors import InputError
from pipeline.exported import network
from pipeline.networks import ensemble, exportable, files, learnt
from pipeline.networks.temperature import with_temperature
from pipeline.networks.tta import with_tta
from pipeline.percent import percent
from pipeline.runs import addresses
from pipeline.settings import EvaluateSettings
from pipeline.steps.evaluate import evaluate
from tests.commands import ROOT
from tests.conftest import Command

FACES = sample.draw(count=70, seed=5)[0][..., np.newaxis]


@pytest.mark.parametrize("tta", ["none", "flip", "flip_rotate"])
def test_an_onnx_file_answers_as_keras_does(tta: str, tmp_path: Path) -> None:
    saved = files.load(ROOT / "models" / "compact.keras")
    assert exportable.augmentation(saved) == "flip_rotate"
    inner = next(layer for layer in saved.layers if isinstance(layer, keras.Model))
    expected = files.predict(with_temperature(with_tta(inner, tta), 1.5), FACES)
    calibrated = exportable.exportable(with_temperature(saved, 1.5), tta)
    exportable.write_onnx(calibrated, tmp_path / "n.onnx")
    found = network.load(tmp_path / "n.onnx").predict(FACES)
    assert abs(found - expected).max() < 1e-5


def test_the_mean_of_two_networks_is_saved_in_one_file_and_exported(tmp_path: Path) -> None:
    saved = [files.load(ROOT / "models" / f"{name}.keras") for name in ("compact", "compact-votes")]
    each = [files.predict(one, FACES) for one in saved]
    ensemble.mean(saved).save(tmp_path / "mean.keras")
    loaded = files.load(tmp_path / "mean.keras")
    expected = files.predict(loaded, FACES)
    assert abs(np.mean(each, axis=0) - expected).max() < 1e-5
    assert abs(each[0] - each[1]).max() > 0.1
    nested = ensemble.mean([loaded, saved[0]])
    assert exportable.augmentation(nested) == "flip_rotate"
    exportable.write_onnx(exportable.exportable(nested, "flip_rotate"), tmp_path / "mean.onnx")
    found = network.load(tmp_path / "mean.onnx").predict(FACES)
    assert abs(found - (expected + each[0]) / 2).max() < 1e-5
    with pytest.raises(InputError, match="made of several networks; give one of them"):
        files.copy_weights(saved[0], loaded, "mean.keras")


@pytest.mark.slow
def test_an_ensemble_is_measured_beside_its_members(command: Command, trained: str) -> None:
    other, data = str(ROOT / "models" / "compact-votes.keras"), addresses.dataset_of(trained)
    done = command("pipeline.ensemble", run=f"{trained},{other}")
    assert done.returncode == 0, done.stderr
    [run] = mlflow.MlflowClient().search_runs(["0"], "tags.step = 'ensemble'")
    whole = run.data.metrics["val/accuracy"]
    assert f"validation accuracy {percent(whole)}" in done.stdout
    assert "mlflow run . -e ensemble " in run.data.tags["mlflow.note.content"]
    card = zipfile.ZipFile("ensemble.keras").read(learnt.CARD).decode()
    assert f"`{trained}`" in card
    assert f"`{other}`" in card

    both = addresses.model_files(f"{trained},{other}")[0]
    images, labels = dataset.load_without_test(addresses.dataset_folder(data)).part(VALIDATION)
    each = [files.predict(files.load(file), images) for file in both.values()]
    assert (np.mean(each, axis=0).argmax(axis=1) == labels).mean() == pytest.approx(whole, abs=1e-4)
    seen = {hash_ for file in both.values() for hash_ in learnt.read(file).hashes}  # type: ignore
    assert set(learnt.read(Path("ensemble.keras")).hashes) == seen  # type: ignore[union-attr]

    done = command("pipeline.evaluate", run="ensemble.keras", data=data, split="validation")
    assert f"accuracy {percent(whole)}" in done.stdout, done.stderr

    done = command("pipeline.ensemble", run=f"{trained},ensemble.keras", file="ensemble.keras")
    assert "file=ensemble.keras: is one of the networks" in done.stderr

    done = command("pipeline.ensemble", run=trained)
    assert done.returncode == 2
    assert "expected two or more networks" in done.stderr


@pytest.mark.slow
def test_export_keeps_both_precisions_on_the_training(command: Command, trained: str) -> None:
    done = command("pipeline.export", run=trained)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient()
    names = [f"{trained[:8]}-none-{precision}.onnx" for precision in ("float32", "int8")]
    assert [file.path for file in client.list_artifacts(trained, "onnx")] == [
        f"onnx/{name}" for name in names
    ]
    assert client.get_run(trained).data.tags["onnx"] == f"onnx/{names[0]}"
    [run] = client.search_runs(["0"], "tags.step = 'export'")
    assert run.data.metrics["float32/largest_difference"] < 1e-5
    assert run.data.metrics["int8/megabytes"] < run.data.metrics["float32/megabytes"]
    answers = [network.load(Path("exported") / name).predict(FACES) for name in names]
    assert answers[0].shape == (len(FACES), len(CLASSES))
    assert 0 < abs(answers[0] - answers[1]).max() < 0.1

    exported, data = str(Path("exported") / names[0]), addresses.dataset_of(trained)
    measured = client.get_run(evaluate(EvaluateSettings(run=exported, data=data))).data.metrics
    accuracy = client.get_run(trained).data.metrics["test/accuracy"]
    assert measured["test/accuracy"] == accuracy

    done = command("pipeline.predict", runs=trained)
    assert done.returncode == 0
    assert f"note: {trained}: its export {names[0]} is used, without Keras" in done.stderr


def test_a_bare_file_needs_faces_to_calibrate_on(command: Command) -> None:
    done = command("pipeline.export", run=ROOT / "models" / "compact.keras")
    assert done.returncode == 2
    assert "a bare file has no dataset of its own; give data=" in done.stderr


def test_an_operation_that_onnx_lacks_is_refused(tmp_path: Path) -> None:
    saved = files.load(ROOT / "models" / "compact.keras")
    exportable.write_onnx(saved, tmp_path / "n.onnx")  # with Keras' own affine_transform
    with pytest.raises(InputError, match="ONNX Runtime can't load it"):
        network.load(tmp_path / "n.onnx")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="ONNX Runtime can't load it"):
        network.load(tmp_path / "n.onnx")
