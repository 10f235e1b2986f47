"""The release's training augmentation and test preprocessing, as pure TensorFlow operations.

All resizes are the legacy ones of TensorFlow 1: no half-pixel centres, `src = dst * in / out`. Everything works eagerly
and inside `tf.data`, and every random amount is a function of the seed that is passed in.

An image [120, 100, 3] of bytes becomes a window of it, for instance [81, 77, 3], then [96, 96, 3] floats in [-1, 1].
"""

import tensorflow as tf

from lts.config import ImageConfig

RESIZES = {"bilinear": tf.raw_ops.ResizeBilinear, "bicubic": tf.raw_ops.ResizeBicubic}


def training_image(image: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """A random view of an image for training (release).

    Args:
      image: uint8 [h, w, 3].
      seed: int [2]; the same seed gives the same view.
      config: size of the result and ranges of the random amounts.

    Returns:
      float32 [image_size, image_size, 3] in [-1, 1]: cropped, resized, flipped, coloured, clipped only at the end.
    """
    size = config.image_size
    crop_seed, draw_seed = tf.unstack(tf.random.split(seed, 2))
    window = random_crop_window(tf.shape(image), crop_seed, config)
    bicubic, flip, order, brightness, saturation = tf.unstack(tf.random.stateless_uniform([5], draw_seed))
    image = tf.cond(
        bicubic < config.bicubic_probability,
        lambda: resize_window(image, window, size, "bicubic"),
        lambda: resize_window(image, window, size, "bilinear"),
    )
    if config.flip:
        image = tf.cond(flip < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    image = adjust_colour(
        to_unit_range(image),
        brightness=(2.0 * brightness - 1.0) * config.brightness,
        saturation=config.saturation[0] + saturation * (config.saturation[1] - config.saturation[0]),
        saturation_first=order < 0.5,
    )
    return to_signed_range(image)


def test_image(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """The one view of an image that is tested: central crop, legacy bilinear resize, no colour (release).

    Args:
      image: uint8 [h, w, 3].
      config: size of the result and fraction of each side that the crop keeps.

    Returns:
      float32 [image_size, image_size, 3] in [-1, 1].
    """
    crop = tf.image.central_crop(image, config.test_crop)
    return to_signed_range(to_unit_range(legacy_resize(crop, config.image_size, "bilinear")))


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
    return RESIZES[method](images=image[tf.newaxis], size=[size, size], align_corners=False, half_pixel_centers=False)[
        0
    ]


def adjust_colour(image: tf.Tensor, brightness: tf.Tensor, saturation: tf.Tensor, saturation_first: tf.Tensor):
    """Shifts brightness and scales saturation, in the order asked for, without clipping (release).

    Args:
      image: float32 [h, w, 3], nominally in [0, 1].
      brightness: float scalar, added.
      saturation: float scalar factor, at least 0.
      saturation_first: bool scalar; False: brightness first.

    Returns:
      float32 [h, w, 3], not clipped.
    """
    brightness = tf.convert_to_tensor(brightness, tf.float32)
    late = tf.where(saturation_first, brightness, 0.0)
    early = tf.where(saturation_first, 0.0, brightness)
    return tf.image.adjust_saturation(image + early, saturation) + late


def to_unit_range(image: tf.Tensor) -> tf.Tensor:
    """[0, 255] to [0, 1] by multiplication, as the release's `convert_image_dtype` does: the bits of `/ 255` differ."""
    return image * (1.0 / 255.0)


def to_signed_range(image: tf.Tensor) -> tf.Tensor:
    """[0, 1] to [-1, 1], and the only clip of the way (release)."""
    return tf.clip_by_value(image * 2.0 - 1.0, -1.0, 1.0)
