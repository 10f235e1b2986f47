"""Declared sets against tfds' builders, and opened sets against their declarations."""

import pytest
import tensorflow_datasets as tfds

from experiments.probing import datasets
from experiments.probing.probe import ProbeError
from lts import data
from lts.data import synthetic

TFDS = [name for name in datasets.DECLARED if name.startswith("tfds:")]


@pytest.mark.parametrize("name", TFDS)
def test_declarations_are_those_of_the_builders(name, tmp_path):
    """Fails if classes, shapes or splits are declared otherwise than tfds has them."""
    info = tfds.builder(name.removeprefix("tfds:"), data_dir=tmp_path).info
    declared = datasets.DECLARED[name]
    assert info.features["label"].num_classes == declared.classes
    assert info.features["image"].shape == declared.shape
    assert set(declared.labelled) <= set(declared.splits)


def test_the_synthetic_set_is_as_declared():
    """Fails if the generator and the declaration differ."""
    declared = datasets.DECLARED["synthetic"]
    assert declared.splits == synthetic.SPLITS
    assert declared.classes == len(synthetic.CLASS_NAMES)
    assert datasets.open_labelled("synthetic", "test[:20]", role="test", progress=False).num_examples == 20


@pytest.mark.parametrize("name", TFDS)
def test_mocked_sets_are_as_declared(name, tmp_path):
    """Fails if an image of tfds' stand-in data does not have the declared shape or classes."""
    with tfds.testing.mock_data(num_examples=10):
        builder = tfds.builder(name.removeprefix("tfds:"), data_dir=tmp_path)
        for example in builder.as_dataset(split="train").take(3):
            sides = zip(datasets.DECLARED[name].shape, example["image"].shape, strict=True)
            assert all(declared in (None, side) for declared, side in sides)
            assert 0 <= int(example["label"]) < datasets.DECLARED[name].classes


class _Opened:
    """STL-10's training images, but for what a test changes."""

    name = "tfds:stl10"
    broken = ()

    def __init__(self, images=5000, classes=10, shape=(96, 96, 3), split="train"):
        self.split = split
        self.num_examples = images
        self.class_names = tuple(map(str, range(classes)))
        self._shape = shape

    def read(self, index):
        """Return a black image."""
        import tensorflow as tf

        return tf.zeros(self._shape, tf.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"split": "train[:80]", "images": 80}, None),
        ({"images": 4999}, "should have 5,000 images. Received: 4,999"),
        ({"classes": 9}, "should have 10 classes. Received: 9"),
        ({"shape": (96, 95, 3)}, r"of shape \(96, 96, 3\). Received: \(96, 95, 3\)"),
    ],
)
def test_an_opened_set_is_compared_with_its_declaration(monkeypatch, change, message):
    """Fails if an incomplete or another set is evaluated under a known name."""
    monkeypatch.setattr(data, "open_source", lambda *_, **__: _Opened(**change))
    if message is None:
        datasets.open_labelled("tfds:stl10/1.0.0", change.get("split", "train"))
        return
    with pytest.raises(ProbeError, match=message) as error:
        datasets.open_labelled("tfds:stl10:1.0.0", change.get("split", "train"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["unlabelled", "train+unlabelled[:10]"])
def test_a_split_without_labels_is_refused_before_it_is_read(split):
    """Fails if 100,000 images are read before their missing labels are noticed."""
    with pytest.raises(
        ProbeError, match=r"tfds:stl10 has labels only for 'train' and 'test'. Received: split='unlabelled'"
    ):
        datasets.open_labelled("tfds:stl10", split)


def test_the_test_images_of_sets_with_secret_test_labels_are_the_validation_split(monkeypatch):
    """Fails if ImageNet is tested on its unlabelled test images."""
    splits = []
    monkeypatch.setattr(data, "open_source", lambda name, split, **_: splits.append(split) or _Opened())
    for role in ("train", "test"):
        with pytest.raises(ProbeError, match="should have 1,281,167 images"):
            datasets.open_labelled("tfds:imagenet2012", role=role)
    assert splits == ["train", "validation"]


def test_folders_are_opened_as_they_are(monkeypatch):
    """Fails if a folder needs a declaration."""
    monkeypatch.setattr(data, "open_source", lambda *_, **__: _Opened(images=3, classes=2))
    assert datasets.open_labelled("folder:photos", role="test").num_examples == 3
