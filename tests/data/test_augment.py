"""The augmentation against plain NumPy, and its randomness."""

import colorsys
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lts.config import ImageConfig
from lts.data import augment
from tests.data.conftest import NEUTRAL, picture


def training_image(image: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Return one random view, as the pipeline does."""
    crop, draws = augment.random_crop(image, seed, config)
    return augment.flip_and_colour(crop[tf.newaxis], draws[tf.newaxis], config)[0]


def numpy_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Legacy bilinear resize, pixel by pixel."""
    result = np.zeros([size, size, 3])
    for row in range(size):
        for column in range(size):
            y = row * image.shape[0] / size
            x = column * image.shape[1] / size
            top = int(y)
            left = int(x)
            bottom = min(top + 1, image.shape[0] - 1)
            right = min(left + 1, image.shape[1] - 1)
            fy = y - top
            fx = x - left
            upper = image[top, left] * (1 - fx) + image[top, right] * fx
            lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
            result[row, column] = upper * (1 - fy) + lower * fy
    return result


@pytest.mark.parametrize("shape", [(20, 30), (48, 17), (1, 1)])
def test_bilinear_is_the_legacy_one(shape):
    """Fails on half-pixel centres (TensorFlow 2's resize), aligned corners or exchanged axes."""
    image = picture(*shape)
    np.testing.assert_allclose(augment.legacy_resize(image, 24, "bilinear"), numpy_bilinear(image, 24), atol=1e-3)


def test_bicubic_is_the_legacy_one():
    """Fails on half-pixel centres or another A: an integer enlargement keeps the pixels at its grid points."""
    image = picture(12, 12)
    large = augment.legacy_resize(image, 24, "bicubic").numpy()
    np.testing.assert_allclose(large[::2, ::2], image, atol=1e-3)
    between = -0.09375 * image[:, :-3] + 0.59375 * image[:, 1:-2] + 0.59375 * image[:, 2:-1] - 0.09375 * image[:, 3:]
    np.testing.assert_allclose(large[::2, 3:-4:2], between, atol=1e-3)  # A = -0.75 at 1/2: -3/32, 19/32


def test_unknown_resize_names_the_argument():
    with pytest.raises(ValueError, match="method='nearest'"):
        augment.legacy_resize(picture(), 24, "nearest")


@pytest.mark.parametrize(
    ("shape", "crop"),
    [((96, 96), (7, 7, 82, 82)), ((120, 100), (9, 7, 102, 86)), ((75, 110), (5, 8, 65, 94))],
)
def test_test_image_is_the_central_crop(shape, crop):
    """Fails if the crop rounds to another pixel, or if the scale or the colours change."""
    image, (y, x, height, width) = picture(*shape), crop
    oracle = numpy_bilinear(image[y : y + height, x : x + width], 32) / 127.5 - 1
    config = ImageConfig(image_size=32)
    np.testing.assert_allclose(augment.test_image(tf.constant(image), config), oracle, atol=1e-5)


def test_neutral_training_image_is_the_whole_image():
    """Fails if a step whose amount is zero changes the image."""
    image = tf.constant(picture(40, 40))
    training = training_image(image, tf.constant([1, 2]), NEUTRAL)
    np.testing.assert_allclose(training, augment.test_image(image, NEUTRAL), atol=1e-5)


@pytest.mark.parametrize("saturation_first", [False, True])
def test_colour_is_hsv_saturation_and_a_shift_in_the_right_order(saturation_first):
    """Fails on another order, on clipping in between, or if saturation blends with grey."""
    image = np.random.RandomState(0).uniform(0.2, 0.7, [3, 4, 3]).astype(np.float32)
    before, after = (0.0, 0.125) if saturation_first else (0.125, 0.0)
    oracle = np.zeros_like(image)
    for place in np.ndindex(3, 4):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] + before))
        oracle[place] = colorsys.hsv_to_rgb(hue, min(saturation * 1.4, 1), value) + np.float32(after)
    result = augment.adjust_colour(tf.constant(image), 0.125, 1.4, saturation_first)
    np.testing.assert_allclose(result, oracle, atol=1e-6)


def test_colour_is_not_clipped_but_the_result_is():
    image = tf.ones([2, 2, 3])
    bright = augment.adjust_colour(image, 0.1, 1.0, False)
    np.testing.assert_allclose(bright, 1.1 * np.ones([2, 2, 3]), atol=1e-6)
    assert np.max(augment.to_signed_range(bright)) == 1.0


