"""Import of a release checkpoint from the command line, and what follows it."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from lts.training.checkpoints import read_newest
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
    """Folder with checkpoints of tiny networks: autoencoder, gan, and backbone (without heads and optimizer)."""
    folder = tmp_path_factory.mktemp("release")
    for stage in ("autoencoder", "gan"):
        tensors = release.tensors_of(release.trained(stage))
        release.save(tensors, folder, stage)
    leaves = ("weights", "biases", "beta", "moving_mean", "moving_variance")  # without moments and averages
    backbone = [name for name in tensors if name.startswith("discriminator/conv_") and name.endswith(leaves)]
    release.save({name: tensors[name] for name in backbone}, folder, "backbone")
    return folder


def succeed(module: str, *flags: object) -> str:
    """Return the output of a binary that must succeed with an empty stderr."""
    done = invoke(module, *map(str, flags))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_imported_autoencoder_trains_and_serves_stage_2(photos, checkpoints, tmp_path):
    """Fails if an import does not resume at its step, or later changes the schedule it was first given."""
    workdir = tmp_path / "ae"
    data = f"--dataset=folder:{photos}"
    out = succeed(IMPORT, f"--checkpoint={checkpoints / 'autoencoder'}", f"--output={workdir}", *NETWORKS)
    assert "missing: nothing" in out
    assert f"at step {STEP}" in out
    before = newest(workdir)
    flags = (data, f"--workdir={workdir}", *NETWORKS, "--batch_size=4", f"--steps={STEP + 3}", "--log_steps=1")
    assert f"{STEP + 3} of {STEP + 3} steps" in succeed("lts.bin.train_autoencoder", *flags)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [STEP + 1, STEP + 2, STEP + 3]
    after = newest(workdir)
    assert int(after["optimizer/iteration"]) == STEP + 3
    assert np.abs(after["encoder/conv_1/kernel"] - before["encoder/conv_1/kernel"]).max() > 0
    record = json.loads((workdir / "config.json").read_text())
    assert (record["imported"]["checkpoint"], record["dataset"]) == ("autoencoder", f"folder:{photos}")
    refused = invoke("lts.bin.train_autoencoder", *flags[:-2], f"--steps={STEP + 2}")
    assert refused.returncode == 1
    assert f"autoencoder_training.steps: {STEP + 3} -> {STEP + 2}" in refused.stderr

    gan = tmp_path / "gan"
    succeed("lts.bin.train_gan", f"--autoencoder={workdir}", data, f"--workdir={gan}", "--batch_size=4", "--steps=2")
    np.testing.assert_array_equal(newest(gan)["encoder/conv_1/kernel"], after["encoder/conv_1/kernel"])


@pytest.mark.slow
def test_imported_gan_exports_and_trains(photos, checkpoints, tmp_path):
    """Fails if raw or averaged weights are not exported, or the imported autoencoder changes in training."""
    workdir = tmp_path / "gan"
    succeed(IMPORT, f"--checkpoint={checkpoints / 'gan'}", f"--output={workdir}", *NETWORKS)
    before = newest(workdir)
    kernels = {}
    for weights in ("raw", "averaged"):
        features = tmp_path / weights
        succeed("lts.bin.export_features", f"--workdir={workdir}", f"--output={features}", f"--weights={weights}")
        kernels[weights] = [v.numpy() for v in tf.saved_model.load(str(features)).variables if v.shape == (3, 3, 3, 4)]
    np.testing.assert_array_equal(kernels["raw"][0], before["discriminator/trunk/conv_1/kernel"])
    average = before["optimizer/gan_discriminator_trunk_conv_1_kernel_average"]
    np.testing.assert_array_equal(kernels["averaged"][0], average)
    flags = (f"--dataset=folder:{photos}", f"--workdir={workdir}", "--batch_size=4", f"--steps={STEP + 2}")
    succeed("lts.bin.train_gan", *flags)
    assert "finished before" in succeed("lts.bin.train_gan", *flags)
    after = newest(workdir)
    assert int(after["optimizer/iteration"]) == int(after["g_optimizer/iteration"]) == STEP + 2
    for name in before:
        if name.startswith(("encoder/", "decoder/")):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.slow
def test_imported_features_need_an_autoencoder(photos, checkpoints, tmp_path):
    """Fails if stage 2 trains around random frozen networks."""
    backbone = tmp_path / "backbone"
    autoencoder = tmp_path / "ae"
    data = f"--dataset=folder:{photos}"
    for name, output in (("backbone", backbone), ("autoencoder", autoencoder)):
        succeed(IMPORT, f"--checkpoint={checkpoints / name}", f"--output={output}", *NETWORKS)
    flags = (data, f"--workdir={backbone}", "--batch_size=4")
    refused = invoke("lts.bin.train_gan", *flags, "--steps=2")
    assert refused.returncode == 1
    assert "Give --autoencoder=RUN" in refused.stderr
    assert refused.stderr.count("\n") == 1
    given = (*flags, f"--autoencoder={autoencoder}")
    out = succeed("lts.bin.train_gan", *given, "--steps=2")
    assert f"encoder and decoder of step {STEP} of {autoencoder}" in out
    assert "finished before" in succeed("lts.bin.train_gan", *given, "--steps=2")
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
            "encoder/conv_0/weights is [3, 3, 3, 4] in gan, [3, 3, 3, 16] in this",
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
    """Fails if an error is more than one line, has another exit status, or leaves a file."""
    places = {"--checkpoint=": checkpoints, "--output=": tmp_path}
    for start, folder in places.items():
        flags = [flag.replace(start, f"{start}{folder}/") for flag in flags]
    done = invoke(IMPORT, *flags)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
