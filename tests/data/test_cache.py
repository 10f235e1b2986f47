"""Photographs that are shrunk when they are opened, and their cache on disk."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image

from lts import config as configs
from lts import data
from lts.config import ImageConfig
from lts.data import cache, store
from lts.data.augment import random_crop_window
from lts.data.decoding import TURNS, decode_shrunk, decode_with_pillow, read_header
from lts.extraction.stream import open_stream
from lts.training import run_dir
from lts.training.checkpoints import TrainingError
from lts.training.train import make_task
from tests.data.conftest import NEUTRAL, picture

SIZE = 40  # shorter side of the shrunk images
ROOT = Path(__file__).parents[2]
# A process that is killed while it writes an image.
WRITER = """
import sys
from lts.utils import files

with files.scratch_folder(sys.argv[1]) as scratch:
    (scratch / "half").write_bytes(bytes(100))
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def photos(tmp_path):
    """Folder of six photographs, four of which are larger than SIZE."""
    root = tmp_path / "photos"
    root.mkdir()
    sizes = {"large.jpg": (400, 520), "turned.jpg": (330, 410), "grey.jpg": (90, 81), "large.png": (123, 95)}
    sizes |= {"equal.jpg": (SIZE, 55), "small.jpg": (30, 20)}
    for seed, (name, (height, width)) in enumerate(sizes.items()):
        image = Image.fromarray(picture(height, width, seed)).convert("L" if name == "grey.jpg" else "RGB")
        exif = Image.Exif()
        if name == "turned.jpg":
            exif[ExifTags.Base.Orientation] = 6
        image.save(root / name, exif=exif)
    return root


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache of a user who gives no --cache_dir."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "lts" / "images"


def open_photos(root, **options) -> data.ImageDataset:
    return data.open_source(f"folder:{root}", **{"stored_size": SIZE, "progress": False, **options})


def pixels(dataset: data.ImageDataset) -> dict[str, np.ndarray]:
    return {name: dataset.read(number).numpy() for number, name in enumerate(dataset.names)}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def entries(folder) -> list[Path]:
    return sorted(folder.rglob("*.pixels"))


def never(*_):
    raise AssertionError("decoded again")


def failing(*reason):
    """Return a function that raises an `OSError`."""

    def fail(*_):
        raise OSError(*reason)

    return fail


def test_no_crop_of_a_stored_image_is_enlarged():
    """Fails if 128-pixel files were shrunk for 64-pixel training, or if a crop has fewer pixels than training needs."""
    sizes = {"release": 193, "imagenet": 257, "small": 129, "tiny": 97}
    assert {name: configs.preset(name).image.stored_size for name in sizes} == sizes
    image = configs.preset("small").image
    shape = tf.constant([129, 129, 3])
    sides = [random_crop_window(shape, tf.constant([1, number]), image)[2:].numpy().min() for number in range(300)]
    assert image.image_size <= min(sides) < 1.1 * image.image_size
    assert NEUTRAL.stored_size == 32
    assert ImageConfig(image_size=32, crop_area=(1, 1), crop_aspect=(1, 1), test_crop=0.5).stored_size == 64


def cubic(distance: np.ndarray) -> np.ndarray:
    """Return the bicubic kernel with A = -0.5."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def antialiased(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image whose rows are resized to `size`, by a kernel that is as much wider as there are more rows."""
    scale = len(image) / size
    source = np.arange(len(image)) + 0.5
    target = (np.arange(size)[:, np.newaxis] + 0.5) * scale
    weights = cubic((source - target) / scale)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.tensordot(weights, image, axes=1)


