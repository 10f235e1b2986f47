"""The release's training augmentation and test preprocessing.

All functions are pure TensorFlow operations that work eagerly and inside `tf.data`. Every random amount is a function
of the seed that is passed in.

All resizes are the legacy ones of TensorFlow 1: no half-pixel centres, `source = target * in / out`.

Shapes: a uint8 image [120, 100, 3] is cropped to a window such as [81, 77, 3], resized to float32 [96, 96, 3] in
[0, 255], and converted to [-1, 1].
"""

from typing import Any

import tensorflow as tf

from lts.config import ImageConfig

RESIZES = {"bilinear": tf.raw_ops.ResizeBilinear, "bicubic": tf.raw_ops.ResizeBicubic}


def random_crop(image: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a random window of an image, resized (release).

    Args:
      image: uint8 [h, w, 3].
      seed: int [2]; the same seed gives the same result.
      config: size of the result and ranges of the random amounts.

    Returns:
      float32 [image_size, image_size, 3] in [0, 255]; bicubic may overshoot.
      float32 [4] in [0, 1): the amounts that `flip_and_colour` takes.
    """
    window_seed, amount_seed = tf.unstack(tf.random.split(seed, 2))
    window = random_crop_window(tf.shape(image), window_seed, config)
    amounts = tf.random.stateless_uniform([5], amount_seed)
    crop = tf.cond(
        amounts[0] < config.bicubic_probability,
        lambda: resize_window(image, window, config.image_size, "bicubic"),
        lambda: resize_window(image, window, config.image_size, "bilinear"),
    )
    return crop, amounts[1:]


# One XLA-compiled pass over the pixels of a batch. Image by image, these operations cost 60 to 90 microseconds more per
# image; on batches without XLA they cost even more, for the large temporaries.
@tf.function(jit_compile=True)
def flip_and_colour(crops: tf.Tensor, amounts: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Flip images and change their colours (release).

    Args:
      crops: float32 [batch, h, w, 3] in [0, 255] from `random_crop`.
      amounts: float32 [batch, 4] in [0, 1) from `random_crop`.
      config: ranges of the random amounts.

    Returns:
      float32 [batch, h, w, 3] in [-1, 1]: the training images, clipped here for the first time.
    """
    flip, order, brightness, saturation = tf.unstack(amounts, axis=-1)
    if config.flip:
        is_flipped = flip[:, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5
        crops = tf.where(is_flipped, tf.reverse(crops, [2]), crops)
    lowest, highest = config.saturation
    coloured = adjust_colour(
        to_unit_range(crops),
        brightness=(2.0 * brightness - 1.0) * config.brightness,
        saturation=lowest + saturation * (highest - lowest),
        saturation_first=order < 0.5,
    )
    return to_signed_range(coloured)


def test_image(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Return the test view of an image in [-1, 1] (release).

    The release evaluates one central crop, resized bilinearly, with unchanged colours.

    Shapes: uint8 [h, w, 3] gives float32 [image_size, image_size, 3].
    """
    return to_signed_range(to_unit_range(test_pixels(image, config)))


def test_pixels(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Return `test_image` in [0, 255], not rounded."""
    return legacy_resize(central_crop(image, config.test_crop), config.image_size, "bilinear")


def central_crop(image: tf.Tensor, fraction: float) -> tf.Tensor:
    """Return the central part of an image (release).

    Equal to `tf.image.central_crop`, with 12 operations instead of 70. `fraction` of each side is kept, in (0, 1].
    """
    sides = tf.shape(image)[:2]
    sides_float = tf.cast(sides, tf.float64)
    start = tf.cast((sides_float - sides_float * fraction) / 2, tf.int32)
    crop = tf.slice(image, tf.pad(start, [[0, 1]]), tf.concat([sides - 2 * start, [-1]], 0))
    crop.set_shape([None, None, image.shape[2]])
    return crop


def random_crop_window(shape: tf.Tensor, seed: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Draw a window by area and aspect ratio (release).

    Args:
      shape: int32 [3], height, width and channels of the image.
      seed: int [2].
      config: `crop_area` as a fraction of the image's area, `crop_aspect` as width / height.

    Returns:
      int32 [4]: y, x, height and width in pixels; the entire image if 100 attempts found no valid window.
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
    """Return a window (y, x, height, width) of an image, resized by `legacy_resize`."""
    y, x, height, width = tf.unstack(window)
    return legacy_resize(image[y : y + height, x : x + width], size, method)


def legacy_resize(image: tf.Tensor, size: int, method: str) -> tf.Tensor:
    """Resize an image as TensorFlow 1 does (release).

    Args:
      image: uint8 or float32 [h, w, channels].
      size: side of the result in pixels.
      method: "bilinear" or "bicubic" (A = -0.75).

    Returns:
      float32 [size, size, channels] in the units of `image`.

    Raises:
      ValueError: another method.
    """
    if method not in RESIZES:
        raise ValueError(f"method must be {' or '.join(RESIZES)}. Received: method={method!r}.")
    # Resizing float32 is faster than resizing uint8 and gives the same bits.
    images = tf.cast(image, tf.float32)[tf.newaxis]
    return RESIZES[method](images=images, size=[size, size], align_corners=False, half_pixel_centers=False)[0]


def adjust_colour(image: tf.Tensor, brightness: tf.Tensor, saturation: tf.Tensor, saturation_first: tf.Tensor):
    """Shift the brightness and scale the saturation, without clipping (release).

    Scaling the saturation of HSV by f keeps the largest channel v of a pixel. Each channel x moves to v - f (v - x),
    and f is limited so that the smallest channel stays at 0 or above. This closed form is faster than
    `tf.image.adjust_saturation`, which converts to HSV and back, and equal to it within 2e-6.

    Args:
      image: float32 [..., h, w, 3], nominally in [0, 1].
      brightness: float [...], added.
      saturation: float [...], factor of at least 0.
      saturation_first: bool [...]; False: brightness first.

    Returns:
      float32 [..., h, w, 3].
    """
    brightness = _per_pixel(tf.cast(brightness, tf.float32))
    saturation = _per_pixel(tf.cast(saturation, tf.float32))
    saturation_first = _per_pixel(tf.convert_to_tensor(saturation_first))
    shift_after = tf.where(saturation_first, brightness, 0.0)
    shift_before = tf.where(saturation_first, 0.0, brightness)

    channels = [channel + shift_before for channel in tf.unstack(image, axis=-1)]
    red, green, blue = channels
    largest = tf.maximum(tf.maximum(red, green), blue)
    smallest = tf.minimum(tf.minimum(red, green), blue)
    limit = tf.math.divide_no_nan(tf.maximum(largest, 0.0), largest - smallest)
    factor = tf.minimum(saturation, limit)
    return tf.stack([largest - (largest - channel) * factor + shift_after for channel in channels], axis=-1)


def _per_pixel(values: Any) -> tf.Tensor:
    """Return values [...] as [..., 1, 1]."""
    return values[..., tf.newaxis, tf.newaxis]


def to_unit_range(image: tf.Tensor) -> tf.Tensor:
    """Scale [0, 255] to [0, 1] (release)."""
    # NB: `image / 255.0` differs in the last bit from the release's `convert_image_dtype`.
    return image * (1.0 / 255.0)


def to_signed_range(image: tf.Tensor) -> tf.Tensor:
    """Scale [0, 1] to [-1, 1] and clip (release)."""
    return tf.clip_by_value(image * 2.0 - 1.0, -1.0, 1.0)
