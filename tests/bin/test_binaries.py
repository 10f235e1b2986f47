"""The binaries from the command line to the exit status."""

import importlib
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags
from absl.testing import flagsaver
from PIL import Image

from lts import training
from lts.bin import common, train_autoencoder
from lts.training.online_evaluation import EvaluationImages
from tests.fixtures.binaries import call, invoke
from tests.fixtures.runs import BASE, ROOT, TINY, assert_same, make_photos, metrics, newest, run, start
from tests.fixtures.spotting import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Twelve small pictures without classes."""
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def autoencoder(photos, tmp_path_factory) -> pathlib.Path:
    """A trained autoencoder of 6 steps."""
    workdir = tmp_path_factory.mktemp("ae") / "ae"
    done = invoke(
        "lts.bin.train_autoencoder",
        *("--preset=tiny", f"--dataset=folder:{photos}", f"--workdir={workdir}", "--steps=6", "--batch_size=4"),
        *TINY,
        "--log_steps=2",
    )
    assert done.returncode == 0, done.stderr
    return workdir


def test_log_and_quiet(photos, autoencoder):
    """Fails if a run has no log of its lines, or --quiet prints more than the result."""
    command = (*("--preset=tiny", f"--dataset=folder:{photos}", "--steps=6", "--batch_size=4", "--log_steps=2"), *TINY)
    done = invoke("lts.bin.train_autoencoder", *command, f"--workdir={autoencoder}", "--quiet")
    result = f"autoencoder: finished before, 6 of 6 steps are in {autoencoder}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, result, "")
    log = (autoencoder / "train.log").read_text().splitlines()
    assert any(re.match(r"[\d-]{10} [\d:]{8} autoencoder step 6/6 left 0:00 ", line) for line in log)
    assert len([line for line in log if "split all: 12 images," in line]) == 2  # of both starts
    assert log[-1].endswith(result.strip())


@pytest.mark.slow
def test_int8_is_calibrated(photos, autoencoder, tmp_path):
    """Fails if `tflite_int8` needs --dataset, or does not take it."""
    for name, flags in {"training": (), "others": (f"--dataset=folder:{photos}", "--split=all[:4]")}.items():
        output = tmp_path / name
        command = (f"--workdir={autoencoder}", f"--output={output}", "--formats=tflite_int8", *flags)
        done = invoke("lts.bin.export_features", *command)
        assert done.returncode == 0, done.stderr
        assert (output / "model_int8.tflite").stat().st_size < (output / "saved_model.pb").stat().st_size


def test_chain_of_binaries(photos, autoencoder, tmp_path):
    """Fails if the chain needs more than files, or does not write what the user's guide promises."""
    gan = tmp_path / "gan"
    features = tmp_path / "features"
    flags = (f"--autoencoder={autoencoder}", f"--dataset=folder:{photos}", f"--workdir={gan}", "--steps=4")
    done = run(
        "lts.bin.train_gan", *flags, "--batch_size=4", "--log_steps=2", "--picture_steps=2", "--profile_steps=2,3"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [json.loads(line) for line in (gan / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    expected = {"disc_total", "gen_total", "mask", "accuracy_real", "accuracy_repaired", "accuracy_mask"}
    assert expected | {"learning_rate", "repair_learning_rate", "images_per_second"} <= lines[0].keys()
    assert Image.open(gan / "pictures" / "latest.png").size == (6 * 18 - 2, 8 * 18 - 2)
    assert list((gan / "tensorboard").glob("events*"))
    assert list((gan / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))
    assert json.loads((gan / "config.json").read_text())["config"]["gan_training"]["steps"] == 4

    again = invoke("lts.bin.train_gan", *flags, "--batch_size=4")
    assert again.returncode == 0
    assert "finished before" in again.stdout

    done = invoke("lts.bin.export_features", f"--workdir={gan}", f"--output={features}", "--dataset=synthetic")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--dataset does not go with an export that measures no batch norm statistics" in done.stderr
    assert not features.exists()

    done = run("lts.bin.export_features", f"--workdir={gan}", f"--output={features}")
    assert done.returncode == 0, done.stderr
    check = (
        "import sys, numpy, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(features)!r})\n"
        "for shape in ((1, 16, 16), (3, 40, 25), (2, 9, 8)):\n"
        "    out = model.signatures['serving_default'](images=tf.zeros([*shape, 3], tf.uint8))\n"
        "    layers = [f'conv_{i}' for i in range(1, 6)]\n"
        "    assert sorted(out) == sorted(layers + [f'{layer}_pooled' for layer in layers]), out\n"
        "    assert numpy.isfinite(out['conv_5']).all() and out['conv_5_pooled'].shape == (shape[0], 8)\n"
        "spotted = model.signatures['spot'](images=tf.zeros([3, 40, 24, 3], tf.uint8))\n"
        "assert spotted['artifact_map_image'].shape == (3, 40, 24) and 0 <= spotted['probability'][0] <= 1\n"
        "assert not any(name.split('.')[0] == 'lts' for name in sys.modules), 'needs lts'\n"
    )
    plain = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert plain.returncode == 0, plain.stderr


def test_the_end_of_a_run_tells_what_to_do_next(photos, tmp_path):
    """Fails if a user has to guess the next command, or cannot paste it because of a space in a path."""
    workdir = tmp_path / "my runs" / "ae"
    flags = ("--preset=tiny", f"--dataset=folder:{photos}", "--split=all[:8]", f"--workdir={workdir}", "--steps=2")
    done = invoke("lts.bin.train_autoencoder", *flags, "--batch_size=4", *TINY)
    assert (done.returncode, done.stderr) == (0, "")
    assert "autoencoder: preset tiny with image_size=16 " in done.stdout
    pictures, curves, following = done.stdout.splitlines()[-3:]
    assert pictures == f"pictures: {workdir}/pictures/latest.png"
    assert shlex.split(curves) == ["curves:", "tensorboard", f"--logdir={workdir}"]
    expected = [f"--autoencoder={workdir}", f"--dataset=folder:{photos}", "--split=all[:8]"]
    assert shlex.split(following)[3:] == ["lts.bin.train_gan", *expected, f"--workdir={tmp_path / 'my runs' / 'gan'}"]


def test_without_preset_and_gpu_a_warning(photos, tmp_path, monkeypatch):
    """Fails if a newcomer starts days of work without being told, or a resumed run is warned about."""
    trained = []
    result = training.Result(1, 1, 0.0)
    monkeypatch.setattr(training, "train", lambda *arguments, **options: trained.append(arguments) or result)
    flags = (f"--dataset=folder:{photos}", f"--workdir={tmp_path / 'ae'}")
    done = invoke("lts.bin.train_autoencoder", *flags)
    assert "no --preset was given, so it is release, which takes days on a CPU" in done.stderr
    assert "--preset=small" in done.stderr
    assert done.stderr.count("\n") == 1
    assert invoke("lts.bin.train_autoencoder", *flags, "--preset=release").stderr == ""
    (tmp_path / "ae").mkdir()
    (tmp_path / "ae" / "config.json").touch()
    assert invoke("lts.bin.train_autoencoder", *flags).stderr == ""
    assert len(trained) == 3


def test_stored_size_below_that_of_the_training(photos, tmp_path, monkeypatch):
    """Fails if crops are enlarged without a word, or a cache that nothing is written to is accepted."""
    monkeypatch.setattr(training, "train", lambda *arguments, **options: training.Result(1, 1, 0.0))
    common._warn_of_enlarged_crops.cache_clear()
    flags = ("--preset=tiny", f"--dataset=folder:{photos}", f"--workdir={tmp_path / 'ae'}")
    warned = invoke("lts.bin.train_autoencoder", *flags, "--stored_size=5", "--probe_steps=1").stderr
    assert warned.startswith("warning: crops of shrunk images are enlarged. Received: stored_size=5. From 97 pixels on")
    assert warned.count("\n") == 1
    refused = invoke("lts.bin.train_autoencoder", *flags, "--stored_size=0", f"--cache_dir={tmp_path}")
    assert refused.returncode == 2
    assert "--cache_dir does not go with --stored_size=0" in refused.stderr


@pytest.mark.parametrize("flag", ["--dataset=folder:/no/such", "--workdir=FILE/ae", "--workdir=AE"])
def test_errors_come_without_the_configuration(photos, autoencoder, tmp_path, flag):
    """Fails if a user has to find the error below the configuration."""
    (tmp_path / "file").touch()
    flag = flag.replace("FILE", str(tmp_path / "file")).replace("AE", str(autoencoder))
    flags = ("--preset=tiny", "--steps=7", f"--dataset=folder:{photos}", f"--workdir={tmp_path / 'x'}", flag)
    done = invoke("lts.bin.train_autoencoder", *flags)
    assert done.returncode == 1
    assert "preset" not in done.stdout
    assert done.stdout.count("\n") <= 2  # the images, and that they are small


def test_contents_of_a_run_decide_not_its_paths(photos, autoencoder, tmp_path, monkeypatch):
    """Fails if photographs, an autoencoder or a run that were moved are another run, or are not found by the export."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    shutil.copytree(autoencoder, "ae")
    flags = ("--steps=1", "--batch_size=4")
    done = invoke("lts.bin.train_gan", "--autoencoder=ae", "--dataset=folder:photos", "--workdir=gan", *flags)
    assert done.returncode == 0, done.stderr
    for old, new in (("photos", "pictures"), ("ae", "copy"), ("gan", "moved")):
        pathlib.Path(old).rename(new)
    done = invoke("lts.bin.train_gan", "--autoencoder=copy/", "--dataset=folder:./pictures", "--workdir=moved", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished before" in done.stdout
    done = invoke("lts.bin.export_features", "--workdir=moved", "--output=features", "--recalibrate_batch_norm")
    assert (done.returncode, done.stderr) == (0, "")
    assert "| batch norm statistics | folder:./pictures, split all |" in pathlib.Path("features/README.md").read_text()

    pathlib.Path("pictures/new.png").write_bytes(pathlib.Path("pictures/1.png").read_bytes())
    pathlib.Path("pictures").rename("others")
    done = invoke("lts.bin.train_gan", "--autoencoder=copy", "--dataset=folder:others", "--workdir=moved", *flags)
    assert done.returncode == 1
    assert f"(dataset: folder:{tmp_path}/pictures -> folder:{tmp_path}/others)" in done.stderr
    done = invoke("lts.bin.export_features", "--workdir=moved", "--output=x", "--recalibrate_batch_norm")
    assert done.returncode == 1
    assert "If the training images were moved, give --dataset" in done.stderr
    assert done.stderr.count("\n") == 1


def test_run_is_extended_and_begins_another_one(photos, autoencoder, tmp_path):
    """Fails if a finished run cannot be trained for longer, or a new run does not begin with another one's weights."""
    flags = ("--preset=tiny", f"--dataset=folder:{photos}", "--batch_size=4", *TINY)
    workdir = tmp_path / "ae"
    shutil.copytree(autoencoder, workdir)
    done = invoke("lts.bin.export_features", f"--workdir={workdir}", f"--output={tmp_path / 'finished'}")
    assert (done.returncode, done.stderr) == (0, "")
    done = invoke("lts.bin.train_autoencoder", *flags, f"--workdir={workdir}", "--steps=8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "extended from 6 to 8 steps; the learning rate decays over 8 steps now" in done.stdout
    assert "resuming at step 6 of 8" in done.stdout
    assert [line["step"] for line in metrics(workdir)] == [2, 4, 6, 8]
    refused = invoke("lts.bin.train_autoencoder", *flags, f"--workdir={workdir}", "--steps=6")
    assert "autoencoder_training.steps: 8 -> 6" in refused.stderr

    other = tmp_path / "other"
    started = (*flags, f"--workdir={other}", f"--init_from={workdir}", "--steps=2")
    refused = invoke("lts.bin.train_autoencoder", *started, "--encoder_filters=4,8,8,16")
    assert refused.returncode == 1
    assert "init_from has other networks (autoencoder.encoder_filters: (4, 8, 8, 8) -> (4, 8, 8, 16))" in refused.stderr
    assert not other.exists()
    done = invoke("lts.bin.train_autoencoder", *started)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"loaded the weights of step 8 of {workdir}" in done.stdout
    assert json.loads((other / "config.json").read_text())["init_from"] == str(workdir)
    assert "finished before" in invoke("lts.bin.train_autoencoder", *started).stdout

    # Exporting an unfinished run prints a note.
    record = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(record.replace('"steps": 8,', '"steps": 1800,'))
    done = invoke("lts.bin.export_features", f"--workdir={workdir}", f"--output={tmp_path / 'x'}")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the run is at step 8 of 1,800.")
    assert "| steps | 8 of 1,800: the training was not finished |" in (tmp_path / "x" / "README.md").read_text()


def test_small_images_are_reported(photos, autoencoder, tmp_path):
    """Fails if a user is not told that images are enlarged, as those of 20 pixels are for preset tiny."""
    flags = ("--preset=tiny", f"--dataset=folder:{photos}", f"--workdir={autoencoder}")
    assert "12 of 12 images are smaller than 48 pixels" in invoke("lts.bin.train_autoencoder", *flags).stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--probe_split=train",), "--probe_split does not go with --probe_steps=0. Received: --probe_split=train."),
        (("--probe_steps=5", "--probe_split=train+test[:50%]"), "must not see test images"),
        (
            ("--preset=tiny", "--split=train[:4]", "--probe_steps=5", "--probe_split=all[-4:]"),
            "must not see test images",
        ),
    ],
)
def test_images_of_the_online_evaluation_are_checked(flags, message, tmp_path):
    """Fails if test images decide when to stop a training, or a flag without effect is accepted."""
    done = invoke("lts.bin.train_autoencoder", "--dataset=synthetic", f"--workdir={tmp_path / 'ae'}", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
    assert not (tmp_path / "ae").exists()


@pytest.mark.parametrize(
    ("names", "flags", "split", "chosen"),
    [
        ("train/a/1 train/b/2 test/a/3 unlabelled/4", (), "train", {"train/a/1.png": "a", "train/b/2.png": "b"}),
        ("a/1 a/2 b/3", (), "all[all but a fifth of each class]", {"a/1.png": "a", "b/3.png": "b"}),
        ("train/a/1 val/b/2", ("--probe_split=val",), "val", {"val/b/2.png": "b"}),
        ("1 2 3", (), None, None),
    ],
    ids=["splits", "classes", "chosen", "flat"],
)
def test_images_of_the_online_evaluation(names, flags, split, chosen, tmp_path):
    """Fails if test images are evaluated by default, or chosen images and labels do not reach the training."""
    photos = write_photos(tmp_path / "photos", [f"{name}.png" for name in names.split()])
    arguments = [f"--dataset=folder:{photos}", f"--workdir={tmp_path / 'ae'}", "--probe_steps=5", *flags]
    stopped = training.Result(step=0, total_steps=1, seconds=0, signal=signal.SIGTERM)
    views = mock.patch.object(EvaluationImages, "of_dataset")
    with mock.patch.object(training, "train", return_value=stopped) as train, views as of_dataset:
        call(train_autoencoder, *arguments)
    images = train.call_args.kwargs["probe_images"]
    if chosen is None:
        assert images is None
        return
    assert images is of_dataset.return_value
    (source, _), _ = of_dataset.call_args
    labels = [source.class_names[label] for label in source.labels]
    assert source.split == split
    assert dict(zip(source.names, labels, strict=True)) == chosen


def test_mixed_up_folders_are_explained(photos, autoencoder):
    """Fails if a user who gives the wrong folder is not told which one to give."""
    flags = (f"--autoencoder={autoencoder}", f"--dataset=folder:{photos}", f"--workdir={autoencoder}")
    done = invoke("lts.bin.train_gan", *flags)
    assert done.returncode == 2
    assert "--workdir must be another folder than --autoencoder" in done.stderr
    done = invoke("lts.bin.export_features", f"--workdir={autoencoder.parent}", f"--output={autoencoder.parent / 'x'}")
    assert done.returncode == 1
    assert f"Give one of its runs: {autoencoder}." in done.stderr


def test_autoencoder_is_frozen_in_stage_2(photos, autoencoder, tmp_path):
    """Fails if stage 2 changes a weight or a statistic of the frozen autoencoder."""
    gan = tmp_path / "gan"
    flags = (f"--autoencoder={autoencoder}", f"--dataset=folder:{photos}", f"--workdir={gan}", "--steps=3")
    assert invoke("lts.bin.train_gan", *flags, "--batch_size=4").returncode == 0
    before = newest(autoencoder)
    after = newest(gan)
    names = [name for name in before if name.startswith(("encoder/", "decoder/"))]
    assert len(names) > 20
    for name in names:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_averaged_weights_are_exported(photos, autoencoder, tmp_path):
    """Fails if --weights=averaged exports other weights, or is no clear error where no average was kept."""
    gan = tmp_path / "gan"
    flags = (f"--autoencoder={autoencoder}", f"--dataset=folder:{photos}", f"--workdir={gan}", "--steps=5")
    done = invoke("lts.bin.train_gan", *flags, "--batch_size=4", "--ema_decay=0.999", "--learning_rate=0.1")
    assert done.returncode == 0, done.stderr
    exported = {}
    for weights in ("raw", "averaged"):
        output = f"--output={tmp_path / weights}"
        done = invoke("lts.bin.export_features", f"--workdir={gan}", output, f"--weights={weights}")
        assert done.returncode == 0, done.stderr
        exported[weights] = tf.saved_model.load(str(tmp_path / weights))
    checkpoint = newest(gan)
    names = {
        "raw": "discriminator/trunk/conv_1/kernel",
        "averaged": "optimizer/gan_discriminator_trunk_conv_1_kernel_average",
    }
    for weights, name in names.items():
        kernels = [v.numpy() for v in exported[weights].variables if v.shape == checkpoint[name].shape]
        assert any(np.array_equal(kernel, checkpoint[name]) for kernel in kernels), weights
    images = tf.constant(np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3), np.uint8))
    conv_1 = [model.signatures["serving_default"](images=images)["conv_1"].numpy() for model in exported.values()]
    assert np.abs(conv_1[0] - conv_1[1]).max() > 1e-3

    plain = tmp_path / "plain"
    flags = (f"--autoencoder={autoencoder}", f"--dataset=folder:{photos}", f"--workdir={plain}", "--steps=2")
    assert invoke("lts.bin.train_gan", *flags, "--batch_size=4", "--ema_decay=0").returncode == 0
    done = invoke("lts.bin.export_features", f"--workdir={plain}", f"--output={tmp_path / 'x'}", "--weights=averaged")
    assert done.returncode == 1
    assert "kept no average" in done.stderr
    assert not (tmp_path / "x").exists()


LONG = (*BASE, "--steps=500", "--log_steps=50")


@pytest.fixture(scope="module")
def uninterrupted(photos, tmp_path_factory) -> pathlib.Path:
    """Workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "ae"
    done = run("lts.bin.train_autoencoder", *LONG, f"--dataset=folder:{photos}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_signal_writes_checkpoint_and_run_resumes(photos, uninterrupted, tmp_path, number):
    """Fails if a stopped and resumed run is not bit-identical to an uninterrupted one."""
    flags = (*LONG, f"--dataset=folder:{photos}", f"--workdir={tmp_path / 'ae'}")
    process = start("lts.bin.train_autoencoder", *flags)
    for line in process.stdout:
        if "step 50/" in line:
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number, err
    assert "stopped" in out
    assert err == ""
    assert run("lts.bin.train_autoencoder", *flags).returncode == 0
    assert_same(tmp_path / "ae", uninterrupted)


def test_other_configuration_in_workdir_is_refused(photos, autoencoder):
    """Fails if a run is resumed with other constants."""
    flags = ("--preset=tiny", f"--dataset=folder:{photos}", f"--workdir={autoencoder}", "--steps=6", "--batch_size=4")
    done = invoke("lts.bin.train_autoencoder", *flags, *TINY, "--weight_decay=0.1")
    assert done.returncode == 1
    assert "loss.weight_decay: 5e-05 -> 0.1" in done.stderr
    assert done.stderr.count("\n") == 1


def test_loss_that_is_not_finite_stops_the_run(photos, tmp_path):
    """Fails if the term and the step are not named, or a checkpoint of broken weights is written."""
    workdir = tmp_path / "ae"
    flags = ("--preset=tiny", f"--dataset=folder:{photos}", f"--workdir={workdir}", "--steps=50", "--batch_size=4")
    done = invoke("lts.bin.train_autoencoder", *flags, *TINY, "--weight_decay=1e38", "--learning_rate=1e20")
    assert done.returncode == 1
    assert "is not finite at step" in done.stderr
    assert "'l2'" in done.stderr or "'reconstruction'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (workdir / "checkpoints").exists()


EXPORT = "lts.bin.export_features"
SPOT = "lts.bin.spot_artifacts"
TRAIN = ("--dataset=synthetic", "--workdir=x", "--preset=tiny")
RANDOM = ("--output=x", "--random_weights", "--preset=tiny", "--dataset=synthetic")
PROBE = ("--dataset=folder:/no/such", "--model=/no/such", "--output=x")
WITHOUT_EFFECT = [
    ("lts.bin.train_autoencoder", (*TRAIN, "--data_dir=d"), "--data_dir does not go with --dataset=synthetic"),
    ("lts.bin.train_autoencoder", (*TRAIN, "--cache_gb=1"), "--cache_gb does not go with --dataset=synthetic"),
    ("lts.bin.train_autoencoder", (*TRAIN, "--repair_learning_rate=1"), "does not go with stage 1"),
    ("lts.bin.train_autoencoder", (*TRAIN, "--shows=2"), "--shows does not go with stage 1"),
    ("lts.bin.train_pretext", (*TRAIN, "--task=lci", "--norepair"), "--repair does not go with --task=lci"),
    ("lts.bin.train_autoencoder", (*TRAIN, "--epochs=9"), "does not go with steps=4500, unless --steps=0 is given"),
    ("lts.bin.train_autoencoder", (*TRAIN, "--momentum=0.5"), "--momentum does not go with --optimizer=adam"),
    (
        "lts.bin.train_autoencoder",
        (*TRAIN, "--corruption=cell_swap", "--damage_fill=zero"),
        "--damage_fill does not go with --corruption=cell_swap",
    ),
    (EXPORT, (*RANDOM, "--weights=averaged"), "--weights does not go with --random_weights"),
    (EXPORT, (*RANDOM, "--workdir=w"), "--workdir does not go with --random_weights"),
    (
        EXPORT,
        ("--workdir=w", "--output=x", "--seed=1"),
        "--seed does not go with --workdir, because a trained run has",
    ),
    (EXPORT, ("--workdir=w", "--output=x", "--preset=tiny"), "--preset does not go with --workdir, because a"),
    (SPOT, ("--model=m", "--output=x", "--images=i", "--seed=2"), "--seed does not go with --images"),
    (SPOT, ("--model=m", "--output=x", "--evaluate=e", "--image_size=9"), "--image_size does not go with --evaluate"),
    ("experiments.linear_probe", (*PROBE, "--data_dir=d"), "--data_dir does not go with --dataset=folder"),
    ("experiments.voc_detection", (*PROBE, "--proposals=p", "--proposal_mode=fast"), "--proposal_mode does not go"),
    ("experiments.voc_classification", (*PROBE, "--momentum=0.5"), "--momentum does not go with --optimizer=adam"),
    ("experiments.compare_steps", ("--output=x",), "give one of --checkout, --release and --xla. Received: none"),
    ("experiments.compare_steps", ("--release=a",), "--release must hold models/SpotNet.py"),
    ("experiments.benchmark_step", ("--turn_steps=9", "--output=x"), "--turn_steps does not go with a measurement"),
]


@pytest.mark.parametrize(
    ("module", "flags", "status", "words"),
    [
        ("lts.bin.train_autoencoder", ("--dataset=synthetic",), 2, "workdir"),
        ("lts.bin.train_autoencoder", ("--dataset=synthetic", "--workdir=x", "--nonsense=1"), 2, "nonsense"),
        (
            "lts.bin.train_autoencoder",
            ("--dataset=synthetic", "--workdir=x", "photos"),
            2,
            "unexpected argument. Received: 'photos'",
        ),
        ("lts.bin.train_autoencoder", ("\u2013dataset=synthetic", "--workdir=x"), 2, "flags begin with two hyphens"),
        ("lts.bin.train_autoencoder", ("--dataset=synthetic", "--workdir=x", "--preset=big"), 2, "<release|imagenet"),
        ("lts.bin.train_autoencoder", ("--dataset=synthetic", "--workdir=x", "--image_size=100"), 2, "6.25x6.25"),
        ("lts.bin.train_autoencoder", ("--dataset=synthetic", "--workdir=x", "--steps=many"), 2, "steps='many'"),
        ("lts.bin.train_autoencoder", ("--dataset=folder:/no/such", "--workdir=x"), 1, "/no/such"),
        ("lts.bin.train_gan", ("--autoencoder=/no/such", "--dataset=synthetic", "--workdir=x"), 1, "/no/such"),
        ("lts.bin.export_features", ("--output=x",), 2, "--workdir"),
        ("lts.bin.export_features", ("--output=x", "--workdir=/no/such"), 1, "/no/such"),
        ("lts.bin.export_features", ("--output=x", "--random_weights", "--preset=tiny"), 2, "--dataset"),
        *[(module, flags, 2, words) for module, flags, words in WITHOUT_EFFECT],
    ],
)
def test_bad_input_is_one_line(module, flags, status, words, tmp_path):
    """Fails if an error is more than one line, has another exit status, or leaves a file."""
    flags = [flag.replace("=x", f"={tmp_path / 'x'}") for flag in flags]
    done = invoke(module, *flags)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_unwritable_workdir_is_one_line(photos, tmp_path):
    """Fails if an unwritable workdir shows a traceback.

    A file stands where a folder should be, because a read-only folder would not stop root.
    """
    (tmp_path / "file").write_text("")
    flags = (f"--dataset=folder:{photos}", f"--workdir={tmp_path / 'file' / 'ae'}", "--preset=tiny", "--steps=1")
    done = invoke("lts.bin.train_autoencoder", *flags)
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert done.stderr.count("\n") == 1


BINARIES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("lts/bin", "experiments")
    for path in sorted((ROOT / folder).glob("*.py"))
    if 'if __name__ == "__main__"' in path.read_text()
]


@pytest.mark.parametrize("binary", BINARIES)
def test_help(binary):
    """Fails if a binary's --help lacks a flag, exits with an error or is wider than 80 columns."""
    done = invoke(binary, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    with flagsaver.flagsaver():
        earlier = set(absl_flags.FLAGS)
        importlib.import_module(binary).define_flags()
        names = set(absl_flags.FLAGS) - earlier
    shown = re.findall(r"^  --(?:\[no\])?(\w+):", done.stdout, re.MULTILINE)
    assert sorted(shown) == sorted({*names, "quiet", "version"})


def test_help_shows_chosen_preset():
    """Fails if --help shows the defaults of another preset, or does not mark fields for ablations."""
    shown = {name: invoke("lts.bin.train_gan", f"--preset={name}", "--help").stdout for name in ("release", "small")}
    assert "--image_size: pixels per side (release) [96]" in shown["release"]
    assert "--image_size: pixels per side (release) [64]" in shown["small"]
    assert "[16,32,64,128]" in shown["small"]
    assert "decoding (release) (for ablations" in shown["small"]
    assert shown["small"].index("Data:") < shown["small"].index("Image configuration:")


def test_help_shows_chosen_protocol():
    """Fails if --help of a probe shows the defaults of another protocol."""
    assert (
        "--epochs: passes over the training images [65]"
        in invoke("experiments.linear_probe", "--protocol=lci", "--help").stdout
    )


def test_a_file_of_flags_from_windows(tmp_path):
    """Fails if a byte order mark or Windows line ends hide a flag."""
    (tmp_path / "flags.txt").write_bytes(b"\xef\xbb\xbf--model=/no/such\r\n--dataset=synthetic\r\n")
    done = invoke("experiments.knn_probe", f"--flagfile={tmp_path / 'flags.txt'}", f"--output={tmp_path / 'out'}")
    assert "/no/such is not an exported model" in done.stderr


def test_help_without_docstrings(monkeypatch):
    """Fails if --help under `python -OO`, which removes docstrings, is a traceback."""
    monkeypatch.setattr(importlib.import_module("experiments.knn_probe"), "__doc__", None)
    done = invoke("experiments.knn_probe", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--neighbours" in done.stdout


@pytest.mark.parametrize("arguments", [("--version",), ("--dataset=synthetic", "--nonsense=1"), ("--help",)])
def test_flags_are_answered_before_tensorflow_is_imported(arguments):
    """Fails if a user waits for TensorFlow to read the version, the help or a wrong flag."""
    check = (
        "import sys\n"
        "from lts.bin import train_gan\n"
        f"sys.argv = ['train_gan', *{arguments!r}]\n"
        "try:\n"
        "    train_gan.console()\n"
        "finally:\n"
        "    assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if "--nonsense=1" in arguments else 0)
    assert ("lts 0." in done.stdout) == (arguments == ("--version",))


def test_missing_flags_are_named_in_one_line():
    """Fails if a missing flag is reported as absl does, over several lines."""
    done = invoke("experiments.voc_detection", "--output=x")
    assert (done.returncode, done.stderr) == (2, "voc_detection: give --model, --dataset\n")


def test_escape_sequences_do_not_reach_the_terminal():
    """Fails if the name of a file or folder moves the cursor of a terminal or forges a line."""
    done = invoke("lts.bin.extract_features", "--model=a\x1b[31m\x9b\u202e\nb", "--dataset=synthetic", "--output=x.npz")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert r"a\x1b[31m\x9b\u202e b is not an exported model" in done.stderr


@pytest.mark.parametrize("module", ["scipy", "sklearn"])
def test_experiments_without_their_packages(module, tmp_path):
    """Fails if an experiment works for minutes before it misses a package."""
    with mock.patch.dict(sys.modules, {module: None}):
        done = invoke("experiments.quickstart", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Run: pip install --editable '.[experiments]'" in done.stderr
    assert not (tmp_path / "out").exists()
