"""Square crops of images whose shorter side is resized.

This is usual for AlexNet; the release does not do it. With crops of 227 pixels and margin 256 / 227, a photograph
[375, 500, 3] is resized to [256, 341, 3], and a crop is [227, 227, 3]. `lts.data.training_batches` takes the functions
of this module as `crop`, `lts.data.test_batches` as `view`.
"""

from collections.abc import Callable

import tensorflow as tf

from lts.config import ImageConfig


def resize_shorter_side(image: tf.Tensor, side: int) -> tf.Tensor:
    """Resize an image and keep its proportions, bilinear and without aliasing.

    Args:
      image: uint8 [h, w, 3].
      side: pixels of the shorter side of the result.

    Returns:
      float32 [h', w', 3] in [0, 255]; unchanged pixels if the image already has this size.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    size = tf.maximum(side, tf.cast(tf.floor(sides * side / tf.reduce_min(sides) + 1e-6), tf.int32))
    return tf.ensure_shape(tf.image.resize(image, size, "bilinear", antialias=True), [None, None, 3])


def random_crops(margin: float) -> Callable:
    """Return a `crop` for training: a square at a random place.

    Args:
      margin: shorter side of the resized image, over the side of a crop.

    Returns:
      A function of (uint8 [h, w, 3], seed, config) to the crop and four numbers in [0, 1) for flip and colour.
    """

    def crop(image: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tuple[tf.Tensor, tf.Tensor]:
        size = config.image_size
        resized = resize_shorter_side(image, round(size * margin))
        uniform = tf.random.stateless_uniform([6], seed)
        places = tf.cast(tf.shape(resized)[:2] - size + 1, tf.float32)  # possible corners along each side
        y, x = tf.unstack(tf.cast(tf.floor(uniform[:2] * places), tf.int32))
        window = resized[y : y + size, x : x + size]
        return tf.ensure_shape(window, [size, size, 3]), uniform[2:]

    return crop


def fixed_crops(margin: float, number: int) -> Callable:
    """Return a `view` for testing: fixed crops.

    Args:
      margin: shorter side of the resized image, over the side of a crop.
      number: 1: the central crop. 10: also the crops in the corners, and all five mirrored.

    Returns:
      A function of (uint8 [h, w, 3], config) to uint8 [number, image_size, image_size, 3].
    """

    def view(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
        size = config.image_size
        resized = resize_shorter_side(image, round(size * margin))
        resized = tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)
        last_y, last_x = tf.unstack(tf.shape(resized)[:2] - size)
        corners = [(last_y // 2, last_x // 2)]  # the central crop
        if number == 10:
            corners += [(0, 0), (0, last_x), (last_y, 0), (last_y, last_x)]
        crops = tf.stack([resized[y : y + size, x : x + size] for y, x in corners])
        crops = tf.ensure_shape(crops, [None, size, size, 3])
        if number == 10:
            crops = tf.concat([crops, tf.reverse(crops, [2])], 0)
        return crops

    return view
