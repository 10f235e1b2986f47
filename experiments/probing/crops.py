"""Crops of images at a fixed scale: the shorter side is resized, then squares are cut out (ours, as is usual).

For crops of 227 pixels at margin 256 / 227 a photograph [375, 500, 3] becomes [256, 341, 3], of which [227, 227, 3].
The functions here make what `lts.data.training_batches` and `lts.data.test_batches` take as `crop` and `view`.
"""

from collections.abc import Callable

import tensorflow as tf

from lts.config import ImageConfig


def resize_shorter_side(image: tf.Tensor, side: int) -> tf.Tensor:
    """An image in its own proportions, bilinear and without aliasing.

    Args:
      image: uint8 [h, w, 3].
      side: pixels of the shorter side of the result.

    Returns:
      float32 [h', w', 3] in [0, 255]; the same pixels where the image has that size already.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    size = tf.maximum(side, tf.cast(tf.floor(sides * side / tf.reduce_min(sides) + 1e-6), tf.int32))
    return tf.ensure_shape(tf.image.resize(image, size, "bilinear", antialias=True), [None, None, 3])


def random_crops(margin: float) -> Callable:
    """A `crop` for training: a square at a random place of the image, which is `margin` times as large."""

    def crop(image: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tuple[tf.Tensor, tf.Tensor]:
        size = config.image_size
        resized = resize_shorter_side(image, round(size * margin))
        draws = tf.random.stateless_uniform([6], seed)
        room = tf.cast(tf.shape(resized)[:2] - size + 1, tf.float32)  # places for the corner
        y, x = tf.unstack(tf.cast(tf.floor(draws[:2] * room), tf.int32))
        return tf.ensure_shape(resized[y : y + size, x : x + size], [size, size, 3]), draws[2:]

    return crop


def fixed_crops(margin: float, number: int) -> Callable:
    """A `view` for testing.

    Args:
      margin: shorter side of the image that is cut, over the side of a crop.
      number: 1, the central crop; 10, that and the crops in the corners, all of them also mirrored.

    Returns:
      A function of (uint8 [h, w, 3], config) to uint8 [number, image_size, image_size, 3].
    """

    def view(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
        size = config.image_size
        resized = resize_shorter_side(image, round(size * margin))
        bytes_ = tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)
        room_y, room_x = tf.unstack(tf.shape(bytes_)[:2] - size)
        corners = [(room_y // 2, room_x // 2), (0, 0), (0, room_x), (room_y, 0), (room_y, room_x)]
        crops = tf.stack([bytes_[y : y + size, x : x + size] for y, x in corners[: 1 if number == 1 else None]])
        crops = tf.ensure_shape(crops, [None, size, size, 3])
        return crops if number == 1 else tf.concat([crops, tf.reverse(crops, [2])], 0)

    return view
