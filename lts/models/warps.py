"""Crops, small rotations and smooth warps of images (Jenni et al., CVPR 2020).

All functions are deterministic: the caller draws the numbers. Coordinates are (x, y) in pixels. Pixels outside of an
image are 0, the middle of [-1, 1], unless a function says otherwise.
"""

import tensorflow as tf


def crop(images, corners, size: int):
    """Return a window of each image.

    Args:
      images: [B, H, W, channels].
      corners: upper left corners of the windows, whole numbers [B, 2].
      size: pixels per side of a window.
    """
    return _transformed(images, _affine(tf.zeros_like(corners[:, 0]), corners, 0.0), size, "NEAREST")


def paste(images, patches, corners):
    """Return images with a patch in each; the gradient reaches the patches.

    Args:
      images: [B, H, W, channels], square.
      patches: [B, h, w, channels].
      corners: upper left corners of the patches, whole numbers [B, 2].
    """
    size = images.shape[1]
    placement = _affine(tf.zeros_like(corners[:, 0]), -corners, 0.0)
    mask = _transformed(tf.ones_like(patches[..., :1]), placement, size, "NEAREST")
    return images * (1 - mask) + _transformed(patches, placement, size, "NEAREST")


def rotated_crop(images, angles, corners, size: int):
    """Return a window of each image, rotated around the centre of the image.

    A window of angle 0 at a whole number is a copy. Others are interpolated bilinearly.

    Args:
      images: [B, H, W, channels], square.
      angles: radians [B].
      corners: upper left corners of the windows [B, 2].
      size: pixels per side of a window.
    """
    centre = (images.shape[1] - 1) / 2
    return _transformed(images, _affine(angles, corners, centre), size, "BILINEAR")


def warp(images, targets, shifts):
    """Return images that are bent so that points move.

    The displacement is a thin-plate spline: it has the given values at the target points, and least bending between
    them. Pixels beyond an edge repeat the edge. There is no gradient.

    Args:
      images: [B, H, W, channels].
      targets: where the points are after the warp [B, n, 2].
      shifts: by how many pixels they moved [B, n, 2].
    """
    batch, height, width = tf.unstack(tf.shape(images)[:3])
    columns, rows = tf.meshgrid(tf.range(width), tf.range(height))
    pixels = tf.cast(tf.reshape(tf.stack([columns, rows], -1), [1, -1, 2]), tf.float32)
    displacement = _spline(targets, shifts, pixels, scale=tf.cast(height, tf.float32))
    sampled = _bilinear(images, pixels - displacement)
    return tf.stop_gradient(tf.reshape(sampled, [batch, height, width, images.shape[-1]]))


def _spline(points, values, pixels, scale):
    """Return a thin-plate spline at pixels [B, pixels, 2]."""
    points = points / scale  # near 1, for the precision of the linear system
    pixels = pixels / scale
    count = points.shape[1]
    ones = tf.ones_like(points[..., :1])
    polynomial = tf.concat([ones, points], -1)  # [B, n, 3]
    kernel = _thin_plate(points, points)
    system = tf.concat(
        [
            tf.concat([kernel, polynomial], 2),
            tf.concat([tf.linalg.matrix_transpose(polynomial), tf.zeros_like(polynomial[:, :3])], 2),
        ],
        1,
    )
    right = tf.concat([values, tf.zeros_like(values[:, :3])], 1)
    weights, linear = tf.split(tf.linalg.solve(system, right), [count, 3], axis=1)
    constant, slopes = tf.split(linear, [1, 2], axis=1)
    return tf.matmul(_thin_plate(pixels, points), weights) + constant + tf.matmul(pixels, slopes)


def _thin_plate(first, second):
    """Return r ** 2 * log(r) for the distances r of two sets of points."""
    distance = tf.reduce_sum(first**2, -1)[:, :, None] - 2 * tf.matmul(first, second, transpose_b=True)
    squared = tf.maximum(distance + tf.reduce_sum(second**2, -1)[:, None], 1e-10)
    return squared * tf.math.log(squared) / 2


def _bilinear(images, positions):
    """Return images at positions [B, n, 2], interpolated."""
    height, width, channels = images.shape[1:]
    limits = tf.constant([width - 1, height - 1], tf.float32)
    positions = tf.clip_by_value(positions, 0.0, limits)
    corners = tf.minimum(tf.floor(positions), limits - 1)
    right, down = tf.split(positions - corners, 2, axis=-1)
    column, row = tf.unstack(tf.cast(corners, tf.int32), axis=-1)
    flat = tf.reshape(images, [-1, height * width, channels])
    first = row * width + column

    def at(offset):
        return tf.gather(flat, first + offset, batch_dims=1)

    above = at(0) * (1 - right) + at(1) * right
    below = at(width) * (1 - right) + at(width + 1) * right
    return above * (1 - down) + below * down


def _affine(angles, corners, centre):
    """Return the rows of numbers that map pixels of a window to those of the image [B, 8]."""
    cosine = tf.cos(angles)
    sine = tf.sin(angles)
    x = corners[:, 0] - centre
    y = corners[:, 1] - centre
    zeros = tf.zeros_like(cosine)
    rows = [cosine, -sine, cosine * x - sine * y + centre, sine, cosine, sine * x + cosine * y + centre, zeros, zeros]
    return tf.stack(rows, 1)


def _transformed(images, transforms, size: int, interpolation: str):
    """Return images [B, size, size, channels] after an affine map."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[size, size],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
