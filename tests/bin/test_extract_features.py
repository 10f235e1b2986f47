"""Extraction from the command line: kills, broken files, full disks, wrong flags."""

import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import time

import numpy as np
import pytest

from lts import data
from lts.bin import common
from lts.export import saved_model
from tests.extraction.test_extract import break_photo, save_photo
from tests.fixtures.binaries import invoke
from tests.fixtures.exports import small_discriminator
from tests.fixtures.runs import start

MODULE = "lts.bin.extract_features"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """A small export of random weights."""
    discriminator, description = small_discriminator("batch_norm")
    path = tmp_path_factory.mktemp("export") / "features"
    saved_model.export(discriminator, path, description)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Folder of a thousand pictures."""
    root = tmp_path_factory.mktemp("photos")
    for seed in range(1000):
        save_photo(root / f"{seed}.jpg", seed)
    return root


def flags(model, photos, output, *more) -> tuple[str, ...]:
    return (f"--model={model}", f"--dataset=folder:{photos}", f"--output={output}", "--batch_size=16", *more)


def assert_one_line(done, status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_command_and_repetition(model, photos, tmp_path):
    """Fails if the file is incomplete, is written again, or is overwritten by another request."""
    output = tmp_path / "X.npz"
    done = invoke(MODULE, *flags(model, photos, output, "--layer=conv_5,conv_3", "--pool=avg"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{output}: 1000 images, " in done.stdout
    arrays = np.load(output)
    before = output.read_bytes()
    assert sorted(arrays) == ["class_names", "conv_3", "conv_5", "metadata", "names"]
    assert (arrays["conv_5"].shape, arrays["names"].shape) == ((1000, 8), (1000,))
    again = invoke(MODULE, *flags(model, photos, output, "--layer=conv_5,conv_3", "--pool=avg"))
    assert (again.returncode, output.read_bytes()) == (0, before)
    assert "was finished before: 1000 images" in again.stdout
    another = invoke(MODULE, *flags(model, photos, output, "--layer=conv_5,conv_3", "--pool=none"))
    assert_one_line(another, 1, "exists and differs", "pool: avg -> none")


def test_defaults_are_those_that_serve(model, photos, tmp_path):
    """Fails if a user without --layer and --pool gets another layer than the best one, or whole maps."""
    output = tmp_path / "X.npz"
    done = invoke(MODULE, *flags(model, photos, output, "--split=all[:8]"))
    assert done.returncode == 0, done.stderr
    assert np.load(output)["conv_3"].shape == (8, 8)
    assert "8 images, conv_3, pool avg" in done.stdout
    done = invoke(MODULE, *flags(model, photos, tmp_path / "all.npz", "--split=all[:8]", "--layer=all"))
    assert done.returncode == 0, done.stderr
    layers = [name for name in np.load(tmp_path / "all.npz") if name.startswith("conv_")]
    assert layers == ["conv_1", "conv_2", "conv_3", "conv_4", "conv_5"]


@pytest.mark.parametrize("flag", ["--layer=conv_9", "--pool=median", "--output=X.csv", "--model=missing"])
def test_wrong_flags_are_answered_before_the_model_is_loaded(model, tmp_path, flag, monkeypatch):
    """Fails if a user waits for TensorFlow and the model to read that a layer or a pooling does not exist."""
    monkeypatch.setattr(common, "import_tensorflow", lambda: pytest.fail("TensorFlow was imported"))
    done = invoke(MODULE, *flags(model, "missing", tmp_path / "X.npz"), flag)
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1


def wait_for_work(folder: pathlib.Path) -> None:
    """Wait until the partial folder holds features."""
    for _ in range(600):
        if any(path.stat().st_size for path in folder.glob("*.raw")):
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder} stayed empty")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_extraction_resumes(model, photos, tmp_path, number):
    """Fails if a stopped and resumed file is not bit-identical to an uninterrupted one."""
    uninterrupted = tmp_path / "uninterrupted.npz"
    output = tmp_path / "X.npz"
    maps = ("--layer=conv_5", "--pool=none")
    assert invoke(MODULE, *flags(model, photos, uninterrupted, *maps)).returncode == 0
    process = start(MODULE, *flags(model, photos, output, *maps))
    wait_for_work(tmp_path / "X.npz.partial")
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert not output.exists()
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert (out.splitlines()[-1], err) == ("run the same command again to resume", "")
        assert json.loads((tmp_path / "X.npz.partial" / "progress.json").read_text())["done"] > 0
    done = invoke(MODULE, *flags(model, photos, output, *maps))
    assert done.returncode == 0, done.stderr
    assert ("resuming after" in done.stdout) == (number != signal.SIGKILL)
    assert output.read_bytes() == uninterrupted.read_bytes()
    assert not (tmp_path / "X.npz.partial").exists()


def test_one_broken_file_among_a_thousand(model, photos, tmp_path):
    """Fails if a broken file is not named in one line, or is not skipped and listed on request."""
    folder = tmp_path / "photos"
    output = tmp_path / "X.npz"
    shutil.copytree(photos, folder)
    name = break_photo(folder, "broken.jpg")
    with pytest.raises(data.DataError) as caught:
        data.open_source(f"folder:{folder}", progress=False)
    assert_one_line(invoke(MODULE, *flags(model, folder, output)), 1, str(caught.value))
    assert not output.exists()
    done = invoke(MODULE, *flags(model, folder, output, "--skip_broken_images"))
    assert done.returncode == 0, done.stderr
    assert f"1 broken images were skipped: {name}" in done.stdout
    assert len(np.load(output)["conv_3"]) == 1000


@pytest.mark.parametrize(
    ("flag", "status", "words"),
    [
        ("--output=X.csv", 2, "must end in .npz, .tfrecord, .parquet"),
        ("--layer=conv_5,conv_5", 2, "each layer once"),
        ("--layer=", 2, "layer must be"),
        ("--dtype=int8", 2, "float32|float16"),
        ("--batch_size=0", 2, "batch_size"),
        ("--layer=conv_9", 2, "conv_1, conv_2, conv_3, conv_4, conv_5, all"),
        ("--pool=median", 2, "grid:N"),
        ("--dataset=folder:missing", 1, "missing is not a folder"),
        ("--split=test", 1, "has no split 'test'"),
        ("--model=missing", 1, "is not an exported model"),
        ("--output=/sys/lts/X.npz", 1, "/sys/lts"),
        ("--image_size=2", 1, "at least"),
    ],
)
def test_wrong_flags(model, photos, tmp_path, flag, status, words):
    """Fails if an error is more than one line, has another exit status, or leaves a file."""
    done = invoke(MODULE, *flags(model, photos, tmp_path / "X.npz"), flag)
    assert_one_line(done, status, words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "room"),
    [
        ("npz", 0.5),
        pytest.param("tfrecord", 1.001, marks=pytest.mark.slow),
        pytest.param("npz", 1.001, marks=pytest.mark.slow),
        pytest.param("parquet", 0.5, marks=pytest.mark.slow),
    ],
)
def test_full_disk_is_one_line(model, photos, tmp_path, format, room):
    """Fails if a full disk leaves a broken file or an extraction that cannot resume.

    A limit on the size of files stands for the disk: below the features' size it stops the extraction, just above it
    the writing of the output.
    """
    output = tmp_path / f"X.{format}"
    values = 1000 * 6 * 6 * 8 * 4
    maps = ("--layer=conv_5", "--pool=none")
    process = start(MODULE, *flags(model, photos, output, *maps))
    limit = int(values * room)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert err.count("\n") == 1, err
    assert os.strerror(errno.EFBIG) in err
    assert not output.exists()
    done = invoke(MODULE, *flags(model, photos, output, *maps))
    assert done.returncode == 0, done.stderr
    assert "resuming after" in done.stdout


def peak_megabytes(process) -> float:
    """Return the peak memory of a process at its end."""
    peak = 0
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.05)
    return peak / 1000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(model, photos, tmp_path):
    """Fails if ten times the images, 184 instead of 18 MB in the file, need more memory."""
    many = tmp_path / "many"
    many.mkdir()
    for path in photos.iterdir():
        for copy in range(10):
            (many / f"{copy}_{path.name}").hardlink_to(path)
    peaks = []
    for folder, count in ((photos, 1000), (many, 10000)):
        output = tmp_path / f"{count}.npz"
        process = start(MODULE, *flags(model, folder, output, "--layer=conv_1", "--pool=none"))
        peaks.append(peak_megabytes(process))
        assert process.returncode == 0
        assert len(np.load(output)["names"]) == count
    assert peaks[1] - peaks[0] < 60, peaks
