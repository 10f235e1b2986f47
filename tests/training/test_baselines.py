"""Training, resuming and exporting what is not the method: rotation, supervised, and the encoder of stage 1."""

import signal

import numpy as np
import pytest
import tensorflow as tf

import lts
from lts import data, training
from lts.config import preset
from lts.networks.variables import variables_by_path
from lts.training import run_dir
from lts.training.loop import Loop
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.run_record import ImportRecord, RunRecord
from lts.training.train import build_model

CONFIG = preset(
    "tiny", image_size="16", encoder_filters="4,8,8,8", conv_1_kernel="3", backbone_filters="4,8,8,8,8", fc_units="8"
).replace(batch_size=8, steps=6)
QUIET = training.MonitoringOptions(histogram_steps=0)


@pytest.fixture(scope="module")
def source():
    return data.open_source("synthetic", "train[:40]", progress=False)


@pytest.mark.parametrize("stage", ["rotation", "supervised"])
def test_a_stopped_run_ends_with_the_same_bits(stage, source, tmp_path, monkeypatch):
    """Labels or turns that go by the time of the start, dropout that begins again."""
    training.train(CONFIG, stage, source, tmp_path / "whole", options=QUIET)
    report = Loop._report

    def stop_at_3(loop, step, total):
        report(loop, step, total)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", stop_at_3)
        result = training.train(CONFIG, stage, source, tmp_path / "halves", options=QUIET)
    assert (result.step, result.signal) == (3, signal.SIGTERM)
    result = training.train(CONFIG, stage, source, tmp_path / "halves", options=QUIET)
    assert (result.step, result.signal) == (6, None)
    whole, halves = (run_dir.read_newest(tmp_path / name)[0] for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], halves[name], err_msg=name)


@pytest.mark.parametrize("stage", ["autoencoder", "rotation", "supervised"])
def test_export(stage, tmp_path):
    """Weights of another layer, a signature without trained weights behind it, a card that claims too much."""
    model = build_model(CONFIG, stage, classes=10)
    network = model.encoder if stage == "autoencoder" else model.network
    items = {"encoder" if stage == "autoencoder" else "network": network}
    for index, variable in enumerate(network.variables):
        noise = np.random.default_rng(index).uniform(0, 0.2, variable.shape)
        variable.assign_add(noise)
    Checkpoints(tmp_path / "run", items).save(5)
    details = {"classes": 10} if stage == "supervised" else {}
    record = RunRecord(stage, CONFIG, dataset="synthetic", split="train", details=details)
    run_dir.write_run_config(tmp_path / "run", record)
    assert training.export_run(tmp_path / "run", tmp_path / "features") == 5
    loaded = lts.load(tmp_path / "features")
    assert loaded.layers == ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")[: 4 if stage == "autoencoder" else 5]
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    signed = tf.cast(images, tf.float32) / 127.5 - 1
    expected = network.endpoints(signed) if stage == "autoencoder" else network.backbone(signed)
    for layer, values in loaded(images).items():
        if layer in expected:
            np.testing.assert_allclose(values, expected[layer], atol=1e-6 * np.max(expected[layer]))
            np.testing.assert_array_equal(loaded.features(images, layer), values)
    assert "spot" not in loaded.module.signatures
    variables = variables_by_path(network if stage == "autoencoder" else network.backbone).values()
    assert len(loaded.module.trainable_variables) == sum(v.trainable for v in variables)
    card = (tmp_path / "features" / "README.md").read_text()
    assert "never raw photographs" not in card
    assert ("trained on labels" in card) == (stage == "supervised")
    assert f'signatures["{loaded.layers[-1]}"]' in card


def test_an_encoder_is_no_backbone(tmp_path):
    """One line, where Keras would fail on weights that are not there."""
    run_dir.write_run_config(tmp_path / "run", RunRecord("autoencoder", CONFIG))
    Checkpoints(tmp_path / "run", {"encoder": build_model(CONFIG, "autoencoder").encoder}).save(0)
    training.export_run(tmp_path / "run", tmp_path / "features")
    with pytest.raises(lts.export.saved_model.ExportError, match="exported encoder"):
        lts.load(tmp_path / "features").keras_model("conv_2")


def test_labels_are_needed(tmp_path):
    source = data.open_source("synthetic", "unlabelled[:20]", progress=False)
    with pytest.raises(TrainingError, match="no labels"):
        training.train(CONFIG, "supervised", source, tmp_path, options=QUIET)


def test_statistics_of_photographs(source, tmp_path):
    """Statistics that training left, weights that moved, a `spot` that is no longer the trained one."""
    model = build_model(CONFIG, "gan")
    Checkpoints(tmp_path / "run", {"discriminator": model.discriminator}).save(3)
    run_dir.write_run_config(tmp_path / "run", RunRecord("gan", CONFIG, dataset="synthetic", split="train[:40]"))
    for name, recalibrate in (("training", False), ("photographs", True)):
        training.export_run(tmp_path / "run", tmp_path / name, recalibrate=recalibrate)
    trained, measured = (lts.load(tmp_path / name) for name in ("training", "photographs"))
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    for name, value in trained.spot(images).items():
        np.testing.assert_allclose(measured.spot(images)[name], value, atol=1e-6)
    mine, theirs = (np.load(tmp_path / name / "backbone.npz") for name in ("training", "photographs"))
    moved = {name for name in mine if not np.array_equal(mine[name], theirs[name])}
    assert moved == {name for name in mine if "moving" in name}
    first = model.discriminator.backbone.convs[0]
    batches = data.training_batches(source, CONFIG.image, batch_size=64, seed=1, steps=200)
    signed = np.concatenate(list(batches.as_numpy_iterator()))
    inputs = signed * 127.5 + 127.5 - np.array([123.68, 116.78, 103.94])
    kernel = first.kernel.numpy()
    strided = tf.nn.conv2d(inputs.astype(np.float32), kernel, first.stride, CONFIG.discriminator.disc_padding).numpy()
    np.testing.assert_allclose(theirs["conv_1/batch_norm/moving_mean"], strided.mean((0, 1, 2)), rtol=0.05, atol=0.5)
    assert measured.description["statistics"] == "synthetic, split train[:40]"
    assert measured.description["config"]["discriminator"]["recalibrate_batch_norm"] is True


@pytest.mark.parametrize("stage", ["autoencoder", "rotation", "supervised"])
def test_statistics_of_photographs_are_stage_2s(stage, tmp_path):
    """A wish that is passed over in silence."""
    record = RunRecord(stage, CONFIG, dataset="synthetic", split="train", details={"classes": 10})
    run_dir.write_run_config(tmp_path / "run", record)
    with pytest.raises(TrainingError, match=f"stage '{stage}' are those of photographs already"):
        training.export_run(tmp_path / "run", tmp_path / "features", recalibrate=True)
    assert not (tmp_path / "features").exists()


def test_statistics_need_photographs(tmp_path):
    """An imported run that was never trained names none: a KeyError."""
    model = build_model(CONFIG, "gan")
    Checkpoints(tmp_path / "run", {"discriminator": model.discriminator}).save(0)
    record = RunRecord("gan", CONFIG, imported=ImportRecord("model.ckpt-4"))
    run_dir.write_run_config(tmp_path / "run", record)
    with pytest.raises(TrainingError, match=r"without photographs .* Give --dataset"):
        training.export_run(tmp_path / "run", tmp_path / "features", recalibrate=True)
