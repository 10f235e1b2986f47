"""What goes wrong outside the program: checkpoints, disks, folders, data and machines."""

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

from lts import data, training
from lts.config import ConfigError, preset
from lts.training import run_dir, strategy, task
from lts.training.checkpoints import Checkpoints, TrainingError, newest_step, read_checkpoint
from lts.training.loop import steps_done
from lts.training.run_record import RunRecord
from lts.training.task import checkpoint_items
from lts.training.train import build_model
from tests.fixtures import runs

MODULE = "lts.bin.train_autoencoder"
CONFIG = preset("tiny", steps=2, batch_size=4, image_size=16, encoder_filters="4,8,8,8", conv_1_kernel=3)


def value(model) -> np.ndarray:
    """Return the first kernel of a model."""
    return model.encoder.blocks[0].kernel.numpy()


@pytest.fixture(scope="module")
def model():
    """A stage 1 model whose checkpoint has about 100 kB."""
    return build_model(CONFIG, "autoencoder", 2)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory) -> pathlib.Path:
    """Folder of a run with two checkpoints: kernels of ones in step 1, of twos in step 2."""
    workdir = tmp_path_factory.mktemp("written") / "run"
    checkpoints = Checkpoints(workdir, checkpoint_items(model))
    for step in (1, 2):
        kernel = model.encoder.blocks[0].kernel
        kernel.assign(np.full(kernel.shape, step, np.float32))
        checkpoints.save(step)
    return workdir


@pytest.fixture
def two_checkpoints(written, model, tmp_path):
    """A copy of `written` and the model."""
    shutil.copytree(written, tmp_path / "run")
    return tmp_path / "run", model


