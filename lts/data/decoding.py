"""Decoding of image files.

Every reader decodes images here: memory store, file store, stream, and the VOC readers. They therefore agree on kinds,
sizes, orientation and pixels, and on which images are broken.

TensorFlow decodes JPEG and PNG. Pillow decodes everything else, images that must be turned, and images that TensorFlow
refuses. Pillow also decodes what is shrunk: both use libjpeg-turbo, and their pixels at 1/4 and 1/8 of the size agree.
"""

import contextlib
import dataclasses
import functools
import io
import os
import warnings
from collections.abc import Collection, Iterator

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, UnidentifiedImageError

from lts.utils.errors import first_line
from lts.utils.files import check_regular

# NB: Pillow's other formats include PostScript, which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**28  # of an image: 0.8 GB decoded. A small file can declare more.
MAX_BYTES = 2**30  # of an encoded image, more than its decoded pixels. A file may hold gigabytes after its image.
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TENSORFLOW, PILLOW, SHRUNK, STORED = range(4)  # how an image is read, see `decode_in_graph`
SHRINK_VERSION = 1  # raise it when `decode_shrunk` returns other pixels
FILTER = Image.Resampling.BICUBIC  # antialiased
REDUCING_GAP = 3.0  # Pillow averages blocks of pixels first, down to this multiple of the result
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

    def stored_shape(self, stored_size: int) -> tuple[int, int]:
        """Return height and width after shrinking to a shorter side of `stored_size` pixels.

        Smaller images keep their size, and so do all where `stored_size` is 0.

        Example:
          >>> Header(3000, 4000, encoded_bytes=3_000_000, by_pillow=False).stored_shape(129)
          (129, 172)
        """
        shorter = min(self.height, self.width)
        if not 0 < stored_size < shorter:
            return self.height, self.width
        return round(self.height * stored_size / shorter), round(self.width * stored_size / shorter)


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


def decode_in_graph(encoded: tf.Tensor, way: tf.Tensor, shape: tf.Tensor, ways: Collection[int]) -> tf.Tensor:
    """Read an image inside `tf.data`.

    Args:
      encoded: string scalar; for STORED the content of a file of `lts.data.cache`.
      way: int scalar: TENSORFLOW or PILLOW, which of them decodes the image, see `decode_once`; SHRUNK, see
        `decode_shrunk`; or STORED.
      shape: int64 [2], height and width of the result; used by SHRUNK and STORED only.
      ways: the ways that occur. Without PILLOW and SHRUNK the graph stays free of Python.

    Returns:
      uint8 [h, w, 3], equal to that of `decode_once` or `decode_shrunk`.
    """
    readers = {
        TENSORFLOW: lambda: decode_image(encoded),
        PILLOW: lambda: tf.numpy_function(_decode_value, [encoded], tf.uint8, stateful=False),
        SHRUNK: lambda: tf.numpy_function(_shrink_value, [encoded, shape], tf.uint8, stateful=False),
        STORED: lambda: _stored_pixels(encoded, shape),
    }
    first, *others = sorted(ways)
    read = readers[first]
    for other in others:
        read = functools.partial(tf.cond, way == other, readers[other], read)
    return tf.ensure_shape(read(), [None, None, 3])


def decode_shrunk(item: str | bytes, header: Header, shape: tuple[int, int]) -> np.ndarray:
    """Decode an image (path or bytes) and shrink it with an antialiasing filter.

    A JPEG decoder halves an image up to three times while it decodes, which needs a sixtieth of the memory. Other
    images are decoded completely. The same images count as broken as for `decode_once`.

    Returns:
      uint8 [*shape, 3], upright.

    Raises:
      BrokenImage: the image cannot be read.
    """
    encoded = read_bytes(item)
    try:
        image = _decode_reduced(encoded, shape)
    except BrokenImage:
        image = None  # TensorFlow may be able to read it
    if image is None:
        height, width = shape
        pixels, _ = decode_once(encoded, header)
        small = Image.fromarray(pixels).resize((width, height), FILTER, reducing_gap=REDUCING_GAP)
        image = np.asarray(small)
    return image


def _decode_reduced(encoded: bytes, shape: tuple[int, int]) -> np.ndarray | None:
    """Return a JPEG as uint8 [*shape, 3], upright; None for other images."""
    with open_image(encoded) as image:
        if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
            return None
        height, width = shape
        turn = _turn(image)
        size = (height, width) if turn in SIDEWAYS else (width, height)
        # The decoder itself reduces to 1/2, 1/4 or 1/8, as long as the image stays at least this large.
        image.draft(None, size)
        small = image.resize(size, FILTER)
        upright = small if turn is None else small.transpose(turn)
        return np.asarray(upright.convert("RGB"))


def _stored_pixels(content: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Return the pixels in a file of `lts.data.cache`."""
    shape = tf.concat([shape, [3]], axis=0)
    # A checksum follows the pixels.
    return tf.reshape(tf.io.decode_raw(content, tf.uint8)[: tf.reduce_prod(shape)], shape)


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
    return decode_with_pillow(_bytes_of(encoded))


def _shrink_value(encoded: bytes | np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Decode and shrink what `tf.numpy_function` passes on."""
    encoded = _bytes_of(encoded)
    return decode_shrunk(encoded, read_header(encoded), tuple(shape.tolist()))


def _bytes_of(value: bytes | np.ndarray) -> bytes:
    """Return a string of `tf.numpy_function`, which is an array outside of a graph."""
    return value if isinstance(value, bytes) else value.item()


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
        return TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
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
