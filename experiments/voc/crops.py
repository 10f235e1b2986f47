"""Windows of images and masks: where they lie, and what is seen in them. Pure TensorFlow, eager or inside `tf.data`.

A window of `size` pixels a side shows the image `scale` times as large; its first row begins at the image's
coordinate `top`, counted in pixels from the image's edge. Its row i looks at top + (i + 0.5) / scale, of images and
masks alike.
"""

import tensorflow as tf

IGNORED = 255


def signed(image: tf.Tensor) -> tf.Tensor:
    """Bytes as networks take them: float32 in [-1, 1]."""
    return tf.cast(image, tf.float32) / 127.5 - 1.0


def random_window(shape: tf.Tensor, size: int, scale: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Where a window begins, drawn uniformly from where it lies within the image.

    Along a side that is too short for the window the image lies within the window instead.

    Args:
      shape: int [>= 2], (height, width, ...) of the image.
      size: pixels a side of the window.
      scale: enlargement of the image.
      seed: int [2].

    Returns:
      float32 [2], (top, left) in pixels of the image.
    """
    free = tf.cast(shape[:2], tf.float32) - size / scale  # negative where the image is too short
    return free * tf.random.stateless_uniform([2], seed)


def cut_image(image: tf.Tensor, begin: tf.Tensor, scale: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """What a window shows of an image: bilinear, with a wider kernel where the image becomes smaller.

    Args:
      image: uint8 [h, w, 3].
      begin: float [2], (top, left) of the window.
      scale: enlargement.
      size: int [2], height and width of the window.

    Returns:
      float32 [height, width, 3] in [-1, 1]; 0 outside of the image.
    """
    scales = tf.stack([scale, scale])
    return tf.raw_ops.ScaleAndTranslate(
        images=signed(image)[tf.newaxis],
        size=size,
        scale=scales,
        translation=-begin * scales,
        kernel_type="triangle",
        antialias=True,
    )[0]


def cut_mask(mask: tf.Tensor, begin: tf.Tensor, scale: tf.Tensor, size: int) -> tf.Tensor:
    """What a window shows of a mask: the label of the pixel that each looks at.

    Args:
      mask: uint8 [h, w].
      begin, scale: as for `cut_image`.
      size: pixels a side.

    Returns:
      uint8 [size, size]; 255 outside of the image.
    """
    inside, places = [], []
    for axis in range(2):
        at = tf.cast(tf.floor(begin[axis] + (tf.range(size, dtype=tf.float32) + 0.5) / scale), tf.int32)
        length = tf.shape(mask)[axis]
        inside.append((at >= 0) & (at < length))
        places.append(tf.clip_by_value(at, 0, length - 1))
    labels = tf.gather(tf.gather(mask, places[0], axis=0), places[1], axis=1)
    return tf.where(inside[0][:, tf.newaxis] & inside[1], labels, tf.constant(IGNORED, labels.dtype))


def mirrored(image: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """[h, w, ...] with left and right exchanged where `number`, uniform in [0, 1), is below a half."""
    return tf.cond(number < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def ten_crops(image: tf.Tensor, size: int, short_side: int) -> tf.Tensor:
    """The four corners and the middle of an image, and their mirror images (AlexNet).

    Args:
      image: uint8 [h, w, 3].
      size: pixels a side of the crops.
      short_side: the image is first resized so that its shorter side has so many pixels, at least `size`.

    Returns:
      float32 [10, size, size, 3] in [-1, 1]: top left, top right, bottom left, bottom right, middle; then mirrored.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = short_side / tf.reduce_min(sides)
    resized = cut_image(image, tf.zeros([2]), scale, tf.cast(tf.round(sides * scale), tf.int32))
    bottom, right = tf.unstack(tf.shape(resized)[:2] - size)
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    crops = tf.stack([resized[top : top + size, left : left + size] for top, left in places])
    crops = tf.ensure_shape(crops, [5, size, size, 3])
    return tf.concat([crops, tf.reverse(crops, [2])], 0)
