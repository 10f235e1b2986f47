"""Decoding of image files.

Every reader decodes images here: memory store, file store, stream, and the VOC readers. They therefore agree on kinds,
sizes, orientation and pixels, and on which images are broken.

TensorFlow decodes JPEG and PNG. Pillow decodes everything else, images that must be turned, and images that TensorFlow
refuses.
"""

import contextlib
import dataclasses
import io
import os
import warnings
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, UnidentifiedImageError

from lts.utils.errors import first_line
from lts.utils.files import check_regular

# NB: Pillow's other formats include PostScript, which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**28  # of an image: 0.8 GB decoded. A small file can declare more.
MAX_BYTES = 2**30  # of an encoded image, more than its decoded pixels. A file may hold gigabytes behind its image.
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIGNED = 2  # sample format of a TIFF
SIDEWAYS = tuple(TURNS[orientation] for orientation in (5, 6, 7, 8))  # they exchange height and width

# One limit for every decoder, checked on the header. Pillow warns above MAX_IMAGE_PIXELS and refuses above twice that.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", module=r"PIL\.")  # also of damaged EXIF, which is ignored


class BrokenImage(Exception):
    """Image that cannot be read; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Size and kind of an encoded image."""

    height: int  # upright, as a viewer shows the image
    width: int
    encoded_bytes: int
    by_pillow: bool  # TensorFlow cannot decode it, or would not turn it


def read_header(item: str | bytes) -> Header:
    """Return the header of an encoded image (path or bytes).

    Raises:
      BrokenImage: the image cannot be read.
    """
    with open_image(item) as image:
        width, height = image.size
        turn = _turn(image)
        if turn in SIDEWAYS:
            height, width = width, height
        by_pillow = turn is not None or image.format not in ("JPEG", "MPO", "PNG")
    encoded_bytes = len(item) if isinstance(item, bytes) else os.path.getsize(item)
    return Header(height, width, encoded_bytes, by_pillow)


def decode_once(item: str | bytes, header: Header) -> tuple[np.ndarray, bool]:
    """Decode an image (path or bytes) with TensorFlow or Pillow.

    TensorFlow comes first because JPEG bits differ between libraries, and files are decoded in its graph.

    Returns:
      uint8 [h, w, 3], upright, and whether Pillow decoded it.

    Raises:
      BrokenImage: the image cannot be read.
    """
    if not header.by_pillow:
        try:
            image = decode_image(tf.constant(read_bytes(item))).numpy()
            if image.shape == (header.height, header.width, 3):
                return image, False
        except tf.errors.OpError:
            pass  # Pillow tries next; its reasons are clearer
    image = decode_with_pillow(item)
    if image.shape != (header.height, header.width, 3):
        raise BrokenImage("the image is not as large as its header says")
    return image, True


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decode JPEG or PNG to uint8 [h, w, 3], without turning it.

    Grey becomes RGB, 16 bits become the upper 8, and an alpha channel is dropped.
    """
    return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])


def decode_in_graph(encoded: tf.Tensor, by_pillow: tf.Tensor) -> tf.Tensor:
    """Decode an image inside `tf.data`.

    Args:
      encoded: string scalar.
      by_pillow: bool scalar, see `decode_once`.

    Returns:
      uint8 [h, w, 3], equal to that of `decode_once`.
    """
    image = tf.cond(
        by_pillow,
        lambda: tf.numpy_function(_decode_value, [encoded], tf.uint8, stateful=False),
        lambda: decode_image(encoded),
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_with_pillow(item: str | bytes) -> np.ndarray:
    """Decode an image (path or bytes) to uint8 [h, w, 3], upright.

    Grey becomes RGB, 16 bits become the upper 8, an alpha channel is dropped, and an animation gives its first frame.

    Raises:
      BrokenImage: the image cannot be read, or its values have no range that 8 bits can show.
    """
    with open_image(item) as image:
        sample_formats = getattr(image, "tag_v2", {}).get(ExifTags.Base.SampleFormat, ())
        # NB: Pillow takes signed bytes for unsigned ones, so that -1 would be white.
        if image.mode == "L" and SIGNED in sample_formats:
            raise BrokenImage("pixels must be unsigned. Received: a TIFF of signed bytes")
        turn = _turn(image)
        upright = image if turn is None else image.transpose(turn)
        if image.mode == "F" or image.mode.startswith("I"):
            return np.repeat(_grey_bytes(image, np.asarray(upright))[..., np.newaxis], 3, axis=-1)
        return np.asarray(upright.convert("RGB"))


def read_bytes(item: str | bytes) -> bytes:
    """Return the encoded bytes of an image (path or bytes).

    Raises:
      BrokenImage: the file cannot be read.
    """
    if isinstance(item, bytes):
        return item
    try:
        check_regular(item)
        if os.path.getsize(item) > MAX_BYTES:
            raise BrokenImage(f"more than {MAX_BYTES:,} bytes")
        # Without a buffer, half the time of `pathlib`.
        with open(item, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise BrokenImage(first_line(error)) from None


def _decode_value(encoded: bytes | np.ndarray) -> np.ndarray:
    """Decode what `tf.numpy_function` passes on."""
    # It is an array outside of a graph.
    return decode_with_pillow(encoded if isinstance(encoded, bytes) else encoded.item())


@contextlib.contextmanager
def open_image(item: str | bytes) -> Iterator[Image.Image]:
    """Open an image (path or bytes) with Pillow.

    Raises:
      BrokenImage: any error of opening, and any error inside the block.
    """
    try:
        if not isinstance(item, bytes):
            check_regular(item)
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        raise BrokenImage("not an image (JPEG, PNG, BMP, GIF, TIFF or WebP)") from None
    except Image.DecompressionBombError:
        raise BrokenImage(f"more than {MAX_PIXELS:,} pixels") from None
    except BrokenImage:
        raise
    except Exception as error:  # decoders of damaged files raise nearly any type
        raise BrokenImage(first_line(error)) from None


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how the image must be turned to stand upright."""
    if image.format == "TIFF":
        return None  # Pillow turns them
    try:
        # NB: PNG's own `getexif` would decode the image.
        return TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation))
    except Exception:  # damaged EXIF raises nearly any type; the pixels may be intact
        return None


def _grey_bytes(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """Return grey values of more than 8 bits as uint8."""
    # Pillow would clip them.
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        grey = (values >> (bits - 8)).astype(np.uint8)
        is_inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
        return 255 - grey if is_inverted else grey
    if image.mode == "F" and values.min() >= 0 and values.max() <= 1:
        return np.round(values * 255).astype(np.uint8)
    raise BrokenImage(f"pixels must be 8 or 16 bits, or floats in [0, 1]. Received: mode {image.mode}")
