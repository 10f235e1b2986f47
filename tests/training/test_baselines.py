"""Training and export of what is not the method: rotation, supervised, and the encoder of stage 1."""

import signal

import numpy as np
import pytest
import tensorflow as tf

import lts
from lts import data, training
from lts.config import preset
from lts.networks.variables import variables_by_path
from lts.training import export, run_dir
from lts.training.checkpoints import Checkpoints, TrainingError
from lts.training.run_record import ImportRecord, RunRecord
from lts.training.train import build_model
from tests.fixtures import rounding
from tests.fixtures.exports import CONFIG, add_noise
from tests.fixtures.runs import assert_same_weights, stop_training_at

SLOW_STAGES = [pytest.param(stage, marks=pytest.mark.slow) for stage in ("rotation", "lci")]
QUIET = training.MonitoringOptions(histogram_steps=0)


@pytest.fixture(scope="module")
def source():
    """Forty labelled images."""
    return data.open_source("synthetic", "train[:40]", progress=False)


@pytest.mark.parametrize("stage", [*SLOW_STAGES, "supervised"])
def test_stopped_run_resumes_bit_identically(stage, source, tmp_path, monkeypatch, capsys):
    """Fails if labels, rotations, dropout or the inpainter's steps depend on the start, or the console is silent."""
    # The inpainter of "lci" trains in the first and the last step, on both sides of the stop.
    config = CONFIG.replace("gan_training", repair_every=3)
    training.train(config, stage, source, tmp_path / "uninterrupted", options=QUIET)
    with stop_training_at(1, monkeypatch):
        result = training.train(config, stage, source, tmp_path / "stopped", options=QUIET)
    assert (result.step, result.signal) == (1, signal.SIGTERM)
    assert "run the same command again to resume" in capsys.readouterr().out
    result = training.train(config, stage, source, tmp_path / "stopped", options=QUIET)
    assert (result.step, result.signal) == (4, None)
    out = capsys.readouterr().out
    assert f"{stage}: resuming at step 1 of 4" in out
    assert f"{stage}: finished: 4 of 4 steps" in out
    assert_same_weights(tmp_path / "stopped", tmp_path / "uninterrupted")


@pytest.mark.parametrize("stage", ["autoencoder", *SLOW_STAGES, "supervised"])
def test_export(stage, tmp_path):
    """Fails if an export holds weights of another layer, or if its card claims too much."""
    model = build_model(CONFIG, stage, classes=10)
    network = model.encoder if stage == "autoencoder" else model.network
    add_noise(network.variables)
    items = {"encoder" if stage == "autoencoder" else "network": network}
    Checkpoints(tmp_path / "run", items).save(5)
    details = {"classes": 10} if stage == "supervised" else {}
    record = RunRecord(stage, CONFIG, dataset="synthetic", split="train", details=details)
    run_dir.write_run_config(tmp_path / "run", record)
    assert training.export_run(tmp_path / "run", tmp_path / "features") == 5
    loaded = lts.load(tmp_path / "features")
    assert loaded.layers == ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")[: 4 if stage == "autoencoder" else 5]
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    signed = tf.cast(images, tf.float32) / 127.5 - 1
    endpoints = network.endpoints if stage == "autoencoder" else network.backbone
    expected = endpoints(signed)
    allowed = rounding.allowed_for(endpoints, signed)
    for layer, values in loaded(images).items():
        if layer in expected:
            assert rounding.difference(expected[layer], values) <= allowed
            np.testing.assert_array_equal(loaded.features(images, layer), values)
    assert "spot" not in loaded.module.signatures
    variables = variables_by_path(network if stage == "autoencoder" else network.backbone).values()
    assert len(loaded.module.trainable_variables) == sum(v.trainable for v in variables)
    card = (tmp_path / "features" / "README.md").read_text()
    assert "never raw photographs" not in card
    assert ("trained on labels" in card) == (stage == "supervised")
    assert f'signatures["{loaded.default_layer}"]' in card


def test_labels_are_needed(tmp_path):
    """Fails if "supervised" starts on images without labels."""
    source = data.open_source("synthetic", "unlabelled[:20]", progress=False)
    with pytest.raises(TrainingError, match="no labels"):
        training.train(CONFIG, "supervised", source, tmp_path, options=QUIET)