@pytest.mark.parametrize(
    ("name", "shape", "mean", "largest"),
    [
        pytest.param("a.png", (100, 83), 0.4, 1.5, id="png, the filter alone"),
        pytest.param("a.jpg", (75, 60), 0.4, 1.5, id="jpeg, not reduced by the decoder"),
        pytest.param("a.jpg", (150, 120), 2.0, 12, id="jpeg at 1/2"),
        pytest.param("a.jpg", (352, 440), 2.0, 12, id="jpeg at 1/8"),
    ],
)
def test_shrunk_images_are_close_to_an_oracle(tmp_path, name, shape, mean, largest):
    """Fails on aliasing, a shift by half a pixel or exchanged sides. Differences in values of 0 to 255."""
    smooth = picture(*[side // 5 + 1 for side in shape])
    large = np.asarray(Image.fromarray(smooth).resize(shape[::-1], Image.Resampling.BICUBIC))
    noise = np.random.RandomState(0).normal(0, 12, large.shape)
    for orientation in (1, *TURNS):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        pixels = np.clip(large + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, quality=95, subsampling=0, exif=exif)
        header = read_header(str(tmp_path / name))
        shape = header.stored_shape(SIZE)
        received = decode_shrunk(str(tmp_path / name), header, shape)
        # TensorFlow's faster decoder differs from Pillow's by one on average.
        upright = decode_with_pillow(str(tmp_path / name)).astype(np.float64)
        expected = antialiased(antialiased(upright, shape[0]).swapaxes(0, 1), shape[1]).swapaxes(0, 1)
        assert received.shape == expected.shape == (*shape, 3)
        difference = np.abs(np.clip(expected, 0, 255) - received)
        assert difference.mean() < mean
        assert difference.max() < largest


def test_every_reader_gives_the_same_pixels(photos, folder, monkeypatch):
    """Fails if memory, cache, files or stream differ, a small image changes, or a fingerprint depends on the cache."""
    memory = open_photos(photos)
    assert not folder.exists()
    cached = open_photos(photos, cache_gb=0)
    assert len(entries(folder)) == 4
    again = open_photos(photos, cache_gb=0)
    monkeypatch.setattr(store, "default_folder", lambda: None)  # a user without a home folder
    files = open_photos(photos, cache_gb=0)
    expected = pixels(memory)
    for dataset in (cached, again, files):
        assert_same(pixels(dataset), expected)
        assert (dataset.fingerprint, dataset.stored_size) == (memory.fingerprint, SIZE)
        dataset.check_files()
    shapes = {name: image.shape[:2] for name, image in expected.items()}
    assert shapes == {
        "large.jpg": (40, 52),
        "turned.jpg": (50, 40),
        "grey.jpg": (44, 40),
        "large.png": (52, 40),
        "equal.jpg": (40, 55),
        "small.jpg": (30, 20),
    }
    # Inside `tf.data`, as training reads, and as a stream.
    for dataset in (cached, files):
        for number, image in enumerate(tf.data.Dataset.range(6).map(dataset.read).as_numpy_iterator()):
            np.testing.assert_array_equal(image, expected[dataset.names[number]])
    stream = open_stream(f"folder:{photos}", stored_size=SIZE)
    assert (stream.fingerprint, stream.stored_size) == (memory.fingerprint, SIZE)
    views = np.concatenate([view.images for view in stream.views(NEUTRAL, batch_size=4)])
    np.testing.assert_array_equal(views, np.concatenate(list(data.test_batches(memory, NEUTRAL, batch_size=6))))

    # Small images are those of before, bit by bit.
    full = open_photos(photos, stored_size=0)
    for name in ("equal.jpg", "small.jpg"):
        np.testing.assert_array_equal(full.read(full.names.index(name)), expected[name])
    assert full.fingerprint != memory.fingerprint
    assert full.stored_size == 0
    np.testing.assert_array_equal(full.shorter_sides, memory.shorter_sides)
    assert open_photos(photos, stored_size=400).fingerprint == full.fingerprint  # no image is larger
    assert open_photos(photos, stored_size=39).fingerprint != memory.fingerprint


def test_a_killed_first_pass_is_resumed(photos, tmp_path, monkeypatch):
    """Fails if images of the cache are decoded again, or if the unfinished file of a dead process stays."""
    folder = tmp_path / "cache"
    expected = pixels(open_photos(photos))
    open_photos(photos, cache_dir=str(folder), limit=3)
    finished = {path: path.stat().st_mtime_ns for path in entries(folder)}
    command = [sys.executable, "-c", WRITER, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout.readline() == b"started\n"
        writer.kill()
    assert list(folder.rglob("half"))
    resumed = open_photos(photos, cache_dir=str(folder), cache_gb=0)
    assert_same(pixels(resumed), expected)
    # Backups must not skip a folder of the user that holds the cache.
    assert [path.name for path in folder.iterdir()] == [str(SIZE)]
    assert (folder / str(SIZE) / cache.TAG).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert 0 < len(finished) < len(entries(folder)) == 4
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in entries(folder)}.items()

    # Every later run shares them, also after the photographs were moved, and into memory.
    monkeypatch.setattr(store, "decode_shrunk", never)
    moved = photos.rename(tmp_path / "moved")
    assert_same(pixels(open_photos(moved, cache_dir=str(folder))), expected)


def test_damaged_and_foreign_files_of_a_cache(photos, tmp_path, capsys):
    """Fails if a damaged image is trained on, or if a file of the user is changed."""
    folder = tmp_path / "cache"
    own = folder / str(SIZE)
    own.mkdir(parents=True)
    (own / "thesis.txt").write_text("years")
    (own / cache.TAG).write_text("mine")
    expected = pixels(open_photos(photos, cache_dir=str(folder)))
    truncated, changed, pipe, removed = entries(folder)
    contents = [path.read_bytes() for path in entries(folder)]
    truncated.write_bytes(contents[0][:-1])
    changed.write_bytes(bytes([contents[1][0] ^ 1]) + contents[1][1:])
    pipe.unlink()
    os.mkfifo(pipe)
    dataset = open_photos(photos, cache_dir=str(folder), cache_gb=0)
    assert_same(pixels(dataset), expected)
    assert [path.read_bytes() for path in entries(folder)] == contents
    assert (own / "thesis.txt").read_text() == "years"
    assert (own / cache.TAG).read_text() == "mine"
    assert capsys.readouterr().err == ""
    removed.unlink()
    with pytest.raises(data.DataError, match=r"the shrunk copy of \S+ in the cache cannot be read .* Run the same"):
        dataset.check_files()


def test_two_programs_fill_one_cache(photos, tmp_path):
    """Fails if one removes unfinished files of the other, or if two writers of one image disturb each other."""
    folder = tmp_path / "cache"
    expected = pixels(open_photos(photos))
    for name in ("large.jpg", "large.png"):
        shutil.copy(photos / name, photos / f"copy of {name}")
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: open_photos(photos, cache_dir=str(folder), cache_gb=0), range(3)))
    for dataset in opened:
        received = pixels(dataset)
        assert_same({name: received[name] for name in expected}, expected)
        np.testing.assert_array_equal(received["copy of large.png"], expected["large.png"])
    assert len(entries(folder)) == 4
    assert [path.name for path in folder.iterdir()] == [str(SIZE)]