def cut(folder: pathlib.Path) -> None:
    data_file = folder / "weights.data-00000-of-00001"
    data_file.write_bytes(data_file.read_bytes()[: data_file.stat().st_size // 2])


def flip_data(folder: pathlib.Path) -> None:
    flip(folder / "weights.data-00000-of-00001", 1 / 3)


def flip_index(folder: pathlib.Path) -> None:
    flip(folder / "weights.index", 1 / 2)


def flip(path: pathlib.Path, position: float) -> None:
    """Flip one bit at a relative position of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 4
    path.write_bytes(content)


def lose_shard(folder: pathlib.Path) -> None:
    (folder / "weights.data-00000-of-00001").unlink()


def lose_index(folder: pathlib.Path) -> None:
    (folder / "weights.index").unlink()


def empty_index(folder: pathlib.Path) -> None:
    (folder / "weights.index").write_bytes(b"")


DAMAGES = [cut, flip_data, flip_index, lose_shard, lose_index, empty_index, shutil.rmtree]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_checkpoint_is_reported_and_the_previous_one_restored(two_checkpoints, capsys, damage):
    """Fails if half of the weights are restored, or if the run silently starts again."""
    workdir, model = two_checkpoints
    damage(workdir / "checkpoints" / "step_00000002")
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    assert np.all(value(model) == 1)
    assert "step_00000002" in capsys.readouterr().err
    left = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    renamed = [] if damage is shutil.rmtree else ["damaged_step_00000002"]
    assert left == [*renamed, "step_00000001"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_readable_checkpoint_is_an_error(two_checkpoints, damage):
    """Fails if a run starts again over hours of training."""
    workdir, model = two_checkpoints
    for step in (1, 2):
        damage(workdir / "checkpoints" / f"step_{step:08}")
    before = value(model)
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        Checkpoints(workdir, checkpoint_items(model)).restore()
    np.testing.assert_array_equal(value(model), before)
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        run_dir.restore_networks(workdir, encoder=model.encoder)


@pytest.mark.parametrize("marker", ["step_00000002\n", ""])
def test_deleted_checkpoints_are_an_error(two_checkpoints, marker):
    """Fails if a run without its checkpoints starts again, which begins by deleting its curves."""
    workdir, model = two_checkpoints
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "last_checkpoint").write_text(marker)
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        Checkpoints(workdir, checkpoint_items(model)).restore()


def test_any_flipped_bit_is_noticed_or_harmless(two_checkpoints):
    """Fails if the checksums do not cover names, shapes or the end of the file."""
    workdir, _ = two_checkpoints
    folder = workdir / "checkpoints" / "step_00000002"
    expected = read_checkpoint(folder)
    rng = random.Random(0)
    noticed = 0
    for name in ("weights.index", "weights.data-00000-of-00001"):
        content = (folder / name).read_bytes()
        for _ in range(60):
            changed = bytearray(content)
            changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(changed)
            try:
                values = read_checkpoint(folder)
            except TrainingError:
                noticed += 1
                continue
            assert values.keys() == expected.keys()
            assert all(np.array_equal(values[key], expected[key]) for key in expected)
        (folder / name).write_bytes(content)
    assert noticed > 100


def test_full_disk_leaves_the_previous_checkpoint(two_checkpoints):
    """Fails if an interrupted write damages what was there; a limit on file sizes stands for the disk."""
    workdir, model = two_checkpoints
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"could not be written .* intact: .*step_00000002"):
            Checkpoints(workdir, checkpoint_items(model)).save(3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert left == ["step_00000001", "step_00000002"]
    assert Checkpoints(workdir, checkpoint_items(model)).restore()
    assert np.all(value(model) == 2)


def test_old_checkpoints_are_removed(model, tmp_path):
    """Fails if `keep` does not keep the newest, or if a step is saved twice."""
    checkpoints = Checkpoints(tmp_path, checkpoint_items(model), keep=2)
    for step in (1, 5, 20, 20):
        checkpoints.save(step)
    assert sorted(path.name for path in checkpoints.folder.glob("step_*")) == ["step_00000005", "step_00000020"]


def test_what_a_user_puts_next_to_checkpoints_is_left_alone(model, tmp_path):
    """Fails if a copy, a file or a link is read as a checkpoint, or removed as one beyond `keep`."""
    checkpoints = Checkpoints(tmp_path, checkpoint_items(model), keep=1)
    checkpoints.save(4)
    for name in ("step_00000004.bak", "step_00000020_backup", "step_best", "step_00000004 copy", "step_", "step_٣"):
        shutil.copytree(checkpoints.folder / "step_00000004", checkpoints.folder / name)
    (checkpoints.folder / "step_00000030").write_text("a note")
    (checkpoints.folder / "step_00000040").symlink_to("step_00000004")
    (checkpoints.folder / "damaged_step_00000007").mkdir()
    others = sorted(path.name for path in checkpoints.folder.iterdir() if path != checkpoints.newest)
    assert len(others) == 9
    assert newest_step(tmp_path) == 4
    checkpoints.save(6)
    checkpoints.save(7)
    cut(checkpoints.folder / "step_00000007")
    with pytest.raises(TrainingError, match="no readable checkpoint is left"):
        checkpoints.restore()
    checkpoints.keep = 2
    checkpoints.save(8)
    cut(checkpoints.folder / "step_00000008")
    shutil.copytree(checkpoints.folder / "step_best", checkpoints.folder / "step_00000004")
    assert checkpoints.restore()
    left = {path.name for path in checkpoints.folder.iterdir()}
    # An earlier damaged checkpoint may be the user's only copy of it.
    damaged = {"damaged_step_00000007_2", "damaged_step_00000008"}
    assert left == {*others, *damaged, "step_00000004"}


def test_checkpoints_are_ordered_as_numbers(model, tmp_path):
    """Fails if the newest checkpoint is taken for the oldest from step 100,000,000 on."""
    checkpoints = Checkpoints(tmp_path, checkpoint_items(model), keep=2)
    for step in (99_999_998, 99_999_999, 100_000_000):
        checkpoints.save(step)
    assert newest_step(tmp_path) == 100_000_000
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step_100000000", "step_99999999"]


@pytest.mark.parametrize("name", ["a [b]", "back\\slash", "a*b?, %20 =#ü"])
def test_workdir_that_is_a_pattern(model, tmp_path, name):
    """Fails if checkpoints are written to such a folder and cannot be read."""
    checkpoints = Checkpoints(tmp_path / name, checkpoint_items(model))
    checkpoints.save(3)
    assert Checkpoints(tmp_path / name, checkpoint_items(model)).restore()


def test_newest_checkpoint_is_that_of_the_last_step(two_checkpoints):
    """Fails if the newest checkpoint depends on file times: a clock may have been set back."""
    workdir, model = two_checkpoints
    os.utime(workdir / "checkpoints" / "step_00000002", (0, 0))
    Checkpoints(workdir, checkpoint_items(model)).restore()
    assert np.all(value(model) == 2)


def test_files_of_a_killed_writer_are_removed(two_checkpoints):
    """Fails if gigabytes of half-written checkpoints stay."""
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


def test_lock(tmp_path):
    """Fails if two processes could write to one folder, or if the lock of a dead process holds."""
    (tmp_path / "lock").write_text("process 1 on elsewhere\n")
    with run_dir.locked(tmp_path):
        with pytest.raises(TrainingError, match=f"in use by process {os.getpid()} on"), run_dir.locked(tmp_path):
            pass
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_replicas_that_do_not_divide_the_batch():
    """Fails if the message does not name the next batch sizes."""
    with pytest.raises(ConfigError, match=r"Received: batch_size=4\. Use 3 or 6"):
        task._check_batch(4, 3, 1)
    with pytest.raises(ConfigError, match=r"Received: batch_size=2\. Use 3"):
        task._check_batch(2, 3, 1)


def test_partners_on_different_replicas():
    """Fails if `cell_swap` may put the two images of a pair on different replicas."""
    task._check_batch(8, 4, 2)
    with pytest.raises(ConfigError, match=r"number, 4 times the 2 images .* Received: batch_size=4\. Use 8"):
        task._check_batch(4, 4, 2)
    with pytest.raises(ConfigError, match=r"Received: batch_size=5\. Use 4 or 6"):
        task._check_batch(5, 1, 2)


@pytest.mark.parametrize("replicas", ["none", "0", -1])
def test_wrong_number_of_replicas(replicas):
    """Fails if a wrong flag reaches TensorFlow."""
    with pytest.raises(strategy.StrategyError, match="auto or a positive number"):
        strategy.build_strategy(replicas)


@pytest.mark.parametrize(
    "text", ["{", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}']
)
def test_unreadable_cluster(monkeypatch, text):
    """Fails if invalid JSON, or a task outside its cluster, is not an error of one line."""
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(strategy.StrategyError, match=r"TF_CONFIG cannot be read: [^\n]+$"):
        strategy._machines()


@pytest.mark.parametrize("damage", ["cut", pytest.param("removed", marks=pytest.mark.slow)])
def test_image_that_breaks_during_training(tmp_path, damage):
    """Fails if the error does not name the image that broke after the data were opened."""
    folder = runs.make_photos(tmp_path / "photos")
    source = data.open_source(f"folder:{folder}", progress=False, cache_gb=0)
    picture = folder / "9.png"  # not among the eight pictures of the strip
    content = picture.read_bytes()
    picture.unlink()
    if damage == "cut":
        picture.write_bytes(content[: len(content) // 2])
    with pytest.raises(data.DataError, match=r"9\.png is broken"):
        training.train(CONFIG.replace(steps=20), "autoencoder", source, tmp_path / "run")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """A folder of twelve pictures."""
    return runs.make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def stopped(photos, tmp_path_factory) -> pathlib.Path:
    """Workdir of a run of 200000 steps that SIGTERM stopped."""
    workdir = tmp_path_factory.mktemp("stopped") / "ae"
    stop_after_one_line(*flags(photos), f"--workdir={workdir}")
    return workdir


def stop_after_one_line(*given: str) -> str:
    """Start a run, stop it after its first line of scalars, and return its stderr."""
    process = runs.start(MODULE, *given)
    for line in process.stdout:
        if "images/s" in line:
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    return err


def flags(photos, steps: int = 200_000) -> tuple:
    """Return the flags of every run here, without the workdir."""
    return (*runs.BASE, f"--dataset=folder:{photos}", f"--steps={steps}", "--log_steps=20", "--histogram_steps=0")


@pytest.mark.slow
def test_full_disk_stops_the_run_with_one_line(photos, stopped, tmp_path):
    """Fails if a user sees a traceback, or loses the last checkpoint, when the disk is full."""
    workdir = tmp_path / "ae"
    shutil.copytree(stopped, workdir)
    before = runs.newest(workdir)
    size = max(path.stat().st_size for path in workdir.glob("checkpoints/*/*")) // 1024
    shutil.rmtree(workdir / "tensorboard")  # so that the checkpoint is the first file that is too large
    command = [*flags(photos), f"--workdir={workdir}", "--checkpoint_minutes=0", "--log_steps=100000"]
    process = runs.start(MODULE, *command)
    limit = (size - 10) * 1024
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "could not be written" in err
    assert os.strerror(errno.EFBIG) in err
    assert err.count("\n") == 1, err
    after = runs.newest(workdir)
    for name, expected in before.items():
        np.testing.assert_array_equal(after[name], expected, err_msg=name)


@pytest.mark.slow
def test_changed_data_are_reported_once(photos, stopped, tmp_path):
    """Fails if training on other pictures than before goes unnoticed, or is reported at every start."""
    workdir = tmp_path / "ae"
    other = tmp_path / "photos"
    shutil.copytree(stopped, workdir)
    runs.make_photos(other)
    record = (workdir / "config.json").read_text().replace(str(photos), str(other))
    (workdir / "config.json").write_text(record)
    Image.new("RGB", (20, 20)).save(other / "new.png")
    step = int(runs.newest(workdir)["optimizer/iteration"])
    given = (*flags(other), f"--workdir={workdir}")
    assert "the data changed" in stop_after_one_line(*given)
    assert "the data changed" not in stop_after_one_line(*given)
    assert int(runs.newest(workdir)["optimizer/iteration"]) > step


@pytest.mark.slow
def test_locale_without_umlauts(tmp_path):
    """Fails if file names that the terminal cannot show end the program."""
    photos = runs.make_photos(tmp_path / "Köpfe")
    (photos / "größe.png").write_bytes(b"not a picture")
    locale = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    workdir = tmp_path / "läufe"
    given = (*flags(photos, steps=20), "--skip_broken_images", f"--workdir={workdir}")
    done = runs.run(MODULE, *given, **locale)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in runs.metrics(workdir)] == [20]
    refused = runs.run(MODULE, *flags(photos, steps=20), f"--workdir={workdir}", **locale)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_port_that_is_taken(photos, tmp_path):
    """Fails if a machine waits forever for a place in the cluster that it cannot have."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"]
        cluster = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}})
        done = runs.run(MODULE, *flags(photos), f"--workdir={tmp_path / 'ae'}", TF_CONFIG=cluster)
    assert done.returncode == 1
    assert "the machines of TF_CONFIG did not come together" in done.stderr
    assert done.stderr.count("\n") == 1
