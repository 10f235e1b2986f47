"""The release's training augmentation and test preprocessing, as pure TensorFlow operations.

All resizes are the legacy ones of TensorFlow 1: no half-pixel centres, `src = dst * in / out`. Everything works eagerly
and inside `tf.data`, and every random amount is a function of the seed that is passed in.

An image [120, 100, 3] of bytes becomes a window of it, for instance [81, 77, 3], then [96, 96, 3] floats in [-1, 1].
"""

import tensorflow as tf

from lts.config import ImageConfig

RESIZES = {"bilinear": tf.raw_ops.ResizeBilinear, "bicubic": tf.raw_ops.ResizeBicubic}


def random_crop(image: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """A random window of an image, resized, and the numbers that decide the rest of its augmentation (release).

    Args:
      image: uint8 [h, w, 3].
      seed: int [2]; the same seed gives the same result.
      config: size of the result, ranges of the random amounts.

    Returns:
      float32 [image_size, image_size, 3] in [0, 255]; bicubic may overshoot.
      float32 [4], uniform in [0, 1), for `flip_and_colour`.
    """
    crop_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
    window = random_crop_window(tf.shape(image), crop_seed, config)
    draws = tf.random.stateless_uniform([5], draw_seed)
    crop = tf.cond(
        draws[0] < config.bicubic_probability,
        lambda: resize_window(image, window, config.image_size, "bicubic"),
        lambda: resize_window(image, window, config.image_size, "bilinear"),
    )
    return crop, draws[1:]


@tf.function(jit_compile=True)
def flip_and_colour(crops: tf.Tensor, draws: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """The augmentation after the crop, for a whole batch and compiled: one pass over the pixels (release; ours).

    Args:
      crops: float32 [batch, h, w, 3] in [0, 255], of `random_crop`.
      draws: float32 [batch, 4] in [0, 1), of `random_crop`.
      config: ranges of the random amounts.

    Returns:
      float32 [batch, h, w, 3] in [-1, 1]: the training images, clipped only here.
    """
    flip, order, brightness, saturation = tf.unstack(draws, axis=-1)
    if config.flip:
        crops = tf.where(flip[:, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5, tf.reverse(crops, [2]), crops)
    coloured = adjust_colour(
        to_unit_range(crops),
        brightness=(2.0 * brightness - 1.0) * config.brightness,
        saturation=config.saturation[0] + saturation * (config.saturation[1] - config.saturation[0]),
        saturation_first=order < 0.5,
    )
    return to_signed_range(coloured)


def test_image(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """The one view of an image that is tested: central crop, legacy bilinear resize, no colour (release).

    Args:
      image: uint8 [h, w, 3].
      config: size of the result and fraction of each side that the crop keeps.

    Returns:
      float32 [image_size, image_size, 3] in [-1, 1].
    """
    return to_signed_range(to_unit_range(test_pixels(image, config)))


def test_pixels(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """`test_image` in units of its pixels: float32 [image_size, image_size, 3] in [0, 255]."""
    return legacy_resize(central_crop(image, config.test_crop), config.image_size, "bilinear")


def central_crop(image: tf.Tensor, fraction: float) -> tf.Tensor:
    """`tf.image.central_crop` with 12 operations instead of 70 (release; ours).

    Args:
      image: [h, w, 3].
      fraction: of each side that is kept, in (0, 1].

    Returns:
      [h', w', 3].
    """
    sides = tf.shape(image)[:2]
    wide = tf.cast(sides, tf.float64)
    start = tf.cast((wide - wide * fraction) / 2, tf.int32)
    crop = tf.slice(image, tf.pad(start, [[0, 1]]), tf.concat([sides - 2 * start, [-1]], 0))
    crop.set_shape([None, None, image.shape[2]])
    return crop


def random_crop_window(shape: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Draws a window of an image by area and aspect ratio (release: sample_distorted_bounding_box, whole image).

    Args:
      shape: int32 [3], (h, w, channels) of the image.
      seed: int [2].
      config: `crop_area` as a fraction of the image's area, `crop_aspect` as width / height.

    Returns:
      int32 [4]: (y, x, height, width) in pixels; the whole image where 100 tries found no window that fits.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=[[[0.0, 0.0, 1.0, 1.0]]],
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=config.crop_aspect,
        area_range=config.crop_area,
        max_attempts=100,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def resize_window(image: tf.Tensor, window: tf.Tensor, size: int, method: str) -> tf.Tensor:
    """Cuts a window out of an image and resizes it.

    Args:
      image: uint8 or float32 [h, w, 3].
      window: int [4], (y, x, height, width) in pixels.
      size: pixels a side of the result.
      method: "bilinear" or "bicubic", both legacy.

    Returns:
      float32 [size, size, 3] in the units of `image`; bicubic may overshoot.
    """
    y, x, height, width = tf.unstack(window)
    return legacy_resize(image[y : y + height, x : x + width], size, method)


def legacy_resize(image: tf.Tensor, size: int, method: str) -> tf.Tensor:
    """Resizes as TensorFlow 1 did: no aligned corners, no half-pixel centres (release).

    Args:
      image: uint8 or float32 [h, w, channels].
      size: pixels a side of the result.
      method: "bilinear" or "bicubic" (A = -0.75).

    Returns:
      float32 [size, size, channels] in the units of `image`.

    Raises:
      ValueError: another method.
    """
    if method not in RESIZES:
        raise ValueError(f"method must be {' | '.join(RESIZES)}. Received: method={method!r}")
    images = tf.cast(image, tf.float32)[tf.newaxis]  # the same bits as of bytes, faster
    return RESIZES[method](images=images, size=[size, size], align_corners=False, half_pixel_centers=False)[0]


def adjust_colour(image: tf.Tensor, brightness: tf.Tensor, saturation: tf.Tensor, saturation_first: tf.Tensor):
    """Shifts brightness and scales the saturation of HSV, in the order asked for, without clipping (release).

    Scaling saturation by f keeps the largest channel v of a pixel and moves each channel x to v - f (v - x), where f is
    no more than makes the smallest channel 0: `tf.image.adjust_saturation` without its way to HSV and back (ours).

    Args:
      image: float32 [..., h, w, 3], nominally in [0, 1].
      brightness: float [...], added.
      saturation: float [...] factor, at least 0.
      saturation_first: bool [...]; False: brightness first.

    Returns:
      float32 [..., h, w, 3], not clipped.
    """
    brightness, saturation = (
        tf.cast(amount, tf.float32)[..., tf.newaxis, tf.newaxis] for amount in (brightness, saturation)
    )
    saturation_first = tf.convert_to_tensor(saturation_first)[..., tf.newaxis, tf.newaxis]
    late = tf.where(saturation_first, brightness, 0.0)
    early = tf.where(saturation_first, 0.0, brightness)
    channels = [channel + early for channel in tf.unstack(image, axis=-1)]
    red, green, blue = channels
    largest = tf.maximum(tf.maximum(red, green), blue)
    smallest = tf.minimum(tf.minimum(red, green), blue)
    factor = tf.minimum(saturation, tf.math.divide_no_nan(tf.maximum(largest, 0.0), largest - smallest))
    return tf.stack([largest - (largest - channel) * factor + late for channel in channels], axis=-1)


def to_unit_range(image: tf.Tensor) -> tf.Tensor:
    """[0, 255] to [0, 1] by multiplication, as the release's `convert_image_dtype` does: the bits of `/ 255` differ."""
    return image * (1.0 / 255.0)


def to_signed_range(image: tf.Tensor) -> tf.Tensor:
    """[0, 1] to [-1, 1], and the only clip of the way (release)."""
    return tf.clip_by_value(image * 2.0 - 1.0, -1.0, 1.0)