@pytest.mark.parametrize("fault", ["reserve", "full", "read-only"])
def test_a_cache_that_cannot_be_written(photos, tmp_path, monkeypatch, capsys, fault):
    """Fails if a full disk stops the training, fills up, or prints a line for every image."""
    expected = pixels(open_photos(photos))
    folder = tmp_path / "cache"
    if fault == "reserve":
        free = shutil.disk_usage(tmp_path)._replace(free=cache.RESERVE)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    if fault == "full":
        monkeypatch.setattr(Path, "write_bytes", failing(28, "No space left on device"))
    if fault == "read-only":
        # Permissions do not stop the superuser.
        monkeypatch.setattr(cache.files, "scratch_folder", failing(13, "Permission denied"))
    dataset = open_photos(photos, cache_dir=str(folder), cache_gb=0)
    assert_same(pixels(dataset), expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: shrunk images are not kept on disk (")
    assert f"Received: cache_dir={folder}." in line
    assert not entries(folder)


def test_unsuitable_cache_folders(photos, tmp_path):
    """Fails if the cache is written among the photographs, or if a file stops the training with a traceback."""
    with pytest.raises(data.DataError, match=r"cache_dir is inside the folder of the images\. Received"):
        open_photos(photos, cache_dir=str(photos / "cache"))
    with pytest.raises(data.DataError, match=r"cache_dir is a file, not a folder\. Received"):
        open_photos(photos, cache_dir=str(photos / "small.jpg"))
    open_photos(photos, cache_dir=str(photos / ".cache"))  # hidden folders are not read
    assert open_photos(photos).num_examples == 6


def test_broken_images_are_those_of_full_size(photos):
    """Fails if the reduced decoder accepts an image that the complete one refuses, or the other way round."""
    content = (photos / "large.jpg").read_bytes()
    (photos / "half.jpg").write_bytes(content[: len(content) // 2])
    (photos / "end.jpg").write_bytes(content[:-2])
    broken = [open_photos(photos, stored_size=size, skip_broken_images=True).broken for size in (0, SIZE)]
    assert broken[0] == broken[1]
    assert "half.jpg" in broken[0]
    with pytest.raises(data.DataError, match=r"(half|end)\.jpg is broken"):
        open_photos(photos)


def test_another_stored_size_is_another_run(photos, tmp_path, monkeypatch):
    """Fails if a resumed run trains on other pixels; images that are not shrunk do not count."""
    config = configs.preset("tiny", steps=1, batch_size=2)
    monkeypatch.setattr(sys.modules[make_task.__module__], "_samples", lambda *_: None)  # slow, and not looked at

    def start(workdir: str, stored_size: int) -> run_dir.RunRecord:
        source = open_photos(photos, stored_size=stored_size)
        record = make_task(config, "autoencoder", source, tmp_path / workdir).record
        return run_dir.open_run(tmp_path / workdir, record)

    assert start("a", SIZE).details == {"stored_size": SIZE}
    assert start("a", SIZE) == run_dir.read_run_config(tmp_path / "a")
    with pytest.raises(TrainingError, match=r"another configuration \(stored_size: 40 -> 41\)"):
        start("a", 41)
    assert start("b", 0) == start("b", 999)
    with pytest.raises(TrainingError, match=r"another configuration \(stored_size: None -> 40\)"):
        start("b", SIZE)
    with pytest.raises(TrainingError, match=r"another configuration \(stored_size: 40 -> None\)"):
        start("a", 0)

    # A large photograph is added to a folder of small ones, or the last one is removed.
    large = [path for path in photos.iterdir() if path.name not in ("equal.jpg", "small.jpg")]
    for path in large:
        path.rename(tmp_path / path.name)
    assert "stored_size" not in start("c", SIZE).details
    assert start("a", SIZE).details == {"stored_size": SIZE}
    (tmp_path / "large.jpg").rename(photos / "large.jpg")
    assert start("c", SIZE).details == {"stored_size": SIZE}
