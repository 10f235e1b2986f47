"""Montages of images and filters; tests/golden compares them with the release."""

import numpy as np

from lts.visualization.montage import filter_montage, montage


def test_montage_goes_row_by_row():
    """Fails if rows and columns are exchanged, or if an incomplete last row shifts the images."""
    images = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1) * np.ones((5, 2, 3, 1), np.float32)
    picture = montage(images, columns=3)
    assert picture.shape == (4, 9, 1)
    assert picture.dtype == np.float32
    np.testing.assert_array_equal(picture[::2, ::3, 0], [[0, 1, 2], [3, 4, 255]])
    np.testing.assert_array_equal(picture[:2, 3:6], images[1])


def test_montage_aligns_images_of_any_size():
    """Fails if an image is cut, if neighbours overlap, or if a title covers an image."""
    first = np.full([10, 20, 1], 1, np.uint8)
    second = np.full([30, 5, 3], 2, np.uint8)
    third = np.full([7, 9, 3], 3, np.uint8)
    picture = montage([first, second, third], columns=2, gap=6)
    assert picture.shape == (30 + 6 + 7, 20 + 6 + 5, 3)
    np.testing.assert_array_equal(picture[:10, :20], np.broadcast_to(first, [10, 20, 3]))
    np.testing.assert_array_equal(picture[:30, 26:], second)
    np.testing.assert_array_equal(picture[36:, :9], third)
    assert (picture == 255).all(axis=2).sum() == picture[..., 0].size - 200 - 150 - 63
    titled = montage([first, second, third], columns=2, gap=6, titles=["a", "b"])
    np.testing.assert_array_equal(titled[-len(picture) :], picture)
    assert (titled[: -len(picture)] < 128).any()


def test_filters_go_column_by_column():
    """Fails if the order, the range of a filter or the white frame differs from the release."""
    kernel = np.zeros((2, 2, 3, 6), np.float32)
    kernel[1] = np.arange(1, 7)  # filter n covers [0, n + 1]
    kernel[0, :, 0, 1] = -2  # filter 1 covers [-2, 2], so 0 becomes 127
    kernel[..., 2] = 5  # a constant filter has no range
    picture = filter_montage(kernel)
    assert picture.shape == (8, 12, 3)
    assert picture.dtype == np.uint8
    assert picture[1, 1].tolist() == [0, 0, 0]
    assert picture[2, 1].tolist() == [255, 255, 255]
    assert picture[5, 1].tolist() == [0, 127, 127]
    assert picture[1, 5].tolist() == [0, 0, 0]
    assert np.all(picture[0] == 255)
    assert np.all(picture[:, 0] == 255)