def test_statistics_of_photographs(source, tmp_path):
    """Fails if recalibration keeps the statistics of training, moves weights, or changes the signature `spot`."""
    model = build_model(CONFIG, "gan")
    Checkpoints(tmp_path / "run", {"discriminator": model.discriminator}).save(3)
    run_dir.write_run_config(tmp_path / "run", RunRecord("gan", CONFIG, dataset="synthetic", split="train[:40]"))
    for name, recalibrate in (("training", False), ("photographs", True)):
        training.export_run(tmp_path / "run", tmp_path / name, recalibrate=recalibrate)
    trained = lts.load(tmp_path / "training")
    measured = lts.load(tmp_path / "photographs")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    for name, value in trained.spot(images).items():
        np.testing.assert_allclose(measured.spot(images)[name], value, atol=1e-6)
    before = np.load(tmp_path / "training" / "backbone.npz")
    after = np.load(tmp_path / "photographs" / "backbone.npz")
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if "moving" in name}

    # conv_1's mean, by NumPy and one convolution.
    first = model.discriminator.backbone.convs[0]
    batches = data.training_batches(source, CONFIG.image, batch_size=64, seed=1, steps=200)
    signed = np.concatenate(list(batches.as_numpy_iterator()))
    inputs = signed * 127.5 + 127.5 - np.array([123.68, 116.78, 103.94])
    kernel = first.kernel.numpy()
    strided = tf.nn.conv2d(inputs.astype(np.float32), kernel, first.stride, CONFIG.discriminator.disc_padding).numpy()
    np.testing.assert_allclose(after["conv_1/batch_norm/moving_mean"], strided.mean((0, 1, 2)), rtol=0.05, atol=0.5)
    assert measured.description["statistics"] == "synthetic, split train[:40]"
    # False alarms are those of the exported signature.
    alarms = measured.description["false_alarms"]
    views = next(iter(data.test_batches(source, measured.config.image, batch_size=64)))
    probability = measured.spot(views)["probability"].numpy()
    assert alarms["photographs"] == len(views) == 40
    assert alarms["called_repaired"] == pytest.approx(np.mean(probability >= 0.5), abs=1 / 40)
    assert (alarms["dataset"], alarms["split"]) == ("synthetic", "train[:40]")
    card = " ".join((tmp_path / "photographs" / "README.md").read_text().split())
    assert f"It calls {100 * alarms['called_repaired']:.1f} % of untouched photographs repaired" in card
    assert measured.description["config"]["discriminator"]["recalibrate_batch_norm"] is True


def test_statistics_of_a_slow_backbone(source, monkeypatch):
    """Fails if statistics of a Keras backbone, whose batch norms move slowly, remain those of before."""
    monkeypatch.setattr(export, "STATISTICS_BATCH", 4)
    config = preset("tiny", backbone="tests.fixtures.backbones:branches", fc_units=8)
    discriminator = build_model(config, "gan").discriminator
    norm = next(layer for group in discriminator.backbone.groups for layer in group if hasattr(layer, "momentum"))
    norm.moving_mean.assign(norm.moving_mean + 10)
    export._measure_statistics(discriminator, config, source, seed=1)
    assert norm.momentum == 0.99
    assert np.abs(norm.moving_mean.numpy()).max() < 1  # with a momentum of 0.99 1.3 would remain


@pytest.mark.parametrize("stage", ["autoencoder", "rotation", "supervised"])
def test_other_stages_are_not_recalibrated(stage, tmp_path):
    """Fails if the flag is silently ignored where the statistics are those of photographs already."""
    run_dir.write_run_config(tmp_path / "run", RunRecord(stage, CONFIG, dataset="synthetic", split="train"))
    with pytest.raises(TrainingError, match=f"stage '{stage}' are those of photographs already"):
        training.export_run(tmp_path / "run", tmp_path / "features", recalibrate=True)
    assert not (tmp_path / "features").exists()


def test_statistics_need_photographs(tmp_path):
    """Fails if an imported run, which names no images, is recalibrated without --dataset."""
    model = build_model(CONFIG, "gan")
    Checkpoints(tmp_path / "run", {"discriminator": model.discriminator}).save(0)
    run_dir.write_run_config(tmp_path / "run", RunRecord("gan", CONFIG, imported=ImportRecord("model.ckpt-4")))
    with pytest.raises(TrainingError, match=r"without photographs .* Give --dataset"):
        training.export_run(tmp_path / "run", tmp_path / "features", recalibrate=True)


def test_seconds_of_training(tmp_path):
    """Fails if a stage is missing, if its batch is another one's, or if a truncated line counts."""
    line = '{"step": %d, "images_per_second": 8.0}\n'
    for stage, batch_size in (("autoencoder", 4), ("gan", 8)):
        config = CONFIG.replace(batch_size=batch_size)
        record = RunRecord(stage, config, autoencoder=str(tmp_path / "autoencoder") if stage == "gan" else None)
        run_dir.write_run_config(tmp_path / stage, record)
        (tmp_path / stage / "metrics.jsonl").write_text(line % 10 + line % 20 + '{"step": 3')
    record = run_dir.read_run_config(tmp_path / "gan")
    assert export._training_seconds(record, tmp_path / "gan") == {"stage 1": 10, "stage 2": 20}