def test_windows_keep_area_and_aspect():
    """Fails if the ranges are exchanged, a window leaves the image, or all windows are equal."""
    config = ImageConfig(crop_area=(0.4, 0.6), crop_aspect=(1.2, 1.6))
    draw = tf.function(lambda seed: augment.random_crop_window(tf.constant([200, 300, 3]), seed, config))
    windows = np.array([draw(tf.constant([5, seed])) for seed in range(200)])
    y, x, height, width = windows.T
    assert min(y.min(), x.min()) >= 0
    assert (y + height).max() <= 200
    assert (x + width).max() <= 300
    area = height * width / 60000
    aspect = width / height
    assert 0.38 < area.min() < 0.42 < 0.55 < area.max() < 0.62
    assert 1.17 < aspect.min() < 1.25 < 1.5 < aspect.max() < 1.63
    assert len(np.unique(y)) > 20


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_both_resizes_and_both_directions_happen(method):
    """Fails if a branch is never taken, or if the wrong axis is flipped."""
    image = tf.constant(picture(40, 40))
    config = dataclasses.replace(NEUTRAL, flip=True, bicubic_probability=float(method == "bicubic"))
    straight = np.clip(augment.legacy_resize(image, 32, method) / 127.5 - 1, -1, 1)
    flipped = []
    for seed in range(40):
        result = training_image(image, tf.constant([seed, 0]), config).numpy()
        flipped.append(np.abs(result - straight[:, ::-1]).max() < 1e-4)
        assert flipped[-1] or np.abs(result - straight).max() < 1e-4
    assert 8 < sum(flipped) < 32


def test_the_seed_decides():
    """Fails on hidden state, or if part of the seed is ignored."""
    image = tf.constant(picture(40, 50))
    config = ImageConfig(image_size=32)
    first = training_image(image, tf.constant([1, 2]), config)
    training_image(image, tf.constant([9, 9]), config)
    np.testing.assert_array_equal(first, training_image(image, tf.constant([1, 2]), config))
    for seed in ([2, 2], [1, 3]):
        assert np.abs(first - training_image(image, tf.constant(seed), config)).max() > 0.01


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (96, 96)])
def test_eager_equals_tf_data_and_stays_in_range(shape):
    """Fails if a shape is known to eager code only, and on tiny or narrow images."""
    image = tf.constant(picture(*shape))
    config = ImageConfig(image_size=16)
    dataset = tf.data.Dataset.range(3).map(lambda step: training_image(image, tf.stack([7, step]), config))
    for step, result in enumerate(dataset.as_numpy_iterator()):
        eager = training_image(image, tf.constant([7, step], tf.int64), config)
        np.testing.assert_allclose(result, eager, atol=1e-6)
        assert result.shape == (16, 16, 3)
        assert result.dtype == np.float32
        assert np.abs(result).max() <= 1


def test_saturation_equals_tensorflows_for_every_kind_of_pixel():
    """Fails on pixels outside [0, 1], grey or black ones, or if the factor is not limited."""
    pixels = np.random.RandomState(1).uniform(-0.6, 1.6, [4, 50, 60, 3]).astype(np.float32)
    pixels[0, :10] = pixels[0, :10, :, :1]
    pixels[1, :10] = 0.0
    factors = np.float32([0.0, 0.5, 1.0, 3.0])
    ours = augment.adjust_colour(tf.constant(pixels), 0.0, factors, False)
    for image, factor, result in zip(pixels, factors, ours, strict=True):
        np.testing.assert_allclose(result, tf.image.adjust_saturation(image, factor), atol=2e-6)


@pytest.mark.parametrize("fraction", [0.85, 1.0, 0.3333, 0.1])
def test_central_crop_is_tensorflows(fraction):
    """Fails if an odd or even side is cropped to other pixels."""
    image = tf.reshape(tf.range(130 * 97 * 3), [130, 97, 3])
    for height, width in [(1, 1), (2, 97), *((size, size // 2 + 3) for size in range(3, 131, 7))]:
        part = image[:height, :width]
        np.testing.assert_array_equal(augment.central_crop(part, fraction), tf.image.central_crop(part, fraction))
