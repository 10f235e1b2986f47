"""Sets of TensorFlow Datasets, built offline in a temporary folder."""

import io
import os
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lts.data import DataError, open_source, tfds_set
from lts.data.store import FileStore, MemoryStore
from tests.data.conftest import picture

pytest.importorskip("importlib_resources", reason="TensorFlow Datasets needs it to prepare a set, without saying so")


class LtsToys(tfds.core.GeneratorBasedBuilder):
    """Nine labelled, four test and five unlabelled pictures."""

    VERSION = tfds.core.Version("1.0.0")
    COUNTS = {"train": 9, "test": 4, "unlabelled": 5}  # noqa: RUF012

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        label = tfds.features.ClassLabel(names=["x", "y", "z"])
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": image, "label": label, "note": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in self.COUNTS}

    def _generate_examples(self, split):
        for index in range(self.COUNTS[split]):
            label = -1 if split == "unlabelled" else index % 3
            yield index, {"image": picture(10 + index, 20, seed=index), "label": label, "note": "n"}


class LtsNumbers(tfds.core.GeneratorBasedBuilder):
    """No images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"value": np.int64}))

    def _split_generators(self, dl_manager):
        return {"train": ((index, {"value": index}) for index in range(3))}

    def _generate_examples(self):
        return ()


class LtsBroken(tfds.core.GeneratorBasedBuilder):
    """The second of three images is broken."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        good = io.BytesIO()
        Image.fromarray(picture()).save(good, "PNG")
        for index, encoded in enumerate([good.getvalue(), b"rubbish", good.getvalue()]):
            yield index, {"image": io.BytesIO(encoded), "label": index}


class LtsOffline(LtsToys):
    """Cannot be downloaded."""

    def _split_generators(self, dl_manager):
        raise ConnectionError("Max retries exceeded\nsecond line")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def open_set(name, data_dir, split=None, **options):
    return open_source(f"tfds:{name}", split, data_dir=data_dir, progress=False, **options)


def test_default_splits(data_dir):
    """Fails if STL-10 pre-trains on its labelled part."""
    splits = {role: open_set("lts_toys", data_dir, role=role).split for role in ("pretrain", "train", "test")}
    assert splits == {"pretrain": "unlabelled", "train": "train", "test": "test"}


def test_images_and_labels(data_dir):
    """Fails if images and labels are out of step, or if height and width are exchanged."""
    dataset = open_set("lts_toys", data_dir, role="train")
    assert dataset.num_examples == 9
    np.testing.assert_array_equal(dataset.labels, np.arange(9) % 3)
    assert dataset.class_names == ("x", "y", "z")
    assert isinstance(dataset.store, MemoryStore)
    for index in range(9):
        np.testing.assert_array_equal(dataset.read(index), picture(10 + index, 20, seed=index))


def test_unlabelled_images_have_no_labels(data_dir):
    assert open_set("lts_toys", data_dir).labels is None
    assert open_set("lts_toys", data_dir, "unlabelled+train").num_examples == 14


def test_slices(data_dir):
    dataset = open_set("lts_toys", data_dir, "train[6:]+test[:1]", role="train")
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 0])
    assert open_set("lts_toys", data_dir, "all[:50%]").num_examples == 9


def test_images_that_do_not_fit_in_memory_are_unpacked_once(data_dir, monkeypatch):
    """Fails if the order changes across folders, a folder grows too large, or a second start unpacks again."""
    monkeypatch.setattr(tfds_set, "FILES_PER_FOLDER", 4)
    memory = open_set("lts_toys", data_dir, "train")
    for _ in range(2):
        files = open_set("lts_toys", data_dir, "train", cache_gb=0)
        assert isinstance(files.store, FileStore)
        assert files.fingerprint == memory.fingerprint
        for index in range(9):
            np.testing.assert_array_equal(files.read(index), memory.read(index))
    (selection,) = pathlib.Path(data_dir, "lts_toys", "1.0.0", "unpacked").iterdir()
    assert [len(list(folder.iterdir())) for folder in sorted(selection.iterdir())] == [4, 4, 1]


def test_two_processes_may_unpack_the_same_set(tmp_path):
    """Fails if the slower process raises, or replaces files that the faster one already reads."""

    def images():
        yield b"mine"
        tfds_set.unpack(tmp_path, "train", [b"first", b"second"])

    paths = tfds_set.unpack(tmp_path, "train", images())
    assert [pathlib.Path(path).read_bytes() for path in paths] == [b"first", b"second"]
    assert len(list((tmp_path / "unpacked").iterdir())) == 1


def test_other_users_may_read_unpacked_images(tmp_path):
    """Fails if images in a shared folder can be read by the user alone who unpacked them."""
    umask = os.umask(0o022)
    try:
        (path,) = tfds_set.unpack(tmp_path, "train", [b"image"])
    finally:
        os.umask(umask)
    file = pathlib.Path(path)
    assert file.stat().st_mode & 0o777 == 0o644
    for folder in (file.parent, file.parents[1], file.parents[2]):
        assert folder.stat().st_mode & 0o777 == 0o755


def test_broken_images(data_dir):
    with pytest.raises(DataError, match=r"tfds:lts_broken train\[1\] is broken"):
        open_set("lts_broken", data_dir, "train")
    for cache_gb in (0, 1):
        dataset = open_set("lts_broken", data_dir, "train", skip_broken_images=True, cache_gb=cache_gb)
        assert dataset.broken == ("tfds:lts_broken train[1]",)
        np.testing.assert_array_equal(dataset.labels, [0, 2])
        np.testing.assert_array_equal(dataset.read(1), picture())


@pytest.mark.parametrize(
    ("name", "split", "role", "message"),
    [
        ("stl11", None, "pretrain", r"tfds:stl11: no such set in TensorFlow Datasets; close names: stl10"),
        ("zzzzzzzzz", None, "pretrain", r"tfds:zzzzzzzzz: no such set in TensorFlow Datasets\. Received"),
        ("lts_toys:9.9.9", None, "pretrain", "tfds:lts_toys:9.9.9: "),
        ("lts_toys", "valid", "pretrain", r"tfds:lts_toys has no split 'valid'.*Choose from train \(9\)"),
        ("lts_toys", "unlabelled", "train", "has no labels for this split. Received: split='unlabelled'"),
        ("lts_numbers", None, "pretrain", "holds no images. Received: features value"),
        (
            "lts_offline",
            None,
            "pretrain",
            r"could not be downloaded and prepared \(ConnectionError: Max retries exceeded",
        ),
    ],
)
def test_errors_are_one_clear_line(data_dir, name, split, role, message):
    with pytest.raises(DataError, match=message) as caught:
        open_set(name, data_dir, split, role=role)
    assert "\n" not in str(caught.value)
