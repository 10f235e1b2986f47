"""Selective search, its cache, and proposals from files."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import types
import zipfile

import numpy as np
import psutil
import pytest
from PIL import ExifTags, Image

from experiments.voc.data.dataset import Objects, open_voc
from experiments.voc.detection import proposals, selective_search
from experiments.voc.detection.proposals import read_proposals, recall, search_proposals
from experiments.voc.detection.selective_search import ProposalError, search
from tests.fixtures.tiny_devkit import TinyObject, draw, write

needs_opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="no OpenCV (extra detection)")


BIRD, CAT = (5, 5, 35, 75), (40, 85, 85, 115)


def picture(height=90, width=120, seed=0):
    objects = [TinyObject("bird", BIRD), TinyObject("cat", CAT)]
    return draw(objects, height, width, np.random.default_rng(seed))[0]


@needs_opencv
@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_a_search_is_the_same_each_time(mode):
    """Fails if the random order of OpenCV shows, or boxes repeat or leave the image."""
    first, again = search(picture(), mode), search(picture(), mode)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert len(np.unique(first, axis=0)) == len(first) > 10
    assert (first[:, :2] >= 0).all()
    assert (first[:, 2:] <= [90, 120]).all()
    assert (first[:, :2] < first[:, 2:]).all()
    areas = (first[:, 2:] - first[:, :2]).prod(axis=1)
    assert (np.diff(areas) <= 0).all()
    np.testing.assert_array_equal(first[0], [0, 0, 90, 120])


@needs_opencv
def test_shapes_are_found_where_they_are():
    """Fails if axes are swapped, or width and height taken for the last corner."""
    objects = Objects(np.array([BIRD, CAT], np.float32), np.zeros(2, int), np.zeros(2, bool))
    assert recall([search(picture())], [objects], 0.75) == 1
    assert recall([search(picture())[:, [1, 0, 3, 2]]], [objects], 0.75) == 0


@needs_opencv
def test_large_images_are_searched_small(monkeypatch):
    """Fails if boxes of a reduced image are not scaled back."""
    image = np.asarray(Image.fromarray(picture()).resize((960, 720)))
    monkeypatch.setattr(selective_search, "LONG_SIDE", 120)
    boxes = search(image)
    assert recall([boxes / 8], [Objects(np.array([BIRD]), np.zeros(1), np.zeros(1, bool))], 0.7) == 1
    np.testing.assert_array_equal(boxes[0], [0, 0, 720, 960])


@needs_opencv
@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (40, 30)])
def test_an_image_without_anything_has_one_proposal_at_least(shape):
    """Fails if a uniform or tiny image has no proposal."""
    boxes = search(np.full([*shape, 3], 128, np.uint8))
    np.testing.assert_array_equal(boxes[0], [0, 0, *shape])


@pytest.fixture
def images(tmp_path):
    """Return four different images and a copy of the first."""
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        Image.fromarray(picture(seed=index % 4)).save(path)
    return [str(path) for path in paths]


@needs_opencv
def test_the_cache_is_of_content_and_settings(images, tmp_path, monkeypatch, capsys):
    """Fails if moved or copied images are searched again, or changed ones are not."""
    cache = tmp_path / "cache"
    first = search_proposals(images[:3], cache, processes=1)
    assert len(list(cache.iterdir())) == 3
    assert "selective search: 3 images" in capsys.readouterr().out
    two = search_proposals(images, cache, processes=2)
    assert len(list(cache.iterdir())) == 4  # the copy has the same
    for got, expected in zip(two, [*first, *two[3:]], strict=True):
        np.testing.assert_array_equal(got, expected)
    for path, boxes in zip(images, two, strict=True):
        np.testing.assert_array_equal(boxes, search(np.asarray(Image.open(path))))

    monkeypatch.setattr(proposals, "_search_all", None)  # nothing is computed again
    moved = str(tmp_path / "moved.png")
    os.rename(images[1], moved)
    np.testing.assert_array_equal(search_proposals([moved], cache)[0], two[1])
    few = search_proposals([moved], cache, max_boxes=7)[0]
    assert len(few) == len(np.unique(few, axis=0)) == 7
    np.testing.assert_array_equal(few[[0, -1]], two[1][[0, -1]])  # the largest and the smallest
    (single,) = search_proposals([moved], cache, max_boxes=1)
    np.testing.assert_array_equal(single, two[1][:1])
    np.testing.assert_array_equal(search_proposals([moved], cache, max_boxes=len(two[1]))[0], two[1])

    computed = []
    monkeypatch.setattr(proposals, "_search_all", lambda missing, *_: computed.extend(missing) or 1 / 0)
    changed = np.asarray(Image.open(moved)).copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(moved)
    for path, options in ((moved, {}), (images[0], {"mode": "quality"})):
        with pytest.raises(ZeroDivisionError):
            search_proposals([path], cache, **options)
    assert len(set(computed)) == 2


SCRIPT = """
import sys
from experiments.voc.detection.proposals import search_proposals
if __name__ == "__main__":
    search_proposals(sys.argv[2:], sys.argv[1], processes=2)
