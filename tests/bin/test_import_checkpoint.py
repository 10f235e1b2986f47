"""lts.bin.import_checkpoint as a user runs it, and the other binaries on what it leaves."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from lts.training.run_dir import read_newest
from tests.fixtures import release
from tests.fixtures.binaries import invoke
from tests.fixtures.runs import make_photos, newest

IMPORT = "lts.bin.import_checkpoint"
NETWORKS = tuple(f"--{name}={value}" for name, value in release.NETWORKS.items())
STEP = release.STEP


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Twelve small pictures without classes."""
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> pathlib.Path:
    """Folder with checkpoints of tiny networks: autoencoder, gan, and backbone (the features alone)."""
    folder = tmp_path_factory.mktemp("release")
    for stage in ("autoencoder", "gan"):
        release.save(tensors := release.tensors_of(release.trained(stage)), folder, stage)
    leaves = ("weights", "biases", "beta", "moving_mean", "moving_variance")  # without moments and averages
    backbone = [name for name in tensors if name.startswith("discriminator/conv_") and name.endswith(leaves)]
    release.save({name: tensors[name] for name in backbone}, folder, "backbone")
    return folder


def do(module: str, *flags: object) -> str:
    """Runs a binary that is to end well, without a word on stderr; returns what it printed."""
    done = invoke(module, *map(str, flags))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_an_imported_autoencoder_trains_on_and_serves_stage_2(photos, checkpoints, tmp_path):
    """From the checkpoint's step, on data and a schedule given then; started again, it is held to them."""
    workdir, data = tmp_path / "ae", f"--dataset=folder:{photos}"
    out = do(IMPORT, f"--checkpoint={checkpoints / 'autoencoder'}", f"--output={workdir}", *NETWORKS)
    assert "missing: nothing" in out
    assert f"at step {STEP}" in out
    before = newest(workdir)
    flags = (data, f"--workdir={workdir}", *NETWORKS, "--batch_size=4", f"--steps={STEP + 3}", "--log_steps=1")
    assert f"{STEP + 3} of {STEP + 3} steps" in do("lts.bin.train_autoencoder", *flags)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [STEP + 1, STEP + 2, STEP + 3]
    after = newest(workdir)
    assert int(after["optimizer/iteration"]) == STEP + 3
    assert np.abs(after["encoder/conv_1/kernel"] - before["encoder/conv_1/kernel"]).max() > 0
    record = json.loads((workdir / "config.json").read_text())
    assert (record["imported"]["checkpoint"], record["dataset"]) == ("autoencoder", f"folder:{photos}")
    refused = invoke("lts.bin.train_autoencoder", *flags[:-2], f"--steps={STEP + 9}")
    assert refused.returncode == 1
    assert f"autoencoder_training.steps: {STEP + 3} -> {STEP + 9}" in refused.stderr

    gan = tmp_path / "gan"
    do("lts.bin.train_gan", f"--autoencoder={workdir}", data, f"--workdir={gan}", "--batch_size=4", "--steps=2")
    np.testing.assert_array_equal(newest(gan)["encoder/conv_1/kernel"], after["encoder/conv_1/kernel"])


@pytest.mark.slow
def test_an_imported_whole_model_exports_and_trains_on(photos, checkpoints, tmp_path):
    """With the encoder and the decoder that came with it; raw and averaged."""
    workdir = tmp_path / "gan"
    do(IMPORT, f"--checkpoint={checkpoints / 'gan'}", f"--output={workdir}", *NETWORKS)
    before, kernels = newest(workdir), {}
    for weights in ("raw", "averaged"):
        features = tmp_path / weights
        do("lts.bin.export_features", f"--workdir={workdir}", f"--output={features}", f"--weights={weights}")
        kernels[weights] = [v.numpy() for v in tf.saved_model.load(str(features)).variables if v.shape == (3, 3, 3, 4)]
    np.testing.assert_array_equal(kernels["raw"][0], before["discriminator/trunk/conv_1/kernel"])
    average = before["optimizer/gan_discriminator_trunk_conv_1_kernel_average"]
    np.testing.assert_array_equal(kernels["averaged"][0], average)
    flags = (f"--dataset=folder:{photos}", f"--workdir={workdir}", "--batch_size=4", f"--steps={STEP + 2}")
    do("lts.bin.train_gan", *flags)
    assert "finished before" in do("lts.bin.train_gan", *flags)
    after = newest(workdir)
    assert int(after["optimizer/iteration"]) == int(after["g_optimizer/iteration"]) == STEP + 2
    for name in before:
        if name.startswith(("encoder/", "decoder/")):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.slow
def test_stage_2_around_imported_features_needs_an_autoencoder(photos, checkpoints, tmp_path):
    """The frozen networks of an import without them come from --autoencoder, once."""
    backbone, autoencoder, data = tmp_path / "backbone", tmp_path / "ae", f"--dataset=folder:{photos}"
    for name, output in (("backbone", backbone), ("autoencoder", autoencoder)):
        do(IMPORT, f"--checkpoint={checkpoints / name}", f"--output={output}", *NETWORKS)
    flags = (data, f"--workdir={backbone}", "--batch_size=4")
    refused = invoke("lts.bin.train_gan", *flags, "--steps=2")
    assert refused.returncode == 1
    assert "give --autoencoder=RUN" in refused.stderr
    assert refused.stderr.count("\n") == 1
    given = (*flags, f"--autoencoder={autoencoder}")
    out = do("lts.bin.train_gan", *given, "--steps=2")
    assert f"encoder and decoder of step {STEP} of {autoencoder}" in out
    assert "finished before" in do("lts.bin.train_gan", *given, "--steps=2")
    assert read_newest(backbone)[1].name == "step_00000002"
    np.testing.assert_array_equal(
        newest(backbone)["decoder/to_image/bias"], newest(autoencoder)["decoder/to_image/bias"]
    )


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (("--checkpoint=gan",), 2, "output"),
        (("--checkpoint=gan", "--output=x", "--weights=mean"), 2, "raw|averaged"),
        (("--checkpoint=gan", "--output=x", "--preset=big"), 2, "<release|imagenet"),
        (("--checkpoint=nothing", "--output=x", "--preset=tiny"), 1, "there is no TensorFlow checkpoint"),
        (
            ("--checkpoint=gan", "--output=x", "--preset=tiny"),
            1,
            "encoder/conv_0/weights is [3, 3, 3, 4] in gan, [3, 3, 3, 8] in this",
        ),
        (("--checkpoint=backbone", "--output=x", "--weights=averaged", *NETWORKS), 1, "Give --weights=raw"),
        (
            ("--checkpoint=backbone", "--output=x", "--stage=autoencoder", *NETWORKS),
            1,
            "holds no variable of the release",
        ),
    ],
)
def test_bad_input_is_one_line(checkpoints, tmp_path, flags, status, words):
    """One line on stderr, the right exit status, nothing written."""
    places = {"--checkpoint=": checkpoints, "--output=": tmp_path}
    for start, folder in places.items():
        flags = [flag.replace(start, f"{start}{folder}/") for flag in flags]
    done = invoke(IMPORT, *flags)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
