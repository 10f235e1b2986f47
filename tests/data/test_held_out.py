"""Held-out test images of data sets without a test split."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from lts.data import DataError, open_source
from lts.data.held_out import default_split, hold_out
from lts.data.store import ImageIndex


def open_folder(root, role, split=None):
    return open_source(f"folder:{root}", split, role=role, progress=False)


@pytest.mark.parametrize(
    ("names", "train", "test", "validation"),
    [
        (["train", "test"], ("train", False), ("test", False), ("train[80%:]", False)),
        (["train", "val"], ("train", False), ("val", False), ("train[80%:]", False)),
        (["train", "validation", "test"], ("train", False), ("test", False), ("train[80%:]", False)),
        (["train", "unlabelled"], ("train", True), ("train", True), ("train", True)),
        (["all"], ("all", True), ("all", True), ("all", True)),
    ],
)
def test_default_splits(names, train, test, validation):
    """Fails if an existing test split is not used, or none is held out where there is none."""
    assert default_split("validation", names) == validation
    assert default_split("train", names) == train
    assert default_split("test", names) == test


def test_class_folders_need_no_splits(tmp_path, save):
    """Fails if the commonest layout has no training and test images, or they share one, or miss a class."""
    for name, count in (("cat", 20), ("dog", 11), ("with space", 5)):
        for index in range(count):
            save(f"{name}/{index}.png")
    train = open_folder(tmp_path, "train")
    test = open_folder(tmp_path, "test")
    assert not set(train.names) & set(test.names)
    assert collections.Counter(test.labels.tolist()) == {0: 4, 1: 2, 2: 1}
    assert collections.Counter(train.labels.tolist()) == {0: 16, 1: 9, 2: 4}
    assert train.class_names == test.class_names
    assert (train.split, test.split) == ("all[all but a fifth of each class]", "all[a fifth of each class]")
    assert open_folder(tmp_path, "test").names == test.names
    assert open_folder(tmp_path, "train", "all[:80%]").split == "all[:80%]"


def test_choices_are_tuned_without_the_test_images(tmp_path, save):
    """Fails if an ablation on class folders sees a test image of the probes, or misses an image or a class."""
    for name, count in (("cat", 20), ("dog", 11)):
        for index in range(count):
            save(f"{name}/{index}.png")
    parts = {role: open_folder(tmp_path, role) for role in ("train", "test", "tuning", "validation")}
    tuned = sorted(parts["tuning"].names + parts["validation"].names)
    assert tuned == sorted(parts["train"].names)
    assert collections.Counter(parts["validation"].labels.tolist()) == {0: 3, 1: 2}
    rest = "all[all but a fifth of each class]"
    assert parts["validation"].split == f"{rest}[a fifth of each class]"
    assert parts["tuning"].split == f"{rest}[all but a fifth of each class]"


def test_train_folder_without_test_folder(tmp_path, save):
    """Fails if images outside of the training split are held out, or a test split is ignored."""
    for index in range(10):
        save(f"train/cat/{index}.png")
        save(f"unlabelled/{index}.png")
    test = open_folder(tmp_path, "test")
    assert (test.split, test.num_examples) == ("train[a fifth of each class]", 2)
    assert all(name.startswith("train/") for name in test.names)
    save("val/cat/a.png")
    assert open_folder(tmp_path, "test").names == ("val/cat/a.png",)
    assert open_folder(tmp_path, "train").split == "train"


def test_the_hold_out_is_announced(tmp_path, save, capsys):
    """Fails if a user is not told that the test images were chosen for him."""
    for index in range(4):
        save(f"cat/{index}.png")
    open_source(f"folder:{tmp_path}", role="test")
    assert "has no test split, so a fifth of each class is held out" in capsys.readouterr().out


def test_images_without_classes_are_explained(tmp_path, save):
    """Fails if a folder of unsorted images is answered without the layouts that have labels."""
    save("1.png")
    with pytest.raises(DataError, match=r"in no class folder.*/CLASS/1\.jpg, or .*/train/CLASS/1\.jpg"):
        open_folder(tmp_path, "train")


def test_encoded_images_follow_the_choice():
    """Fails if images, labels and names of a set that is no folder come from different positions."""
    labels = np.arange(20) % 2
    items = [f"image {number}".encode() for number in range(20)]
    index = ImageIndex(
        names=tuple(f"x train[{number}]" for number in range(20)),
        labels=labels,
        class_names=("a", "b"),
        dataset=lambda: tf.data.Dataset.from_tensor_slices(items),
        in_files=False,
        paths=lambda: [item.decode() for item in items],
    )
    parts = [hold_out(index, "train", role)[0] for role in ("train", "test")]
    assert [len(part.names) for part in parts] == [16, 4]
    for part in parts:
        numbers = [int(name.split("[")[1][:-1]) for name in part.names]
        assert list(part.items()) == [items[number] for number in numbers]
        assert part.paths() == [items[number].decode() for number in numbers]
        np.testing.assert_array_equal(part.labels, labels[numbers])
