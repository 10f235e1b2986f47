"""Registries, and modules of a user that extend them."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from experiments.probing import linear
from experiments.probing.protocols import CLASSIFIERS
from lts import data, spotting, training
from lts.config import Config, ConfigError, preset
from lts.config.registries import CORRUPTIONS, FILLS, OPTIMIZERS, TASKS
from lts.training.train import train
from lts.utils import registry
from lts.utils.registry import Registry, UnknownNameError
from tests.fixtures import extensions, models, runs
from tests.fixtures.binaries import invoke
from tests.fixtures.spotting import write_run


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """Import the modules of lts/README.md from the working directory; afterwards all are gone."""
    registries = (CORRUPTIONS, FILLS, OPTIMIZERS, TASKS, CLASSIFIERS)
    for axis in registries:
        monkeypatch.setattr(axis, "_entries", dict(axis._entries))
    monkeypatch.setattr(registry, "_IMPORTED", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(extensions.write(tmp_path))
    for name in extensions.REGISTRIES:
        registry.import_module(name)
    yield tmp_path
    for name in extensions.REGISTRIES:
        del sys.modules[name]


def test_entries():
    """Fails if a name is lost or taken twice, or an entry is imported before it is used."""
    axis = Registry("decoder", {"json": "json:JSONDecoder", "missing": "no_such_module:Decoder"})
    assert axis.register("mine")(dict) is dict
    assert list(axis) == ["json", "missing", "mine"]
    assert (len(axis), "mine" in axis, "other" in axis) == (3, True, False)
    assert axis["json"] is json.JSONDecoder
    assert axis["mine"] is dict
    with pytest.raises(ConfigError, match=r"the name of a decoder must be new. Received: 'json'"):
        axis.register("json")
    with pytest.raises(UnknownNameError, match=r"unknown decoder. Received: 'other'. Known: json, missing, mine\."):
        axis["other"]


@pytest.mark.parametrize("axis", [CORRUPTIONS, FILLS, OPTIMIZERS, TASKS, CLASSIFIERS], ids=lambda axis: axis.kind)
def test_every_place_exists(axis):
    """Fails if a line of a registry names a module or class that does not exist."""
    for name in axis:
        assert callable(axis[name]) or isinstance(axis[name], linear.LinearClassifier)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'broken_module"),
        ("def f(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise OSError('no disk\\nat all')", "OSError: no disk"),
        ("from lts.networks.corruption import *\n@CORRUPTIONS.register('cell_drop')\nclass A: ...", "must be new"),
    ],
)
def test_a_module_that_cannot_be_imported(source, reason, tmp_path, monkeypatch):
    """Fails if the import ends in a traceback, or the line does not name the reason."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    name = f"broken_module_{abs(hash(source)) % 10**6}"
    if source is not None:
        (tmp_path / f"{name}.py").write_text(source)
    done = invoke(
        "lts.bin.train_autoencoder", f"--import={name}", "--preset=tiny", "--dataset=synthetic", "--workdir=x"
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"--import={name} (" in done.stderr
    assert reason in done.stderr


def test_ctrl_c_during_an_import(tmp_path, monkeypatch):
    """Fails if Ctrl-C ends in a traceback while a module, or TensorFlow for it, is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "interrupted_module.py").write_text("raise KeyboardInterrupt")
    done = invoke("lts.bin.train_autoencoder", "--import=interrupted_module", "--dataset=synthetic", "--workdir=x")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "train_autoencoder: interrupted\n")


def test_flags_know_new_names(extended):
    """Fails if a new name is no choice of a flag, or --help does not show it."""
    flags = ("--import", "my_corruptions", "--dataset=synthetic", "--workdir=x", "--corruption=row_drop")
    done = invoke("lts.bin.train_autoencoder", *flags, "--optimizer=lion", "--preset=none")
    assert "preset" in done.stderr  # and no complaint about the others
    done = invoke("lts.bin.train_autoencoder", "--import=my_corruptions", "--help")
    text = " ".join(done.stdout.split())
    assert "cell_drop | block_drop | channel_drop | cell_shuffle | cell_swap | row_drop [cell_drop]" in text
    done = invoke("lts.bin.train_autoencoder", *flags[2:4], "--corruption=rows")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cell_swap | row_drop. Received: corruption='rows'. Give --import=MODULE for one of yours." in done.stderr


def test_example_corruption_and_optimizer(extended):
    """Fails if the modules of the guide do not train: rows are dropped, and Lion moves weights by the rate."""
    model = models.gan(corruption="row_drop", damage_fill="maximum", optimizer="lion", weight_decay=0.0)
    keep_mask, _, uniform = model.draw(0, 64)
    rows = keep_mask.numpy()[..., 0]
    np.testing.assert_array_equal(rows, rows[:, :, :1] * np.ones_like(rows))
    assert 0 < rows.mean() < 0.6
    features = tf.random.stateless_normal([64, 4, 4, 8], [1, 2])
    damaged = model.corruption.apply(features, keep_mask, uniform).numpy()
    maximum = np.broadcast_to(features.numpy().max((1, 2), keepdims=True), damaged.shape)
    np.testing.assert_array_equal(damaged[rows == 0], maximum[rows == 0])
    before = model.discriminator.fc_1.kernel.numpy()
    tf.function(model.train_step)(models.images())
    moved = np.abs(model.discriminator.fc_1.kernel.numpy() - before)
    rate = model.config.gan_training.learning_rate
    np.testing.assert_allclose(moved[moved > 0], rate, rtol=1e-2)
    assert (moved > 0).any()


def test_example_task(extended):
    """Fails if the task of the guide does not train its head, or a wrong weight or name is accepted."""
    model = models.gan(task_weights="colour=0.5")
    batch, truth = model.prepare(models.images(), {}, 0)
    keep_mask, dropout, uniform = model.draw(0, 4)
    outputs = model.forward(batch, keep_mask, dropout, uniform=uniform)
    terms = model.compute_losses(batch, keep_mask, outputs, truth)
    error = outputs.discriminator["colour_logits"][:4] - models.images().numpy().mean((1, 2))
    np.testing.assert_allclose(terms["colour"], 0.5 * np.mean(np.square(error)), rtol=1e-5)
    assert set(tf.function(model.train_step)(models.images())) == set(model.means.names)
    for value, message in {
        "colour": "NAME=WEIGHT",
        "colour=0": "every weight above 0",
        "colour=1,colour=2": "NAME=WEIGHT",
        "rotation=1": "Give --rotation_weight",
    }.items():
        with pytest.raises(ConfigError, match=message):
            preset("tiny", task_weights=value)
    flags = ("--dataset=synthetic", "--workdir=x", "--preset=tiny", "--task_weights=jigsaw=1")
    done = invoke("lts.bin.train_autoencoder", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "unknown task. Received: task_weights=jigsaw. Known: real_or_fake, mask" in done.stderr


def test_example_classifier(extended):
    """Fails if the classifier of the guide does not classify."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (labels[:, None] == np.arange(3)) * 4 + random.standard_normal((60, 3))
    splits = [(np.arange(40), np.arange(40, 60))]
    result = linear.linear_probe(features, labels, features, labels, "nearest_mean", splits)
    assert result.correct.mean() > 0.9


def test_records_name_the_modules(extended):
    """Fails if the record of a run forgets --import."""

    class Source:
        name, split, num_examples, fingerprint = "folder:x", "train", 3, "abc"

    record = training.RunRecord.of_images("gan", preset("tiny"), Source())
    assert record.to_dict()["modules"] == tuple(extensions.REGISTRIES)
    again = training.RunRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert list(again.modules) == list(extensions.REGISTRIES)
    assert "modules" not in again.details


def test_a_run_whose_module_is_missing(tmp_path):
    """Fails if training or spotting do not name the missing --import, or an export needs it."""
    workdir = write_run(tmp_path / "gan", "gan")
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    values["config"]["damage"]["corruption"] = "row_drop"
    values["modules"] = ["my_corruptions"]
    path.write_text(json.dumps(values))
    config = Config.from_dict(values["config"])
    message = rf"unknown corruption. Received: 'row_drop'. .* {workdir} was trained with --import=my_corruptions. Give"
    with pytest.raises(UnknownNameError, match=message):
        spotting.Corruption(workdir)
    source = data.open_source("synthetic", "unlabelled[:8]", progress=False)
    with pytest.raises(UnknownNameError, match=message):
        train(config, "gan", source, workdir)
    with pytest.raises(ConfigError, match=r"corruption must be cell_drop .* Received: corruption='row_drop'"):
        preset("tiny", corruption="row_drop")
    assert config.replace(steps=3).damage.corruption == "row_drop"  # a name in a record is kept
    assert training.export_run(workdir, tmp_path / "features") == 3


@pytest.mark.slow
def test_binaries_with_a_module(tmp_path):
    """Fails if a run with a user's modules does not train, resume, or say which --import is missing."""
    photos = runs.make_photos(tmp_path / "photos")
    path = f"{runs.ROOT}:{extensions.write(tmp_path)}"
    images = f"--dataset=folder:{photos}"
    networks = (*runs.BASE, images, f"--workdir={tmp_path / 'ae'}", "--steps=2")
    imports = ("--import=my_corruptions", "--import=my_optimizers")
    done = runs.run("lts.bin.train_autoencoder", *imports, *networks, "--corruption=row_drop", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    gan = (f"--autoencoder={tmp_path / 'ae'}", images, f"--workdir={tmp_path / 'gan'}", "--batch_size=4")
    done = runs.run("lts.bin.train_gan", *gan, "--steps=2", PYTHONPATH=path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "was trained with --import=my_corruptions --import=my_optimizers" in done.stderr
    for steps in (2, 2):
        done = runs.run("lts.bin.train_gan", *gan, f"--steps={steps}", *imports, "--optimizer=lion", PYTHONPATH=path)
        assert (done.returncode, done.stderr) == (0, "")
    assert "finished before" in done.stdout
    done = runs.run("lts.bin.export_features", f"--workdir={tmp_path / 'gan'}", f"--output={tmp_path / 'features'}")
    assert done.returncode == 0, done.stderr
    spot = (
        f"--model={tmp_path / 'features'}",
        f"--evaluate={tmp_path / 'gan'}",
        images,
        f"--output={tmp_path / 'spot'}",
    )
    done = runs.run("lts.bin.spot_artifacts", *spot, "--resamples=10")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--import=my_corruptions" in done.stderr
    done = runs.run("lts.bin.spot_artifacts", *spot, "--resamples=10", "--import=my_corruptions", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
