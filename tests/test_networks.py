"""Tests of the networks: architecture, input in grey levels, files, TTA and batch norm."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import initializers, layers
from numpy.typing import NDArray
from scipy import ndimage

from pipeline import cli
from pipeline.data import CLASSES
from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.networks import batch_norm, files
from pipeline.networks.batch_norm import Recalibration
from pipeline.networks.build import build
from pipeline.networks.layers import FusedBatchNormalization
from pipeline.networks.tta import ROTATION, with_tta
from pipeline.registry import NETWORKS
from pipeline.settings import TrainSettings, recipe
from search.jobs.tasks import measure
from tests import tiny
from tests.commands import ROOT

# The report's "Data Model Summary": layer, output shape, parameters.
REPORT_TABLE = [
    ("Conv2D", (48, 48, 32), 320),
    ("Conv2D", (48, 48, 64), 18_496),
    ("BatchNormalization", (48, 48, 64), 256),
    ("MaxPooling2D", (24, 24, 64), 0),
    ("Dropout", (24, 24, 64), 0),
    ("Conv2D", (24, 24, 128), 204_928),
    ("BatchNormalization", (24, 24, 128), 512),
    ("MaxPooling2D", (12, 12, 128), 0),
    ("Dropout", (12, 12, 128), 0),
    ("Conv2D", (12, 12, 512), 590_336),
    ("BatchNormalization", (12, 12, 512), 2_048),
    ("MaxPooling2D", (6, 6, 512), 0),
    ("Dropout", (6, 6, 512), 0),
    ("Conv2D", (6, 6, 512), 2_359_808),
    ("BatchNormalization", (6, 6, 512), 2_048),
    ("MaxPooling2D", (3, 3, 512), 0),
    ("Dropout", (3, 3, 512), 0),
    ("Conv2D", (3, 3, 512), 2_359_808),
    ("BatchNormalization", (3, 3, 512), 2_048),
    ("MaxPooling2D", (1, 1, 512), 0),
    ("Dropout", (1, 1, 512), 0),
    ("Flatten", (512,), 0),
    ("Dense", (256,), 131_328),
    ("BatchNormalization", (256,), 1_024),
    ("Dropout", (256,), 0),
    ("Dense", (512,), 131_584),
    ("BatchNormalization", (512,), 2_048),
    ("Dropout", (512,), 0),
    ("Dense", (7,), 3_591),
]


def test_the_reports_network_is_the_reports_table() -> None:
    model = build(TrainSettings(), precision="float32")
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Rescaling)]
    table = [(type(x).__name__, x.output.shape[1:], x.count_params()) for x in layers]
    assert table == REPORT_TABLE
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert (model.count_params(), trainable) == (5_810_183, 5_805_191)
    assert "5,810,183" in files.summary(model)
    assert "4,992" in files.summary(model)


def test_all_convolutions_are_same_padded_relu_and_two_carry_the_penalty() -> None:
    model = build(TrainSettings(), precision="float32")
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert {(x.padding, x.activation.__name__) for x in convolutions} == {("same", "relu")}
    assert [x.kernel_size[0] for x in convolutions] == [3, 3, 5, 3, 3, 3]
    penalised = [x.filters for x in convolutions if x.kernel_regularizer is not None]
    assert penalised == [512, 512]


@pytest.mark.parametrize(("network", "penalised", "dropouts"), [("report", 2, 7), ("strong", 7, 1)])
def test_dropout_and_penalty_are_those_of_the_settings(
    network: str, penalised: int, dropouts: int
) -> None:
    settings = TrainSettings(network=network, width=0.05, dropout=0.35, l2=0.002)
    inside = build(settings, precision="float32").layers
    rates = [x.rate for x in inside if isinstance(x, keras.layers.Dropout)]
    penalties = [x.kernel_regularizer for x in inside if isinstance(x, keras.layers.Conv2D)]
    assert rates == [0.35] * dropouts
    assert [float(x.l2) for x in penalties if x] == pytest.approx([0.002] * penalised)


def test_width_and_kernel_change_the_convolutions() -> None:
    model = build(TrainSettings(width=0.5, kernel=5), precision="float32")
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert [x.filters for x in convolutions] == [16, 32, 64, 256, 256, 256]
    assert [x.kernel_size[0] for x in convolutions] == [5, 5, 7, 5, 5, 5]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_saved_network_takes_raw_faces_and_gives_probabilities(
    dataset: Dataset, tmp_path: Path, precision: str
) -> None:
    model = build(TrainSettings(width=0.1), precision=precision)
    model.save(tmp_path / "network.keras")
    images = dataset.images[:10, ..., np.newaxis]
    probabilities = files.predict(files.load(tmp_path / "network.keras"), images)
    assert probabilities.shape == (10, 7)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(10), abs=1e-5)
    assert keras.config.dtype_policy().name == "float32", "the global policy is left as it was"


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"lrr": 0.1}, "its recipe has lrr, which is no setting"),
        ({"lr": "0.1"}, "its recipe has lr='0.1', expected float"),
        ({"data": "faces"}, "its recipe has data, which is no setting"),
        (["lr"], "its recipe is no dict"),
    ],
)
def test_a_recipe_of_other_than_settings_is_refused(
    own: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.network, "recipe", own, raising=False)
    with pytest.raises(InputError, match=f"network={tiny.TINY}: {said}"):
        cli.parse(TrainSettings, ["--network", tiny.TINY])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.keras").write_text("no model")
    with zipfile.ZipFile(tmp_path / "renamed.keras", "w") as file:
        file.writestr("fer2013.csv", "emotion,pixels")
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([keras.layers.Dense(7)]).save(tmp_path / "unbuilt.keras")
    for name in ("notes", "renamed", "unbuilt"):
        with pytest.raises(InputError, match=f"{name}.keras: no Keras model"):
            files.load(tmp_path / f"{name}.keras")


def test_a_model_for_other_pictures_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(7)]
    )
    model.save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=r"takes \(None, 32, 32, 3\)"):
        files.load(tmp_path / "other.keras")


def small(file: Path, activation: str | None = "softmax", weight: float = 0.0) -> Path:
    """Save a network of one dense layer."""
    images = keras.Input((48, 48, 1))
    dense = layers.Dense(7, activation=activation, bias_initializer=initializers.Constant(weight))
    keras.Model(images, dense(layers.Flatten()(images))).save(file)
    return file


def test_a_file_that_declares_far_more_weights_than_it_holds_is_refused(tmp_path: Path) -> None:
    whole, huge = small(tmp_path / "whole.keras"), tmp_path / "huge.keras"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(huge, "w") as out:
        for name in source.namelist():
            out.writestr(name, source.read(name).replace(b'"units": 7', b'"units": 1000000000'))
    with pytest.raises(InputError, match="declares more than .* weights"):
        files.load(huge)
    files.load(whole)  # what counts the weights is gone


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a weight is not a finite number"):
        files.load(small(tmp_path / "nan.keras", weight=np.nan))


@pytest.mark.parametrize("activation", [None, "sigmoid", "relu"])
def test_scores_that_are_no_probabilities_are_refused(
    tmp_path: Path, activation: str | None
) -> None:
    with pytest.raises(InputError, match="end the network with a softmax"):
        files.load(small(tmp_path / "scores.keras", activation))


@pytest.mark.parametrize("network", ["report", "compact", "strong"])
def test_the_networks_have_their_documented_size(network: str) -> None:
    found = measure(print, recipe(TrainSettings, network), len(CLASSES))
    size = f"{found['parameters']:,} | {found['multiply_adds'] / 1e6:.0f} million"
    assert f"| `{network}` | {size} |" in (ROOT / "docs" / "training.md").read_text()


def separable(settings: TrainSettings, normalise: Any, classes: int) -> keras.Model:
    images = keras.Input((48, 48, 1))
    x = layers.SeparableConv2D(8, 3, padding="same")(images)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes, activation="softmax", dtype="float32")(x))


def test_both_kernels_of_a_separable_convolution_are_counted() -> None:
    found = measure(print, TrainSettings(network="tests.test_networks:separable"), 7)
    assert found["multiply_adds"] == 48 * 48 * (3 * 3 + 8) + 8 * 7


@pytest.mark.parametrize(("policy", "error"), [("float32", 1e-3), ("mixed_bfloat16", 0.05)])
def test_fused_normalisation_computes_what_keras_does(policy: str, error: float) -> None:
    faces = np.random.default_rng(0).normal(3, 2, (64, 6, 6, 4)).astype(np.float32)
    fused = FusedBatchNormalization(dtype=policy)
    plain = keras.layers.BatchNormalization(dtype=policy)
    for training in (True, False):
        ours, theirs = (
            keras.ops.convert_to_numpy(keras.ops.cast(layer(faces, training=training), "float32"))
            for layer in (fused, plain)
        )
        assert ours == pytest.approx(theirs, abs=error)
    states = (files.get_state(layer.weights) for layer in (fused, plain))
    for a, b in zip(*states, strict=True):
        assert a == pytest.approx(b, rel=1e-3)  # biased and unbiased variance of 2,304 values


@pytest.mark.parametrize("network", ["compact", "strong"])
def test_our_networks_take_faces_of_any_size_and_look_past_light_and_contrast(
    dataset: Dataset, network: str
) -> None:
    model = build(recipe(TrainSettings, network), precision="float32")
    faces = dataset.images[:4, ..., np.newaxis]
    assert files.predict(model, faces[:, :32, :32]).shape == (4, len(CLASSES))
    darker = files.predict(model, (faces // 2 + 20).astype(np.uint8))
    assert darker == pytest.approx(files.predict(model, faces), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "views"),
    [*(("compact", views) for views in TrainSettings.fields()["tta"].choices),
     ("strong", "flip_rotate")],
)  # fmt: skip
def test_a_kept_network_averages_its_views_and_loads_without_our_code(
    dataset: Dataset, tmp_path: Path, views: str, network: str
) -> None:
    settings = replace(recipe(TrainSettings, network), width=0.05)
    core = build(settings, precision="float32")
    with_tta(core, views).save(tmp_path / "network.keras")
    faces = dataset.images[:6, ..., np.newaxis]
    kept = files.load(tmp_path / "network.keras")
    answers = files.predict(kept, faces)
    crops = [
        faces[:, top : top + 44, left : left + 44]
        for top, left in ((2, 2), (0, 0), (0, 4), (4, 0), (4, 4))
    ]
    turned = [
        ndimage.rotate(faces.astype(np.float32), degrees, (1, 2), False, order=1, mode="nearest")
        for degrees in (0, -ROTATION, ROTATION)
    ]
    unmirrored = {
        "none": [faces],
        "flip": [faces],
        "ten_crop": crops,
        "flip_rotate": turned,
    }[views]
    seen = unmirrored + ([] if views == "none" else [view[:, :, ::-1] for view in unmirrored])
    expected = np.mean([files.predict(core, view) for view in seen], axis=0)
    assert answers == pytest.approx(expected, abs=1e-5)
    if views != "none":
        mirrored = files.predict(kept, faces[:, :, ::-1])
        assert mirrored == pytest.approx(answers, abs=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_recalibrated_normalisations_have_the_statistics_of_what_they_see(
    dataset: Dataset, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: Any = "none" if network == "report" else "flip"
    settings = replace(recipe(TrainSettings, network), width=0.2, tta=views)
    model = build(settings, precision="float32")
    normalisations = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    inputs = keras.Model(model.inputs, [x.input for x in normalisations])

    def recalibrate_and_look(faces: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        Recalibration(model, views)(faces)
        shown = faces if views == "none" else np.concatenate([faces, faces[:, :, ::-1]])
        return inputs.predict(shown, verbose=0)

    monkeypatch.setattr(batch_norm, "BATCH", 64)  # so that few faces fill two batches
    batch = 64 // (1 if views == "none" else 2)
    faces = dataset.images[: 2 * batch, ..., np.newaxis]
    looks = recalibrate_and_look(faces[:batch])
    for layer, seen in zip(normalisations, looks, strict=True):
        axes = tuple(range(seen.ndim - 1))
        np.testing.assert_allclose(layer.moving_mean, seen.mean(axes), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(layer.moving_variance, seen.var(axes), rtol=1e-3, atol=1e-3)

    # The mean over two batches; the input of the first layer does not depend on the batch.
    mean = recalibrate_and_look(faces)[0].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(normalisations[0].moving_mean, mean, rtol=1e-3, atol=1e-3)