"""


@needs_opencv
def test_a_killed_search_resumes_and_leaves_no_process(tmp_path):
    """Fails if workers outlive a parent that was killed, or finished images are searched again."""
    paths = [str(tmp_path / f"{index}.png") for index in range(8)]
    for index, path in enumerate(paths):
        Image.fromarray(picture(120, 160, seed=index)).save(path)
    cache, script = tmp_path / "cache", tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, str(script), str(cache), *paths], env=environment)
    deadline = time.monotonic() + 300
    while not list(cache.glob("*.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=300)
    assert not alive
    done = {file: file.stat().st_mtime_ns for file in cache.glob("*.npz")}
    assert 0 < len(done) < 8
    boxes = search_proposals(paths, cache, processes=1)
    assert len(boxes) == 8
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert len(list(cache.iterdir())) == 8  # nothing half-written is left


def test_workers_need_no_tensorflow():
    """Fails if a worker process would import TensorFlow."""
    code = "import sys, experiments.voc.detection.proposals; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("module", [None, types.ModuleType("cv2")])  # not installed; without contrib
def test_without_opencv_the_extra_is_named(images, tmp_path, monkeypatch, module):
    """Fails if a missing OpenCV, or one without contrib modules, gives another error."""
    monkeypatch.setitem(sys.modules, "cv2", module)
    with pytest.raises(
        ProposalError, match=r"the extra `detection`\. Run pip install opencv-contrib-python-headless"
    ) as caught:
        search_proposals(images, tmp_path / "cache")
    assert "\n" not in str(caught.value)


@needs_opencv
def test_what_cannot_be_searched_is_named(images, tmp_path):
    """Fails if an error does not name the mode, image or cache file at fault."""
    cache = tmp_path / "cache"
    with pytest.raises(ProposalError, match=r"mode of selective search must be fast \| quality. Received: 'slow'"):
        search_proposals(images, cache, mode="slow")
    with pytest.raises(ProposalError, match=r"missing\.png cannot be searched"):
        search_proposals([str(tmp_path / "missing.png")], cache)
    with open(images[2], "r+b") as file:
        file.truncate(3000)
    with pytest.raises(ProposalError, match=r"2\.png cannot be searched for objects \(.*[Tt]runcated"):
        search_proposals(images[2:], cache, processes=1)
    search_proposals(images[:1], cache, processes=1)
    file = next(cache.glob("*.npz"))
    for file in cache.glob("*.npz"):
        file.write_bytes(b"PK rubbish")
    with pytest.raises(ProposalError, match=f"{re.escape(str(file.parent))}.* is damaged .*. Remove it"):
        search_proposals(images[:1], cache)


def test_proposals_from_a_file(tmp_path):
    """Fails if boxes follow another image, or are not clipped to theirs."""
    file = tmp_path / "proposals.npz"
    np.savez(file, a=np.array([[0, 0, 10, 20], [5, 5, 11, 12]]), b=np.array([[-0.5, 2, 8, 9.5]]), c=np.zeros([1, 4]))
    first, second = read_proposals(file, ["b", "a"], np.array([[8, 9], [10, 20]]))
    np.testing.assert_array_equal(first, [[0, 2, 8, 9]])  # up to a pixel outside is cut off
    np.testing.assert_array_equal(second, [[0, 0, 10, 20], [5, 5, 10, 12]])
    assert first.dtype == second.dtype == np.float32
    assert len(read_proposals(file, ["a"], np.array([[10, 20]]), max_boxes=1)[0]) == 1


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros([0, 4]), r"image 'a': boxes must be numbers \[n, 4\]. Received: float64 \[0, 4\]"),
        (np.zeros([3, 5]), r"Received: float64 \[3, 5\]"),
        (np.array(["x"]), "boxes must be numbers"),
        (np.array([[0, 0, 12, 5]]), r"within its 20x10 image and have an area. Received: .* = 0, 0, 12, 5"),
        (np.array([[0, 0, 5, 5], [4, 4, 4, 8]]), "= 4, 4, 4, 8"),
        (np.array([[0, 0, np.nan, 5]]), "= 0, 0, nan, 5"),
        (np.array([None]), "must be an .npz of proposals"),
        (None, "holds no proposals for image 'a' and 0 others"),
    ],
)
def test_files_of_proposals_that_are_wrong(tmp_path, boxes, message):
    """Fails if invalid boxes are accepted, or the file is not named."""
    file = tmp_path / "proposals.npz"
    np.savez(file, **({"other": np.ones([1, 4])} if boxes is None else {"a": boxes}))
    with pytest.raises(ProposalError, match=message) as caught:
        read_proposals(file, ["a"], np.array([[10, 20]]))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_that_is_no_array(tmp_path):
    """Fails if another kind of entry gives another error."""
    with zipfile.ZipFile(tmp_path / "proposals.npz", "w") as archive:
        archive.writestr("a.npy", b"text")
    with pytest.raises(ProposalError, match=r"proposals\.npz must be an .npz of proposals"):
        read_proposals(tmp_path / "proposals.npz", ["a"], np.array([[10, 20]]))


def test_a_file_that_inflates_to_gigabytes(tmp_path):
    """Fails if a small file of proposals fills the memory."""
    np.savez_compressed(tmp_path / "proposals.npz", a=np.zeros([proposals.MAX_BYTES // 32 + 1, 4]))
    with pytest.raises(ProposalError, match=r"a has .* bytes, more than 67,108,864"):
        read_proposals(tmp_path / "proposals.npz", ["a"], np.array([[10, 20]]))


def test_a_file_that_is_none(tmp_path):
    """Fails if a missing file or one of another format gives another error."""
    with pytest.raises(ProposalError, match=r"missing\.npz must be an .npz of proposals"):
        read_proposals(tmp_path / "missing.npz", ["a"], np.array([[10, 20]]))
    np.save(tmp_path / "array.npy", np.zeros([2, 4]))
    with pytest.raises(ProposalError, match=r"array\.npy must be an .npz of proposals"):
        read_proposals(tmp_path / "array.npy", ["a"], np.array([[10, 20]]))


def test_recall_by_hand():
    """Fails for overlaps 1/2, 2/3 and 0 if a threshold is exclusive, or the difficult object counts."""
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60], [80, 80, 90, 90]], np.float32)
    objects = [
        Objects(boxes[:2], np.zeros(2, int), np.zeros(2, bool)),
        Objects(boxes[2:], np.zeros(2, int), np.array([False, True])),
        Objects(boxes[:0], np.zeros(0, int), np.zeros(0, bool)),
    ]
    found = [
        np.array([[0, 0, 10, 5], [20, 20, 30, 35]], np.float32),
        np.array([[80, 80, 90, 90]], np.float32),
        np.array([[0, 0, 1, 1]], np.float32),
    ]
    assert recall(found, objects) == pytest.approx(2 / 3)
    assert recall(found, objects, 0.51) == pytest.approx(1 / 3)
    assert recall(found, objects, 0.7) == 0
    assert np.isnan(recall(found[2:], objects[2:]))


@needs_opencv
def test_most_objects_of_a_tiny_set_are_covered(tmp_path):
    """Fails if the search covers less than 80 % of coloured shapes."""
    write(tmp_path / "set", {"train": 4})
    opened = open_voc(f"folder:{tmp_path / 'set'}", "train", "detection", progress=False)
    found = search_proposals(opened.paths, tmp_path / "cache", processes=1)
    assert recall(found, opened.objects) > 0.8


@needs_opencv
def test_most_real_objects_are_covered(real, tmp_path):
    """Fast selective search covers 0.99 of the 102 objects of the test split; 6 images are enough to see it."""
    opened = open_voc(f"folder:{real('animals_voc')}", "test[:6]", "detection", progress=False)
    found = search_proposals(opened.paths, tmp_path / "cache")
    assert recall(found, opened.objects) > 0.85
    assert 100 < np.mean([len(boxes) for boxes in found]) < 2000


def test_photographs_are_searched_upright(tmp_path, monkeypatch):
    """Fails if the boxes of a photograph with an EXIF tag lie on the turned picture."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (120, 90)).save(tmp_path / "a.jpg", exif=exif)
    searched = []
    monkeypatch.setattr(selective_search, "search", lambda pixels, mode: searched.append(pixels.shape) or np.zeros(4))
    selective_search.search_file(str(tmp_path / "a.jpg"), str(tmp_path / "a.npz"), "fast")
    assert searched == [(120, 90, 3)]


def test_a_pipe_in_place_of_proposals(tmp_path):
    """Fails if reading a named pipe waits forever."""
    os.mkfifo(tmp_path / "proposals.npz")
    with pytest.raises(ProposalError, match="not a regular file"):
        read_proposals(tmp_path / "proposals.npz", ["a"], np.array([[10, 20]]))
