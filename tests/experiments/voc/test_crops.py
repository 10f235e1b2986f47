"""Windows: images and masks show the same places, ten crops are the ten that they should be."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.voc import crops


def ramps(height, width):
    """An image whose red is its row and whose green is its column, and a mask of its columns."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8), columns.astype(np.uint8)


def as_bytes(signed):
    return (np.asarray(signed) + 1) * 127.5


def test_a_window_of_scale_one_is_a_slice():
    image, mask = ramps(20, 30)
    begin = tf.constant([3.0, 5.0])
    np.testing.assert_allclose(
        as_bytes(crops.cut_image(image, begin, 1.0, tf.constant([8, 8]))), image[3:11, 5:13], atol=1e-3
    )
    np.testing.assert_array_equal(crops.cut_mask(tf.constant(mask), begin, 1.0, 8), mask[3:11, 5:13])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.7, 3.0])
def test_image_and_mask_look_at_the_same_place(scale):
    image, mask = ramps(40, 50)
    begin = tf.constant([4.3, 6.8])
    size = int(20 * min(scale, 1))
    crop = as_bytes(crops.cut_image(image, begin, scale, tf.constant([size, size])))
    labels = crops.cut_mask(tf.constant(mask), begin, scale, size).numpy()
    place = 6.8 + (np.arange(size) + 0.5) / scale  # from the image's edge
    np.testing.assert_array_equal(labels, np.tile(np.floor(place), (size, 1)))
    np.testing.assert_allclose(crop[..., 1], np.tile(place - 0.5, (size, 1)), atol=0.1)  # of pixel centres
    np.testing.assert_allclose(
        crop[..., 0], np.tile((4.3 - 0.5 + (np.arange(size) + 0.5) / scale)[:, None], size), atol=0.1
    )


def test_what_lies_outside_is_grey_and_ignored():
    image, mask = ramps(10, 30)
    begin = tf.constant([-4.0, 2.0])
    crop = crops.cut_image(image, begin, 1.0, tf.constant([20, 20])).numpy()
    labels = crops.cut_mask(tf.constant(mask), begin, 1.0, 20).numpy()
    outside = np.ones(20, bool)
    outside[4:14] = False
    assert (labels[outside] == 255).all()
    assert (labels[~outside] == mask[:, 2:22]).all()
    assert (crop[outside] == 0).all()
    np.testing.assert_allclose(as_bytes(crop[~outside]), image[:, 2:22], atol=1e-3)


def test_random_windows_lie_within_long_sides_and_around_short_ones():
    begins = np.array(
        [crops.random_window(tf.constant([10, 100, 3]), 40, 2.0, tf.constant([1, seed])) for seed in range(200)]
    )
    assert (begins[:, 0] <= 0).all()
    assert (begins[:, 0] >= -10).all()
    assert (begins[:, 1] >= 0).all()
    assert (begins[:, 1] <= 80).all()
    assert begins[:, 1].min() < 5
    assert begins[:, 1].max() > 75
    again = crops.random_window(tf.constant([10, 100, 3]), 40, 2.0, tf.constant([1, 7]))
    np.testing.assert_array_equal(again, begins[7])


def test_ten_crops():
    image, _ = ramps(24, 40)
    found = as_bytes(crops.ten_crops(tf.constant(image), 16, 24))  # no resize
    wanted = [(0, 0), (0, 24), (8, 0), (8, 24), (4, 12)]
    for crop, mirror, (top, left) in zip(found[:5], found[5:], wanted, strict=True):
        np.testing.assert_allclose(crop, image[top : top + 16, left : left + 16], atol=1e-3)
        np.testing.assert_allclose(mirror, crop[:, ::-1], atol=1e-3)
    twice = as_bytes(crops.ten_crops(tf.constant(image), 32, 48))
    assert twice.shape == (10, 32, 32, 3)
    np.testing.assert_allclose(twice[4, 8:24, 8:24, 1].mean(), 19.5, atol=0.05)  # the middle is the middle
