"""What goes wrong outside the program: README's table of faults, a test a row."""

import errno
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket

import numpy as np
import pytest
from PIL import Image

from lts.config import preset
from lts.training import run_dir
from lts.training.loop import steps_done
from lts.training.run_dir import Checkpoints, TrainingError
from lts.training.run_record import RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import build_model
from tests.fixtures import runs

MODULE = "lts.bin.train_autoencoder"


def small_model():
    """A stage 1 model whose checkpoint is some 100 kB."""
    config = preset("tiny", steps=2, batch_size=4, image_size=16, encoder_filters="4,8,8,8", conv_1_kernel=3)
    return build_model(config, "autoencoder", 2)


def value(model) -> np.ndarray:
    return model.encoder.blocks[0].kernel.numpy()


@pytest.fixture
def two_checkpoints(tmp_path):
    """(workdir, model): step 1 holds kernels of ones, step 2 of twos."""
    model = small_model()
    checkpoints = Checkpoints(tmp_path, checkpoint_items(model))
    for step in (1, 2):
        kernel = model.encoder.blocks[0].kernel
        kernel.assign(np.full(kernel.shape, step, np.float32))
        checkpoints.save(step)
    return tmp_path, model


def cut(folder: pathlib.Path) -> None:
    data = folder / "weights.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])


def flip_data(folder: pathlib.Path) -> None:
    data = folder / "weights.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 3] ^= 1
    data.write_bytes(content)


def flip_index(folder: pathlib.Path) -> None:
    index = folder / "weights.index"
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 4
    index.write_bytes(content)


def lose_shard(folder: pathlib.Path) -> None:
    (folder / "weights.data-00000-of-00001").unlink()


def lose_index(folder: pathlib.Path) -> None:
    (folder / "weights.index").unlink()


def empty_index(folder: pathlib.Path) -> None:
    (folder / "weights.index").write_bytes(b"")


