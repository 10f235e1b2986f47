"""Windows of images and masks.

A window of `size` pixels per side shows the image enlarged by `scale`. Row i of the window samples the image at
`top + (i + 0.5) / scale`, in pixels from the image's edge, for images and masks alike. Pure TensorFlow, eager or in
`tf.data`.
"""

import tensorflow as tf

from lts.data import as_signed

IGNORED = 255  # mask label of pixels without a class


def random_window(shape: tf.Tensor, size: int, scale: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw the position of a window uniformly within the image.

    Along a side that is shorter than the window, the image lies within the window instead.

    Args:
      shape: int [>= 2], (height, width, ...) of the image.
      size: pixels per side of the window.
      scale: enlargement of the image.
      seed: int [2].

    Returns:
      float32 [2], (top, left) in pixels of the image.
    """
    free = tf.cast(shape[:2], tf.float32) - size / scale  # negative where the image is too short
    return free * tf.random.stateless_uniform([2], seed)


def cut_image(image: tf.Tensor, begin: tf.Tensor, scale: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Cut a window out of an image.

    Bilinear, with a wider kernel where the image is reduced.

    Args:
      image: uint8 [h, w, 3].
      begin: float [2], (top, left) of the window.
      scale: enlargement.
      size: int [2], height and width of the window.

    Returns:
      float32 [height, width, 3] in [-1, 1]; 0 (grey) outside the image.
    """
    scales = tf.stack([scale, scale])
    return tf.raw_ops.ScaleAndTranslate(
        images=as_signed(image)[tf.newaxis],
        size=size,
        scale=scales,
        translation=-begin * scales,
        kernel_type="triangle",
        antialias=True,
    )[0]


def cut_mask(mask: tf.Tensor, begin: tf.Tensor, scale: tf.Tensor, size: int) -> tf.Tensor:
    """Cut a window out of a mask, by nearest neighbour.

    Args:
      mask: uint8 [h, w].
      begin: float [2], (top, left) of the window.
      scale: enlargement.
      size: pixels per side of the window.

    Returns:
      uint8 [size, size]; 255 outside the image.
    """
    inside = []
    indices = []
    for axis in range(2):
        samples = begin[axis] + (tf.range(size, dtype=tf.float32) + 0.5) / scale
        index = tf.cast(tf.floor(samples), tf.int32)
        length = tf.shape(mask)[axis]
        inside.append((index >= 0) & (index < length))
        indices.append(tf.clip_by_value(index, 0, length - 1))
    labels = tf.gather(tf.gather(mask, indices[0], axis=0), indices[1], axis=1)
    return tf.where(inside[0][:, tf.newaxis] & inside[1], labels, tf.constant(IGNORED, labels.dtype))


def mirrored(image: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Mirror [h, w, ...] left-right where `number`, uniform in [0, 1), is below 0.5."""
    return tf.cond(number < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def ten_crops(image: tf.Tensor, size: int, short_side: int) -> tf.Tensor:
    """Return the four corners and the centre of an image, and their mirror images.

    Source: AlexNet.

    Args:
      image: uint8 [h, w, 3].
      size: pixels per side of the crops.
      short_side: pixels of the shorter side to which the image is resized first, at least `size`.

    Returns:
      float32 [10, size, size, 3] in [-1, 1]: top left, top right, bottom left, bottom right, centre; then mirrored.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = short_side / tf.reduce_min(sides)
    resized = cut_image(image, tf.zeros([2]), scale, tf.cast(tf.round(sides * scale), tf.int32))
    bottom, right = tf.unstack(tf.shape(resized)[:2] - size)
    corners = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    crops = tf.stack([resized[top : top + size, left : left + size] for top, left in corners])
    crops = tf.ensure_shape(crops, [5, size, size, 3])
    return tf.concat([crops, tf.reverse(crops, [2])], 0)
