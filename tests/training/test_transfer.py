"""Classifiers that begin with the weights of an export: what they begin as, what is frozen, how they go on."""

import signal

import numpy as np
import pytest
import tensorflow as tf

import lts
from lts import data, training
from lts.config import preset
from lts.export import saved_model
from lts.networks.variables import variables_by_path
from lts.training import run_dir
from lts.training.loop import Loop
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.run_record import RunRecord
from lts.training.train import build_model, make_task

CONFIG = preset(
    "tiny", image_size="16", encoder_filters="4,8,8,8", conv_1_kernel="3", backbone_filters="4,8,8,8,8", fc_units="8"
).replace(batch_size=8, steps=4)
QUIET = training.MonitoringOptions(histogram_steps=0)


@pytest.fixture(scope="module")
def source():
    return data.open_source("synthetic", "train[:40]", progress=False)


def made_up_export(folder, config=CONFIG):
    """An export with noise on every weight and statistic."""
    network = build_model(config, "gan").discriminator
    for index, variable in enumerate(network.variables):
        noise = np.random.default_rng(index).uniform(0, 0.2, variable.shape)
        variable.assign_add(noise)
    size = config.image.image_size
    description = {"image_size": size, "test_crop": 0.85, "weights": "trained", "config": config.to_dict()}
    saved_model.export(network, folder, description)
    return lts.load(folder)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return made_up_export(tmp_path_factory.mktemp("transfer") / "features")


def given(features) -> dict:
    """The export's own weights and statistics by name."""
    return {path: variable.numpy() for path, variable in variables_by_path(features.keras_model().backbone).items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_begins_with_the_features(features, source, tmp_path, precision):
    """Weights of another layer, statistics that stay at 0 and 1, a beginning that ignores the export."""
    config = CONFIG.replace(precision=precision)
    task = make_task(config, "supervised", source, tmp_path, features=features, head="pooled")
    model = task.build()
    signed = task.samples[0]
    images = tf.cast(tf.round((signed + 1) * 127.5), tf.uint8)
    wanted = features.features(images)
    assert not np.allclose(model.network.backbone(signed)["conv_5"], wanted, atol=0.1 * np.max(wanted))
    task.start(model, restored=False)
    for path, variable in variables_by_path(model.network.backbone).items():
        np.testing.assert_array_equal(variable, given(features)[path], err_msg=path)
    if precision == "float32":
        np.testing.assert_allclose(model.network.backbone(signed)["conv_5"], wanted, atol=1e-5 * np.max(wanted))


def test_a_restored_run_does_not_begin_again(features, source, tmp_path):
    task = make_task(CONFIG, "supervised", source, tmp_path, features=features)
    model = task.build()
    before = {v.path: v.numpy() for v in model.network.variables}
    task.start(model, restored=True)
    for variable in model.network.variables:
        np.testing.assert_array_equal(variable, before[variable.path])


@pytest.mark.parametrize(("head", "frozen"), [("fc", 0), ("linear", 3), ("pooled", 5)])
def test_a_stopped_run_ends_with_the_same_bits(head, frozen, features, source, tmp_path, monkeypatch):
    """Features that are loaded twice; frozen layers that move, others that do not."""
    options = {"features": features, "head": head, "frozen": frozen, "options": QUIET}
    training.train(CONFIG, "supervised", source, tmp_path / "whole", **options)
    report = Loop._report

    def stop_at_2(loop, step, total):
        report(loop, step, total)
        if step >= 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", stop_at_2)
        result = training.train(CONFIG, "supervised", source, tmp_path / "halves", **options)
    assert result.signal == signal.SIGTERM
    assert 0 < result.step < 4
    training.train(CONFIG, "supervised", source, tmp_path / "halves", **options)
    whole, halves = (run_dir.read_newest(tmp_path / name)[0] for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], halves[name], err_msg=name)
    for path, value in given(features).items():
        layer = int(path[len("conv_")])
        same = np.array_equal(whole[f"network/trunk/{path}"], value)
        assert same == (layer <= frozen), path


def test_another_beginning_is_refused(features, source, tmp_path):
    """A run that would go on as something else than it was."""
    training.train(CONFIG, "supervised", source, tmp_path, features=features, head="linear", frozen=5, options=QUIET)
    details = training.read_run_config(tmp_path).details
    assert details == {"classes": 10, "head": "linear", "frozen": 5, "features": features.fingerprint}
    others = {"features": None, "head": "pooled", "frozen": 4}
    for name, other in others.items():
        options = {"features": features, "head": "linear", "frozen": 5} | {name: other}
        with pytest.raises(TrainingError, match=rf"another configuration \({name}: .* -> {other}\)"):
            training.train(CONFIG, "supervised", source, tmp_path, options=QUIET, **options)


def test_features_of_another_backbone(features, source, tmp_path):
    """One line that names the fields; what only the head or the images decide may differ."""
    other = CONFIG.replace(conv_1_kernel=5, backbone_norm="lrn")
    with pytest.raises(
        TrainingError, match=r"another backbone .*conv_1_kernel: 3 -> 5.*backbone_norm: batch_norm -> lrn"
    ):
        training.train(other, "supervised", source, tmp_path, features=features, options=QUIET)
    assert not (tmp_path / "config.json").exists()
    other = CONFIG.replace(image_size=32, fc_units=4, steps=1)
    assert training.train(other, "supervised", source, tmp_path, features=features, options=QUIET).step == 1


def test_features_of_an_encoder(source, tmp_path):
    run_dir.write_run_config(tmp_path / "run", RunRecord("autoencoder", CONFIG))
    Checkpoints(tmp_path / "run", {"encoder": build_model(CONFIG, "autoencoder").encoder}).save(0)
    training.export_run(tmp_path / "run", tmp_path / "encoder")
    with pytest.raises(saved_model.ExportError, match="exported encoder"):
        training.train(CONFIG, "supervised", source, tmp_path / "new", features=lts.load(tmp_path / "encoder"))


@pytest.mark.parametrize("head", ["fc", "linear", "pooled"])
def test_a_trained_classifier_and_its_export(head, features, source, tmp_path):
    """Logits in bfloat16, of another scale of images, or with batch statistics; a head that the export trips over."""
    config = CONFIG.replace(precision="bfloat16")
    training.train(config, "supervised", source, tmp_path / "run", features=features, head=head, options=QUIET)
    values = run_dir.read_newest(tmp_path / "run")[0]
    model = build_model(CONFIG, "supervised", classes=10, head=head)
    for path, variable in variables_by_path(model.network).items():
        variable.assign(values[f"network/{path}"])
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    wanted = model(images / np.float32(127.5) - 1)
    classifier = training.load_classifier(tmp_path / "run")
    np.testing.assert_allclose(classifier(images), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(classifier(images[:2]), wanted[:2], rtol=1e-4, atol=1e-4)
    assert training.export_run(tmp_path / "run", tmp_path / "export") == 4
    exported = lts.load(tmp_path / "export")
    assert exported.description["fine_tuned_from"] == features.fingerprint
    maps = model.network.backbone(images / np.float32(127.5) - 1)["conv_5"]
    np.testing.assert_allclose(exported.features(images), maps, atol=1e-4 * np.max(maps))


def test_a_run_without_classifier(tmp_path):
    run_dir.write_run_config(tmp_path, RunRecord("gan", CONFIG))
    with pytest.raises(TrainingError, match="'gan', not of a classifier"):
        training.load_classifier(tmp_path)
