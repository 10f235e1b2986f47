"""Montages of images and kernels."""

import numpy as np
import pytest

from lts.visualization.montage import montage, weights_montage


def test_montage_goes_row_by_row():
    """Rows and columns exchanged; images beyond the places that shift the others."""
    images = np.arange(8).reshape(8, 1, 1, 1) * np.ones((8, 2, 3, 1))
    picture = montage(images, rows=2, columns=3)
    assert picture.shape == (1, 4, 9, 1)
    np.testing.assert_array_equal(picture[0, ::2, ::3, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(picture[0, :2, 3:6], images[1])


def test_montage_keeps_the_dtype():
    """Bytes that become floats."""
    assert montage(np.zeros((4, 2, 2, 3), np.uint8), 2, 2).dtype == np.uint8


def test_montage_of_too_few_images():
    """A strip with a hole, or an error of reshape."""
    with pytest.raises(ValueError, match="Received: 3 images"):
        montage(np.zeros((3, 2, 2, 3)), 2, 2)


def test_weights_montage_goes_column_by_column():
    """Order, own range of every kernel, white frame."""
    weights = np.zeros((1, 2, 3, 6), np.float32)
    weights[0, 1] = np.arange(1, 7)  # [1 to 6]: each kernel from 0 to its own largest
    weights[0, 0, 0, 1] = -2  # kernel 1 is [-2 .. 2]: 0 becomes 127
    picture = weights_montage(weights, rows=2, columns=3, pad=1)
    assert picture.shape == (1, 6, 12, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 1, 1].tolist() == [0, 0, 0]
    assert picture[0, 1, 2].tolist() == [255, 255, 255]
    assert picture[0, 4, 1].tolist() == [0, 127, 127]
    assert np.all(picture[0, 0] == 255)
    assert np.all(picture[0, :, 0] == 255)


def test_weights_montage_of_a_constant_kernel():
    """0 / 0."""
    assert np.all(weights_montage(np.full((1, 1, 3, 1), 5.0), 1, 1, pad=0) == 0)


def test_weights_montage_of_another_number():
    """Kernels that are left out."""
    with pytest.raises(ValueError, match="Received: 5 kernels"):
        weights_montage(np.zeros((3, 3, 3, 5)), 2, 3)
