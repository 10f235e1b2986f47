"""The synthetic set: deterministic, with classes that differ in arrangement only."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lts.data import DataError, open_source
from lts.data.synthetic import CLASS_NAMES, SPLITS, render

CHANCE = 1 / len(CLASS_NAMES)


@pytest.fixture(scope="module")
def sets():
    """Images and labels for fitting and for testing."""
    return render("train", range(1200)), render("test", range(500))


def statistics(images: np.ndarray) -> np.ndarray:
    """Return moments and histograms of colour, gradient strength and gradient orientation."""
    scaled = images.astype(np.float32) / 255
    grey = scaled.mean(-1)
    dy = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    dx = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    strength = np.hypot(dx, dy)
    orientation = np.arctan2(dy, dx) % np.pi
    features = [scaled.mean((1, 2)), scaled.std((1, 2))]
    for channel in range(3):
        features.append([np.histogram(image, 8, (0, 1))[0] / image.size for image in scaled[..., channel]])
    features.append([np.histogram(image, 8, (0, 0.7))[0] / image.size for image in strength])
    pairs = zip(orientation, strength, strict=True)
    features.append([np.histogram(angle, 12, (0, np.pi), weights=s)[0] / s.size for angle, s in pairs])
    return np.concatenate([np.asarray(feature) for feature in features], axis=1)


def accuracy(features, sets, alpha: float) -> float:
    (train, train_labels), (test, test_labels) = sets
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha)).fit(features(train), train_labels)
    return model.score(features(test), test_labels)


def test_shapes_and_balance(sets):
    images, labels = sets[0]
    assert images.shape == (1200, 64, 64, 3)
    assert images.dtype == np.uint8
    assert len(CLASS_NAMES) >= 8
    np.testing.assert_array_equal(np.bincount(labels), 120)
    assert images.std() > 30  # not empty, not saturated
    assert 60 < images.mean() < 200


def test_colour_and_texture_statistics_tell_no_classes(sets):
    """Fails if a class can be recognised without the arrangement of the parts."""
    assert accuracy(statistics, sets, 10.0) < 2 * CHANCE


def test_pixels_tell_classes_badly(sets):
    """Fails if the set is too easy (position reveals the class) or impossible."""
    pixels = accuracy(lambda images: images[:, ::2, ::2].reshape(len(images), -1), sets, 1e4)
    assert 2 * CHANCE < pixels < 0.55


def test_an_image_depends_on_its_split_and_index_alone():
    """Fails if neighbours share a random generator."""
    images, labels = render("test", range(70))
    again, again_labels = render("test", [69, 3])
    np.testing.assert_array_equal(again, images[[69, 3]])
    np.testing.assert_array_equal(again_labels, labels[[69, 3]])


def test_no_image_appears_twice():
    images = np.concatenate([render(split, range(50))[0] for split in SPLITS])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 150


def test_splits_and_labels():
    assert set(SPLITS) == {"unlabelled", "train", "test"}
    dataset = open_source("synthetic", "unlabelled[:20]", progress=False)
    assert (dataset.num_examples, dataset.labels, dataset.class_names) == (20, None, ())
    dataset = open_source("synthetic", "train[:10]+test[:10]", role="train", progress=False)
    np.testing.assert_array_equal(dataset.labels, np.tile(np.arange(10), 2))
    assert dataset.class_names == CLASS_NAMES
    np.testing.assert_array_equal(dataset.read(13), render("test", [3])[0][0])


def test_names_tell_which_images_two_selections_share():
    """Fails if the same images can be training and test images without a word."""
    train = open_source("synthetic", "train[:3]+test[:1]", progress=False)
    test = open_source("synthetic", "train[2:4]", progress=False)
    assert train.names == ("synthetic train[0]", "synthetic train[1]", "synthetic train[2]", "synthetic test[0]")
    assert set(train.names) & set(test.names) == {"synthetic train[2]"}


def test_fingerprint_names_the_selection():
    first = open_source("synthetic", "test[:2]", progress=False)
    second = open_source("synthetic", "test[1:3]", progress=False)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("split", "role", "message"),
    [("validation", "pretrain", "no split 'validation'"), ("unlabelled[:5]", "train", "no labels for this split")],
)
def test_errors_are_one_clear_line(split, role, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source("synthetic", split, role=role)
    assert "\n" not in str(caught.value)
