"""tfds' own VOC builder on a tiny devkit, against the same devkit read as a folder."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.object_detection.voc import Voc

from experiments.voc.data.dataset import VOC_CLASSES, open_voc
from lts.data import DataError
from tests.fixtures.tiny_devkit import COUNTS, write

pytest.importorskip("importlib_resources", reason="TensorFlow Datasets needs it to prepare a set, without saying so")


class LtsTinyVoc(Voc):
    """VOC 2007 and 2012 as tfds reads them, from a folder instead of the network."""

    folder = None

    def _split_generators(self, dl_manager):
        names = {"train": "train", "validation": "val", "test": "test"}
        return {key: self._generate_examples(str(self.folder), name) for key, name in names.items()}


class LtsFlat(tfds.core.GeneratorBasedBuilder):
    """Images with a label, without objects."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(), "label": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": [(0, {"image": np.zeros([4, 4, 3], np.uint8), "label": 0})]}

    def _generate_examples(self):
        return ()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Root of the devkit, and the folder of prepared sets."""
    folder = tmp_path_factory.mktemp("raw")
    root = folder / "VOCdevkit" / "VOC2007"
    write(root, size=(61, 83))  # sides whose fractions are no binary ones
    write(root.parent / "VOC2012")
    LtsTinyVoc.folder = folder
    return root, str(tmp_path_factory.mktemp("tfds"))


def open_tfds(world, split, task="detection", name="lts_tiny_voc/2007", **options):
    return open_voc(f"tfds:{name}", split, task, data_dir=world[1], progress=False, **options)


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_tfds_and_folder_hold_the_same(world, split):
    """wrong: axes exchanged, pixels counted from 0 or 1, objects or images of another order."""
    opened = open_tfds(world, split)
    folder = open_voc(f"folder:{world[0]}", split, "detection", class_names=VOC_CLASSES, progress=False)
    assert opened.class_names == VOC_CLASSES
    assert sorted(opened.ids) == sorted(folder.ids)
    for index, name in enumerate(opened.ids):
        place = folder.ids.index(name)
        np.testing.assert_array_equal(opened.objects[index].boxes, folder.objects[place].boxes)
        np.testing.assert_array_equal(opened.objects[index].labels, folder.objects[place].labels)
        np.testing.assert_array_equal(opened.objects[index].difficult, folder.objects[place].difficult)
        np.testing.assert_array_equal(opened.read_image(index), folder.read_image(place))
    np.testing.assert_array_equal(opened.sizes, [folder.sizes[folder.ids.index(name)] for name in opened.ids])
    assert opened.image_labels().shape == (len(folder.ids), 20)


def test_slices_reach_over_both_parts_of_trainval(world):
    whole = open_tfds(world, "trainval").ids
    first = COUNTS["train"] - 2
    assert open_tfds(world, f"trainval[{first}:{first + 4}]").ids == whole[first : first + 4]
    assert open_tfds(world, "validation+train[:3]").ids == whole[COUNTS["train"] :] + whole[:3]


def test_given_classes_are_matched_by_name(world):
    names = ("dog", "cat", "bird", "zebra")
    opened = open_tfds(world, "train", class_names=names)
    reference = open_tfds(world, "train")
    for one, other in zip(opened.objects, reference.objects, strict=True):
        assert [names[label] for label in one.labels] == [VOC_CLASSES[label] for label in other.labels]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"split": "train", "task": "segmentation"}, "has no masks. For segmentation pass the VOCdevkit folder"),
        ({"split": "dev"}, "no split 'dev'; it has train, validation, test, val, trainval"),
        ({"split": "train+trainval"}, "is listed twice"),
        (
            {"split": "train", "class_names": ("cat",)},
            "2007 train_.: .* is none of the 1 classes, cat",
        ),
        ({"split": "test", "name": "lts_tiny_voc/2012"}, "no image has an annotated object"),
        ({"split": "train", "name": "lts_flat"}, "must have the features of VOC: .* Received: image, label"),
        ({"split": "train", "name": "vocc"}, "no such set in TensorFlow Datasets; close names: voc"),
    ],
)
def test_errors_are_one_clear_line(world, asked, message):
    with pytest.raises(DataError, match=message) as caught:
        open_tfds(world, **asked)
    assert "\n" not in str(caught.value)


def test_the_class_names_are_those_of_tfds(tmp_path):
    for year in ("2007", "2012"):
        features = tfds.builder(f"voc/{year}", data_dir=tmp_path).info.features
        assert tuple(features["objects"]["label"].names) == VOC_CLASSES