DAMAGES = [cut, flip_data, flip_index, lose_shard, lose_index, empty_index, shutil.rmtree]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(two_checkpoints, capsys, damage):
    """Half of the weights restored, or a silent fresh start."""
    workdir, model = two_checkpoints
    damage(workdir / "checkpoints" / "step_00000002")
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    assert np.all(value(model) == 1)
    assert "step_00000002" in capsys.readouterr().err
    left = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    aside = [] if damage is shutil.rmtree else ["damaged_step_00000002"]
    assert left == [*aside, "step_00000001"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_whole_checkpoint_left_is_an_error(two_checkpoints, damage):
    """A fresh start over hours of training."""
    workdir, model = two_checkpoints
    for step in (1, 2):
        damage(workdir / "checkpoints" / f"step_{step:08}")
    before = value(model)
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        Checkpoints(workdir, checkpoint_items(model)).restore()
    np.testing.assert_array_equal(value(model), before)
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        run_dir.restore_networks(workdir, encoder=model.encoder)


def test_checkpoints_that_are_gone_are_an_error(two_checkpoints):
    """A fresh start that begins with deleting the curves of the run."""
    workdir, model = two_checkpoints
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        Checkpoints(workdir, checkpoint_items(model)).restore()
    (workdir / "last_checkpoint").write_text("")
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        Checkpoints(workdir, checkpoint_items(model)).restore()


def test_any_flipped_bit_is_noticed_or_harmless(two_checkpoints):
    """A checksum that does not cover names, shapes or the end of the file."""
    workdir, _ = two_checkpoints
    folder = workdir / "checkpoints" / "step_00000002"
    whole, rng = run_dir.read_checkpoint(folder), random.Random(0)
    noticed = 0
    for name in ("weights.index", "weights.data-00000-of-00001"):
        content = (folder / name).read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(changed)
            try:
                values = run_dir.read_checkpoint(folder)
            except TrainingError:
                noticed += 1
                continue
            assert values.keys() == whole.keys()
            assert all(np.array_equal(values[key], whole[key]) for key in whole)
        (folder / name).write_bytes(content)
    assert noticed > 100


def test_a_full_disk_leaves_the_checkpoint_before(two_checkpoints):
    """A limit on the size of files stands for the disk: writing fails in the middle of the data."""
    workdir, model = two_checkpoints
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            TrainingError, match=r"could not be written .*the previous checkpoint is intact: .*step_00000002"
        ):
            Checkpoints(workdir, checkpoint_items(model)).save(3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert left == ["step_00000001", "step_00000002"]
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    assert np.all(value(model) == 2)


def test_checkpoints_beyond_keep_are_removed_and_a_step_is_saved_once(tmp_path):
    """--keep_checkpoints: the newest stay."""
    model = small_model()
    checkpoints = Checkpoints(tmp_path, checkpoint_items(model), keep=2)
    for step in (1, 5, 20, 20):
        checkpoints.save(step)
    assert sorted(path.name for path in checkpoints.folder.glob("step_*")) == ["step_00000005", "step_00000020"]


def test_the_newest_checkpoint_is_that_of_the_last_step_whatever_the_clock_said(two_checkpoints):
    """A clock that was set back between two checkpoints."""
    workdir, model = two_checkpoints
    os.utime(workdir / "checkpoints" / "step_00000002", (0, 0))
    Checkpoints(workdir, checkpoint_items(model)).restore()
    assert np.all(value(model) == 2)


def test_what_a_killed_writer_left_is_removed(two_checkpoints):
    """Gigabytes of half-written checkpoints that nobody looks at."""
    workdir, model = two_checkpoints
    partial = workdir / "checkpoints" / ".step_00000003.partial-abc"
    partial.mkdir()
    (partial / "weights").write_text("half")
    record = RunRecord("autoencoder", preset("tiny"))
    run_dir.write_run_config(workdir, record)
    run_dir.open_run(workdir, record)
    assert not partial.exists()
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    assert steps_done(model) == 0


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    return runs.make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def stopped(photos, tmp_path_factory) -> pathlib.Path:
    """Workdir of a run of 200000 steps that SIGTERM stopped."""
    workdir = tmp_path_factory.mktemp("stopped") / "ae"
    process = runs.start(MODULE, *flags(photos), f"--workdir={workdir}")
    for line in process.stdout:
        if "images/s" in line:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=120)
    assert process.returncode == 143
    return workdir


def flags(photos, steps: int = 200_000) -> tuple:
    return (*runs.BASE, f"--dataset=folder:{photos}", f"--steps={steps}", "--log_steps=20", "--histogram_steps=0")


def test_a_full_disk_stops_the_run_with_one_line(photos, stopped, tmp_path):
    """What a user sees; the limit is on the size of files, in units of 1024 bytes."""
    workdir = tmp_path / "ae"
    shutil.copytree(stopped, workdir)
    before = runs.newest(workdir)
    size = max(path.stat().st_size for path in workdir.glob("checkpoints/*/*")) // 1024
    shutil.rmtree(workdir / "tensorboard")  # so that the checkpoint is the first file that is too large
    command = [*flags(photos), f"--workdir={workdir}", "--checkpoint_minutes=0", "--log_steps=100000"]
    process = runs.start(MODULE, *command)
    limit = (size - 10) * 1024
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "could not be written" in err
    assert os.strerror(errno.EFBIG) in err
    assert err.count("\n") == 1, err
    after = runs.newest(workdir)
    for name, one in before.items():
        np.testing.assert_array_equal(after[name], one, err_msg=name)


def test_two_processes_in_one_workdir(photos, stopped):
    """Both would write checkpoints of one number."""
    with run_dir.locked(stopped):
        done = runs.run(MODULE, *flags(photos), f"--workdir={stopped}")
    assert done.returncode == 1
    assert f"in use by process {os.getpid()} on" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lock_that_a_dead_process_left_does_not_hold(stopped):
    (stopped / "lock").write_text("process 1 on elsewhere\n")
    with run_dir.locked(stopped):
        assert str(os.getpid()) in (stopped / "lock").read_text()


