"""Crops at a fixed scale: sizes, places, mirroring."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.probing import crops
from lts.config import ImageConfig
from lts.data.augment import flip_and_colour

SIZE = ImageConfig(image_size=8, brightness=0.0, saturation=(1.0, 1.0))
MARGIN = 1.5  # the image's shorter side is 12


def places(height: int = 12, width: int = 16) -> np.ndarray:
    """Return an image whose red is the row and whose green is the column."""
    image = np.zeros([height, width, 3], np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)
    return image


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((375, 500), 256, (256, 341)),  # 341.33
        ((500, 375), 256, (341, 256)),
        ((333, 333), 256, (256, 256)),
        ((32, 32), 256, (256, 256)),
        ((1, 7), 3, (3, 21)),
    ],
)
def test_the_shorter_side_is_resized_and_the_proportions_stay(shape, side, expected):
    """Fails if a size is rounded up, or grey does not stay grey."""
    image = np.full([*shape, 3], 77, np.uint8)
    resized = crops.resize_shorter_side(tf.constant(image), side).numpy()
    assert resized.shape == (*expected, 3)
    np.testing.assert_allclose(resized, 77, rtol=1e-5)


def test_an_image_of_the_right_size_keeps_its_pixels():
    """Fails if an image is blurred without need."""
    np.testing.assert_array_equal(crops.resize_shorter_side(tf.constant(places()), 12), places())


def test_ten_crops_are_centre_and_corners_and_their_mirror_images():
    """Fails if a crop is missing or elsewhere, or if one crop is not the central one."""
    views = crops.fixed_crops(MARGIN, 10)(tf.constant(places()), SIZE).numpy()
    assert views.shape == (10, 8, 8, 3)
    assert views.dtype == np.uint8
    corners = [(2, 4), (0, 0), (0, 8), (4, 0), (4, 8)]
    for crop, mirrored, (y, x) in zip(views[:5], views[5:], corners, strict=True):
        np.testing.assert_array_equal(crop, places()[y : y + 8, x : x + 8])
        np.testing.assert_array_equal(mirrored, crop[:, ::-1])
    single = crops.fixed_crops(MARGIN, 1)(tf.constant(places()), SIZE)
    np.testing.assert_array_equal(single, views[:1])


def test_random_crops_reach_every_place_equally_and_are_a_function_of_the_seed():
    """Fails if a place is more likely than another, or the same seed gives another crop."""
    crop = tf.function(crops.random_crops(MARGIN))
    image = tf.constant(places())
    corners = []
    draws = []
    for seed in range(900):
        window, more = crop(image, tf.constant([1, seed]), SIZE)
        y, x = (int(value) for value in window[0, 0, :2])
        np.testing.assert_array_equal(window, places()[y : y + 8, x : x + 8])
        corners.append((y, x))
        draws.append(more.numpy())
    counts = np.unique(corners, axis=0, return_counts=True)[1]
    assert len(counts) == 5 * 9
    assert np.sum(np.square(counts - 20) / 20) < 90  # chi squared, 44 degrees of freedom: 1e-4 of all draws
    np.testing.assert_array_equal(crop(image, tf.constant([1, 5]), SIZE)[0][0, 0, :2], corners[5])
    draws = np.array(draws)
    assert draws.shape == (900, 4)
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.05)


def test_without_colour_the_rest_of_the_augmentation_mirrors_and_nothing_else():
    """Fails if the crops' colours change."""
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    draws = np.array([[0.2, 0.9, 0.9, 0.9], [0.7, 0.1, 0.1, 0.1]], np.float32)
    augmented = (flip_and_colour(tf.constant(image), tf.constant(draws), SIZE).numpy() + 1) * 127.5
    np.testing.assert_allclose(augmented[0], image[0, :, ::-1], atol=1e-3)
    np.testing.assert_allclose(augmented[1], image[1], atol=1e-3)
