"""The projector's folder: points, labels and thumbnails belong to the same images."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import ProjectorConfig

from experiments.probing import projector
from lts import data
from lts.config import ImageConfig
from lts.utils.files import OutputError
from tests.fixtures import probing

NAMES = ["blue", "green", "red"]


@pytest.fixture
def stand_in_batches(monkeypatch):
    """Use the stand-in's images unchanged instead of test views."""
    monkeypatch.setattr(data, "test_batches", probing.batches)


def _tiles(folder, size):
    """Return the thumbnails of the sprite, row by row: uint8 [places, size, size, 3]."""
    sprite = np.asarray(Image.open(folder / "sprite.png"))
    side = len(sprite) // size
    return sprite.reshape(side, size, side, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)


@pytest.mark.usefixtures("stand_in_batches")
@pytest.mark.parametrize("images", [7, 1000])
def test_points_labels_and_thumbnails_are_those_of_the_images(tmp_path, images):
    """Fails if a point carries the label or picture of another image."""
    model = probing.Model("runs/features")
    source = probing.source("test", 10)
    projector.write(model, model.layers, source, tmp_path, images, batch_size=4)
    folder = tmp_path / "tensorboard"
    rows = projector.choose(source.labels, images)
    assert len(rows) == min(images, 30)
    points = np.loadtxt(folder / "features.tsv", dtype=np.float32, delimiter="\t")
    expected = model(source.images[rows])["conv_2"].numpy().mean(axis=(1, 2))
    assert points.shape == (len(rows), 4)
    np.testing.assert_allclose(points, expected, rtol=1e-5)
    labels = (folder / "metadata.tsv").read_text().splitlines()
    assert labels == [NAMES[label] for label in source.labels[rows]]
    tiles = _tiles(folder, 16)
    np.testing.assert_array_equal(tiles[: len(rows)], source.images[rows])
    assert not tiles[len(rows) :].any()
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    assert embedding.tensor_name == "conv_2"
    assert list(embedding.sprite.single_image_dim) == [16, 16]
    for path in (embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path):
        assert (folder / path).is_file()
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_images_of_a_real_source_are_test_views_halved(tmp_path):
    """Fails if points and thumbnails are not of the test preprocessing."""
    source = data.open_source("synthetic", "test[:20]", role="test", progress=False)
    model = probing.Model("runs/features")
    model.image_size = 64
    projector.write(model, ["conv_1"], source, tmp_path, images=12)
    image = ImageConfig(image_size=64, test_crop=model.test_crop)
    views = np.concatenate(list(data.test_batches(source, image, batch_size=20).as_numpy_iterator()))
    views = views[projector.choose(source.labels, 12)]
    halved = np.round(views.reshape(12, 32, 2, 32, 2, 3).astype(np.float32).mean(axis=(2, 4)))
    np.testing.assert_array_equal(_tiles(tmp_path / "tensorboard", 32)[:12], halved)
    points = np.loadtxt(tmp_path / "tensorboard" / "features.tsv", dtype=np.float32)
    np.testing.assert_allclose(points, model(views)["conv_1"].numpy().mean(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    "labels",
    [np.repeat(np.arange(10), 100), np.arange(1000) % 10, np.repeat([0, 1, 2], [980, 19, 1])],
    ids=["sorted", "in turn", "uneven"],
)
@pytest.mark.parametrize("images", [10, 50, 999, 1000, 2000])
def test_chosen_images_are_evenly_spaced_and_contain_every_class(labels, images):
    """Fails if a class is missing, or over-represented, or an image is chosen twice."""
    rows = projector.choose(labels, images)
    assert len(rows) == min(images, 1000)
    assert (np.diff(rows) > 0).all()
    counts = np.bincount(labels)
    chosen = np.bincount(labels[rows], minlength=labels.max() + 1)
    assert chosen.min() >= 1
    np.testing.assert_allclose(chosen, counts * len(rows) / 1000, atol=2)
    gaps = np.diff(np.flatnonzero(np.isin(np.argsort(labels, kind="stable"), rows)))
    assert gaps.max() <= np.ceil(1000 / max(1, len(rows) - len(counts))) + 1


def test_fewer_images_than_classes():
    """Fails if more images than requested are chosen."""
    assert len(projector.choose(np.arange(10), 4)) == 4


def test_0_images_write_nothing(tmp_path):
    """Fails if the projector cannot be switched off."""
    projector.write(probing.Model("runs/features"), ["conv_1"], probing.source("test"), tmp_path, images=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("stand_in_batches")
def test_a_writer_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    """Fails if a full disk destroys an earlier folder."""

    def full(*_):
        raise OSError("no space left")

    arguments = (probing.Model("runs/features"), ["conv_1"], probing.source("test"), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(projector, "visualize_embeddings", full)
        with pytest.raises(OSError, match="no space left"):
            projector.write(*arguments)
        assert list(tmp_path.iterdir()) == []
    projector.write(*arguments, images=5)
    monkeypatch.setattr(projector, "visualize_embeddings", full)
    with pytest.raises(OSError, match="no space left"):
        projector.write(*arguments, images=6)
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
    assert len((tmp_path / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 5


def test_curves_of_a_training_run_are_not_replaced(tmp_path):
    """Fails if a folder of something else is deleted."""
    curves = tmp_path / "tensorboard" / "events.out.tfevents.1"
    curves.parent.mkdir()
    curves.write_bytes(b"curves")
    with pytest.raises(OutputError, match="holds no projector"):
        projector.write(probing.Model("runs/features"), ["conv_1"], probing.source("test"), tmp_path)
    assert curves.read_bytes() == b"curves"


@pytest.mark.usefixtures("stand_in_batches")
def test_class_names_are_one_line_and_one_column_each(tmp_path):
    """Fails if a class name shifts the labels of other points."""
    source = probing.source("test", 1)
    source.class_names = ("sky\tblue", "green\nish", "red")
    projector.write(probing.Model("runs/features"), ["conv_1"], source, tmp_path)
    assert (tmp_path / "tensorboard" / "metadata.tsv").read_text() == "sky blue\ngreen ish\nred\n"


@pytest.mark.usefixtures("stand_in_batches")
def test_images_without_labels_are_shown_by_name(tmp_path):
    """Fails if the projector needs labels, or if a point carries the name of another image."""
    source = probing.source("test", 10)
    source.names = tuple(f"photo\t{number}.png" for number in range(30))
    source.labels = None
    projector.write(probing.Model("runs/features"), ["conv_1"], source, tmp_path / "none", images=3)
    names = (tmp_path / "none" / "tensorboard" / "metadata.tsv").read_text()
    assert names == "photo 0.png\nphoto 10.png\nphoto 20.png\n"
    source.labels = np.repeat([0, -1, 2], 10)
    projector.write(probing.Model("runs/features"), ["conv_1"], source, tmp_path / "some", images=3)
    assert (tmp_path / "some" / "tensorboard" / "metadata.tsv").read_text() == "blue\nno label\nred\n"


def test_thumbnails_average_areas():
    """Fails if pixels are skipped."""
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype(np.uint8)
    small = projector.thumbnails(tf.constant(images))
    assert small.shape == (2, 32, 32, 3)
    weights = np.array([[1, 0.5, 0], [0, 0.5, 1]]) / 1.5  # two thumbnail pixels for every three of the image
    mix = np.kron(np.eye(16), weights)
    expected = np.einsum("ih,jw,bhwc->bijc", mix, mix, images.astype(np.float64))
    np.testing.assert_allclose(small, expected, atol=0.501)