def test_a_workdir_that_is_read_only(photos):
    """/sys takes no folder, not even from root."""
    done = runs.run(MODULE, *flags(photos), "--workdir=/sys/lts/ae")
    assert done.returncode == 1
    assert "/sys/lts" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_data_set_that_changed_is_reported(photos, stopped, tmp_path):
    """Another picture since the checkpoint: training goes on, and says so once."""
    workdir, other = tmp_path / "ae", tmp_path / "photos"
    shutil.copytree(stopped, workdir)
    runs.make_photos(other)
    record = (workdir / "config.json").read_text().replace(f"folder:{photos}", f"folder:{other}")
    (workdir / "config.json").write_text(record)
    Image.new("RGB", (20, 20)).save(other / "new.png")
    step = int(runs.newest(workdir)["optimizer/iteration"])
    for start in range(2):
        process = runs.start(MODULE, *flags(other), f"--workdir={workdir}")
        for line in process.stdout:
            if "images/s" in line:
                process.send_signal(signal.SIGTERM)
                break
        _, err = process.communicate(timeout=120)
        assert process.returncode == 143, err
        assert ("the data changed" in err) == (start == 0), err
    assert int(runs.newest(workdir)["optimizer/iteration"]) > step


def test_a_locale_without_umlauts(tmp_path):
    """Names of files that the terminal cannot show, numbers that a locale writes with a comma."""
    photos = runs.make_photos(tmp_path / "Köpfe")
    (photos / "größe.png").write_bytes(b"not a picture")
    locale = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    workdir = tmp_path / "läufe"
    given = (*flags(photos, steps=20), "--skip_broken_images", f"--workdir={workdir}")
    done = runs.run(MODULE, *given, **locale)
    assert done.returncode == 0, done.stderr
    assert "1 broken images were skipped" in done.stdout
    assert [line["step"] for line in runs.metrics(workdir)] == [20]
    refused = runs.run(MODULE, *flags(photos, steps=20), f"--workdir={workdir}", **locale)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_replicas_that_do_not_divide_the_batch(photos, tmp_path):
    done = runs.run(MODULE, *flags(photos), f"--workdir={tmp_path / 'ae'}", "--replicas=3")
    assert done.returncode == 2
    assert "Use 3 or 6" in done.stderr
    assert not (tmp_path / "ae").exists()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--replicas=none", "auto or a positive number"),
        ("--replicas=0", "auto or a positive number"),
        ("--profile_steps=5", "profile_steps must be two steps"),
        ("--batch_norm=both", "global | per_replica"),
        ("--global_clipnorm=-1", "at least 0"),
    ],
)
def test_wrong_flags(photos, tmp_path, flag, words):
    done = runs.run(MODULE, *flags(photos), f"--workdir={tmp_path / 'ae'}", flag)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cluster_that_cannot_be_read(photos, tmp_path):
    """A task that is not in the cluster; no JSON."""
    for text in ("{", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}'):
        done = runs.run(MODULE, *flags(photos), f"--workdir={tmp_path / 'ae'}", TF_CONFIG=text)
        assert done.returncode == 2
        assert "TF_CONFIG cannot be read" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken(photos, tmp_path):
    """One line and status 1, at once: nobody will ever come to that place."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"]
        cluster = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}})
        done = runs.run(MODULE, *flags(photos), f"--workdir={tmp_path / 'ae'}", TF_CONFIG=cluster, timeout=120)
    assert done.returncode == 1
    assert "the machines of TF_CONFIG did not come together" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_an_image_that_breaks_while_training_reads_it(photos, tmp_path, damage):
    """One line with its name and status 1."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    more = (f"--workdir={tmp_path / 'run'}", "--cache_gb=0", "--log_steps=1", "--steps=100000")
    process = runs.start(MODULE, f"--dataset=folder:{folder}", *runs.BASE, *more)
    assert any("step 3/" in line for line in process.stdout)
    picture = folder / "5.png"
    whole = picture.read_bytes()
    picture.unlink()
    if damage == "cut":
        picture.write_bytes(whole[: len(whole) // 2])
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "5.png is broken" in err
    assert err.count("\n") == 1
