"""Windows, pasted patches and warps."""

import numpy as np
import tensorflow as tf

from lts.models import warps
from tests.fixtures.models import images

CORNERS = tf.constant([[0.0, 0.0], [3.0, 5.0], [20.0, 20.0], [20.0, 1.0]])  # x, y


def window(image, corner, size=12):
    """Return a window of an image by NumPy."""
    x, y = (int(value) for value in corner)
    return image[y : y + size, x : x + size]


def test_windows():
    """Fails for rows and columns exchanged, an interpolated copy, or a gradient at another place."""
    batch = images()
    patches = warps.crop(batch, CORNERS, 12)
    whole = warps.rotated_crop(batch, tf.zeros(4), CORNERS, 12)
    new = images(seed=1, size=12)
    with tf.GradientTape() as tape:
        tape.watch(new)
        pasted = warps.paste(batch, new, CORNERS)
        total = tf.reduce_sum(pasted * images(seed=2))
    gradient = tape.gradient(total, new).numpy()
    for row, corner in enumerate(CORNERS.numpy()):
        expected = batch.numpy()[row].copy()
        np.testing.assert_array_equal(patches[row], window(expected, corner))
        np.testing.assert_array_equal(whole[row], window(expected, corner))
        window(expected, corner)[:] = new[row]
        np.testing.assert_array_equal(pasted[row], expected)
        np.testing.assert_array_equal(gradient[row], window(images(seed=2).numpy()[row], corner))


def test_rotations():
    """Fails if an image turns around another point than its centre, or pixels outside are not 0."""
    batch = images()
    quarter = warps.rotated_crop(batch, tf.fill([4], np.float32(np.pi / 2)), tf.zeros([4, 2]), 32)
    np.testing.assert_allclose(quarter, np.rot90(batch, 1, (1, 2)), atol=1e-4)
    small = warps.rotated_crop(tf.ones([1, 32, 32, 1]), tf.constant([0.2]), tf.zeros([1, 2]), 32)[0, :, :, 0].numpy()
    assert small[0, 0] == small[-1, -1] == 0
    assert small[16, 16] == 1


def test_warp():
    """Fails if a point does not move by its shift, an image without shifts changes, or an edge is not repeated."""
    columns, rows = np.meshgrid(np.arange(32.0), np.arange(32.0))
    ramps = tf.constant(np.stack([columns, rows], -1)[None], tf.float32)  # of which bilinear interpolation is exact
    points = np.array([[8, 8], [8, 22], [22, 9], [21, 23], [15, 15]])
    shifts = np.array([[2.5, 0], [0, -3], [1, 1], [-2, 0.25], [3, 2]])
    moved = warps.warp(ramps, tf.constant(points[None], tf.float32), tf.constant(shifts[None], tf.float32))[0].numpy()
    for (x, y), shift in zip(points, shifts, strict=True):
        np.testing.assert_allclose(moved[y, x], [x - shift[0], y - shift[1]], atol=1e-3)
    everywhere = tf.fill([1, 5, 2], 4.0)
    shifted = warps.warp(ramps, tf.constant(points[None], tf.float32), everywhere)[0].numpy()
    np.testing.assert_allclose(shifted[..., 0], np.maximum(columns - 4, 0), atol=1e-3)
    random_points = tf.constant(np.random.RandomState(0).uniform(0, 32, [4, 16, 2]), tf.float32)
    np.testing.assert_array_equal(warps.warp(images(), random_points, tf.zeros([4, 16, 2])), images())
