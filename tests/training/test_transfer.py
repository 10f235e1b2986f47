"""Classifiers that begin with the weights of an export."""

import numpy as np
import pytest
import tensorflow as tf

import lts
from lts import data, training
from lts.export import saved_model
from lts.networks.variables import variables_by_path
from lts.training import checkpoints, run_dir
from lts.training.checkpoints import Checkpoints, TrainingError
from lts.training.run_record import RunRecord
from lts.training.train import build_model, make_task
from tests.fixtures import rounding
from tests.fixtures.exports import CONFIG, noisy_export
from tests.fixtures.runs import assert_same_weights, stop_training_at

QUIET = training.MonitoringOptions(histogram_steps=0)


@pytest.fixture(scope="module")
def source():
    """Forty labelled images."""
    return data.open_source("synthetic", "train[:40]", progress=False)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """An export with noise on all variables."""
    return noisy_export(tmp_path_factory.mktemp("transfer") / "features")


def values_of(features) -> dict:
    """Return the export's weights and statistics by name."""
    return {path: variable.numpy() for path, variable in variables_by_path(features.keras_model().backbone).items()}


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_it_begins_with_the_features(features, source, tmp_path, precision):
    """Fails if a weight goes to another layer, statistics stay at 0 and 1, or the export is ignored."""
    config = CONFIG.replace(precision=precision)
    task = make_task(config, "supervised", source, tmp_path, features=features, head="pooled")
    model = task.build()
    signed = task.samples[0]
    images = tf.cast(tf.round((signed + 1) * 127.5), tf.uint8)
    wanted = features.features(images)
    assert not np.allclose(model.network.backbone(signed)["conv_5"], wanted, atol=0.1 * np.max(wanted))
    task.start(model, restored=False)
    for path, variable in variables_by_path(model.network.backbone).items():
        np.testing.assert_array_equal(variable, values_of(features)[path], err_msg=path)
    if precision == "float32":
        allowed = rounding.allowed_for(lambda signed: model.network.backbone(signed)["conv_5"], signed)
        assert rounding.difference(wanted, model.network.backbone(signed)["conv_5"]) <= allowed


def test_restored_run_keeps_its_weights(features, source, tmp_path):
    """Fails if a resumed run loads the features again."""
    task = make_task(CONFIG, "supervised", source, tmp_path, features=features)
    model = task.build()
    before = {v.path: v.numpy() for v in model.network.variables}
    task.start(model, restored=True)
    for variable in model.network.variables:
        np.testing.assert_array_equal(variable, before[variable.path])


@pytest.mark.parametrize(
    ("head", "frozen"),
    [
        pytest.param("fc", 0, marks=pytest.mark.slow),
        ("linear", 3),
        pytest.param("pooled", 5, marks=pytest.mark.slow),
    ],
)
def test_stopped_run_resumes_bit_identically(head, frozen, features, source, tmp_path, monkeypatch):
    """Fails if features are loaded twice, frozen layers move, or other layers do not."""
    options = {"features": features, "head": head, "frozen": frozen, "options": QUIET}
    training.train(CONFIG, "supervised", source, tmp_path / "uninterrupted", **options)
    with stop_training_at(1, monkeypatch):
        training.train(CONFIG, "supervised", source, tmp_path / "stopped", **options)
    training.train(CONFIG, "supervised", source, tmp_path / "stopped", **options)
    assert_same_weights(tmp_path / "stopped", tmp_path / "uninterrupted")
    trained, _ = checkpoints.read_newest(tmp_path / "stopped")
    for path, value in values_of(features).items():
        layer = int(path[len("conv_")])
        same = np.array_equal(trained[f"network/trunk/{path}"], value)
        assert same == (layer <= frozen), path


def test_another_beginning_is_refused(features, source, tmp_path):
    """Fails if a run resumes with other features, another head or other frozen layers."""
    training.train(CONFIG, "supervised", source, tmp_path, features=features, head="linear", frozen=5, options=QUIET)
    details = training.read_run_config(tmp_path).details
    assert details == {"classes": 10, "head": "linear", "frozen": 5, "features": features.fingerprint}
    others = {"features": None, "head": "pooled", "frozen": 4}
    for name, other in others.items():
        options = {"features": features, "head": "linear", "frozen": 5} | {name: other}
        with pytest.raises(TrainingError, match=rf"another configuration \({name}: .* -> {other}\)"):
            training.train(CONFIG, "supervised", source, tmp_path, options=QUIET, **options)


def test_features_of_another_backbone(features, source, tmp_path):
    """Fails if the fields of the backbone are not compared, or those of head and images are."""
    other = CONFIG.replace(conv_1_kernel=5, backbone_norm="lrn")
    with pytest.raises(
        TrainingError, match=r"another backbone .*conv_1_kernel: 3 -> 5.*backbone_norm: batch_norm -> lrn"
    ):
        training.train(other, "supervised", source, tmp_path, features=features, options=QUIET)
    assert not (tmp_path / "config.json").exists()
    other = CONFIG.replace(image_size=32, fc_units=4, steps=1)
    assert training.train(other, "supervised", source, tmp_path, features=features, options=QUIET).step == 1


def test_features_of_an_encoder(source, tmp_path):
    """Fails if an exported encoder is taken for a backbone: Keras would not find its weights."""
    run_dir.write_run_config(tmp_path / "run", RunRecord("autoencoder", CONFIG))
    Checkpoints(tmp_path / "run", {"encoder": build_model(CONFIG, "autoencoder").encoder}).save(0)
    training.export_run(tmp_path / "run", tmp_path / "encoder")
    encoder = lts.load(tmp_path / "encoder")
    with pytest.raises(saved_model.ExportError, match="exported encoder"):
        encoder.keras_model("conv_2")
    with pytest.raises(saved_model.ExportError, match="exported encoder"):
        training.train(CONFIG, "supervised", source, tmp_path / "new", features=encoder)


@pytest.mark.parametrize(
    "head",
    [pytest.param("fc", marks=pytest.mark.slow), pytest.param("linear", marks=pytest.mark.slow), "pooled"],
)
def test_a_trained_classifier_and_its_export(head, features, source, tmp_path):
    """Fails if logits are bfloat16, or use another scale of images or batch statistics."""
    config = CONFIG.replace(precision="bfloat16")
    training.train(config, "supervised", source, tmp_path / "run", features=features, head=head, options=QUIET)
    values = checkpoints.read_newest(tmp_path / "run")[0]
    model = build_model(CONFIG, "supervised", classes=10, head=head)
    for path, variable in variables_by_path(model.network).items():
        variable.assign(values[f"network/{path}"])
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    signed = images / np.float32(127.5) - 1
    wanted = model(signed)
    allowed = rounding.allowed_for(model, signed)
    classifier = training.load_classifier(tmp_path / "run")
    assert rounding.difference(wanted, classifier(images)) <= allowed
    assert rounding.difference(wanted[:2], classifier(images[:2])) <= allowed
    assert training.export_run(tmp_path / "run", tmp_path / "export") == 4
    exported = lts.load(tmp_path / "export")
    assert exported.description["fine_tuned_from"] == features.fingerprint
    allowed = rounding.allowed_for(lambda signed: model.network.backbone(signed)["conv_5"], signed)
    assert rounding.difference(model.network.backbone(signed)["conv_5"], exported.features(images)) <= allowed


def test_a_run_without_classifier(tmp_path):
    """Fails if a "gan" run is loaded as a classifier."""
    run_dir.write_run_config(tmp_path, RunRecord("gan", CONFIG))
    with pytest.raises(TrainingError, match="'gan', not of a classifier"):
        training.load_classifier(tmp_path)
