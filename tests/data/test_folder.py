"""Image folders: the three layouts, splits, labels, broken files."""

import os
import pathlib

import numpy as np
import pytest

from lts.data import DataError, open_source
from lts.data.store import FileStore, MemoryStore
from tests.data.conftest import picture


def open_folder(root, split=None, **options):
    return open_source(f"folder:{root}", split, progress=False, **options)


def classes(dataset) -> list[str]:
    return [dataset.class_names[label] for label in dataset.labels]


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_split_class_image(tree):
    """Fails if classes are numbered per split, so that train and test disagree."""
    train = open_folder(tree, role="train")
    test = open_folder(tree, role="test")
    assert (train.split, test.split) == ("train", "test")
    assert train.class_names == test.class_names == ("a", "b", "c")
    assert (train.num_examples, test.num_examples) == (8, 4)
    for dataset in (train, test):
        assert classes(dataset) == [name.split("/")[1] for name in dataset.names]
        assert dataset.labels.dtype == np.int64


def test_pretraining_takes_everything(tree):
    dataset = open_folder(tree)
    assert dataset.num_examples == 17
    assert dataset.labels is None  # some have no class


def test_sum_of_splits(tree):
    dataset = open_folder(tree, "unlabelled+train")
    assert dataset.num_examples == 13
    assert [name.split("/")[0] for name in dataset.names] == ["unlabelled"] * 5 + ["train"] * 8


def test_slices_cut_without_overlap(tree):
    """Fails if the order changes, so that validation images are trained on."""
    first = open_folder(tree, "train[:75%]").names
    second = open_folder(tree, "train[75%:]").names
    assert len(first) == 6
    assert first + second == open_folder(tree, "train").names


def test_slices_hold_all_classes(tmp_path, save):
    """Fails on the order of the file system, whose first half is one class."""
    for name in "ab":
        for index in range(10):
            save(f"train/{name}/{index}.png")
    assert set(open_folder(tmp_path, "train[:50%]", role="train").labels) == {0, 1}


def test_class_image(tmp_path, save):
    for name in ("dog/1.png", "cat/1.png", "cat/2.png"):
        save(name)
    dataset = open_folder(tmp_path, "all", role="train")
    assert dataset.class_names == ("cat", "dog")
    assert sorted(dataset.labels) == [0, 0, 1]
    assert open_folder(tmp_path, "all[:2]").num_examples == 2


def test_a_named_folder_is_a_split_even_without_classes(tmp_path, save):
    for name in ("one/1.png", "one/2.png", "two/1.png"):
        save(name)
    dataset = open_folder(tmp_path, "one")
    assert dataset.num_examples == 2
    assert dataset.labels is None


def test_images_alone(tmp_path, save):
    for index in range(3):
        save(f"{index}.png")
    dataset = open_folder(tmp_path)
    assert (dataset.num_examples, dataset.labels, dataset.class_names) == (3, None, ())


def test_kinds_of_files(tmp_path, save):
    """Fails on upper-case extensions, hidden files, or text next to the images."""
    for name in ("a.JPG", "b.jpeg", "c.PNG", "d.bmp", "e.gif", "deep/er/f.jpg"):
        save(name)
    save(".hidden/x.png")
    save(".y.png")
    (tmp_path / "README.txt").write_text("no image")
    assert sorted(pathlib.PurePath(name).stem for name in open_folder(tmp_path).names) == list("abcdef")


def test_links_are_followed_and_circles_end(tmp_path, save):
    save("real/a/1.png")
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "real" / "a", root / "a")
    os.symlink(root, root / "circle")
    assert open_folder(root).names == ("a/1.png",)


def test_images_are_what_was_written(tmp_path, save):
    """Fails if images and names are out of step."""
    for seed in range(6):
        save(f"{seed}.png", seed=seed)
    dataset = open_folder(tmp_path)
    for index, name in enumerate(dataset.names):
        np.testing.assert_array_equal(dataset.read(index), picture(seed=int(pathlib.PurePath(name).stem)))


def test_files_equal_memory(tree):
    memory = open_folder(tree)
    files = open_folder(tree, cache_gb=0)
    assert isinstance(memory.store, MemoryStore)
    assert isinstance(files.store, FileStore)
    assert memory.fingerprint == files.fingerprint
    for index in range(memory.num_examples):
        np.testing.assert_array_equal(memory.read(index), files.read(index))


def test_a_file_that_only_pillow_reads_needs_memory(tmp_path, save):
    save("1.png")
    save("2.bmp", mode="P")
    assert open_folder(tmp_path).num_examples == 2
    with pytest.raises(DataError, match=r"2\.bmp.*Convert it to PNG or JPEG") as caught:
        open_folder(tmp_path, cache_gb=0)
    one_line(caught)


@pytest.mark.parametrize("cache_gb", [0, 1])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_file_stops_by_default(tmp_path, save, damage, cache_gb):
    for index in range(3):
        save(f"{index}.jpg", seed=index)
    bad = pathlib.Path(save("bad.jpg"))
    bad.write_bytes({"truncated": bad.read_bytes()[:-300], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(DataError, match=r"bad\.jpg is broken .*--skip_broken_images") as caught:
        open_folder(tmp_path, cache_gb=cache_gb)
    one_line(caught)
    dataset = open_folder(tmp_path, cache_gb=cache_gb, skip_broken_images=True)
    assert dataset.broken == ("bad.jpg",)
    assert dataset.num_examples == 3
    for index, name in enumerate(dataset.names):  # the others did not move
        difference = dataset.read(index).numpy() - picture(seed=int(pathlib.PurePath(name).stem)).astype(float)
        assert np.abs(difference).mean() < 25


def test_labels_follow_when_a_file_is_skipped(tmp_path, save):
    for name in "abc":
        save(f"train/{name}/1.png")
    (tmp_path / "train/b/1.png").write_bytes(b"")
    dataset = open_folder(tmp_path, role="train", skip_broken_images=True)
    assert classes(dataset) == [name.split("/")[1] for name in dataset.names]
    assert dataset.class_names == ("a", "b", "c")


def test_all_broken(tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="all 1 images are broken"):
        open_folder(tmp_path, skip_broken_images=True)


def test_skipped_files_are_listed(tmp_path, save, capsys):
    save("good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    open_source(f"folder:{tmp_path}", skip_broken_images=True)
    assert "skipped 1 broken images: bad.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("root", "split", "role", "message"),
    [
        ("missing", None, "pretrain", "missing is not a folder"),
        ("empty", None, "pretrain", r"empty holds no images \(\.jpg"),
        (".", "validation", "pretrain", r"no split 'validation'.* test \(4\), train \(8\), unlabelled \(5\), all"),
        (".", "unlabelled", "train", r"unlabelled/\d\.png is in no class folder"),
        (".", "train[:0]", "train", "selects no images"),
    ],
)
def test_errors_are_one_clear_line(tree, root, split, role, message):
    pathlib.Path(tree, "empty").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        open_folder(os.path.join(tree, root), split, role=role)
    one_line(caught)


@pytest.mark.parametrize("dataset", ["stl10", "folder:", "tfds:", "zip:x", ""])
def test_unknown_kind_of_dataset(dataset):
    with pytest.raises(DataError, match="synthetic, tfds:NAME or folder:PATH"):
        open_source(dataset)


def test_fingerprint_tells_changes(tree, save):
    """Fails if a run could resume on other data."""
    before = open_folder(tree).fingerprint
    assert before == open_folder(tree).fingerprint
    assert before != open_folder(tree, "train").fingerprint
    save("train/a/new.png")
    assert before != open_folder(tree).fingerprint
