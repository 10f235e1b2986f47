"""Decoded images in memory, or encoded ones in files: the two places that a `ImageDataset` reads from."""

import contextlib
import dataclasses
import io
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
import tqdm
from PIL import Image, UnidentifiedImageError

from lts.utils.errors import UserError, first_line

ALIGNMENT = 64  # bytes: TensorFlow kernels want their buffers aligned
CHUNK = 256  # encoded images in flight while a dataset is opened

PURPOSES = {
    "pretrain": "labels do not matter",
    "train": "of a probe: every image has a label",
    "test": "of a probe: every image has a label",
    "features": "labels are kept where there are any, -1 stands for none",
}
LABELLED = ("train", "test")


class DataError(UserError):
    """A dataset that cannot be used as asked: one line that names it and says what would be right."""


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """What a dataset holds, before anything is decoded.

    Attributes:
      names: how messages and reports name the examples [N].
      labels: int64 [N], or None.
      class_names: names of the classes; empty without labels.
      items: called, iterates over the N encoded images: a path, or the bytes themselves. May be called again.
      dataset: called, gives the same as a `tf.data.Dataset` of strings.
      in_files: whether these are paths, not the bytes themselves.
      paths: called, gives the N paths of the encoded images as files, writing them first where there are none.
    """

    names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    items: Callable[[], Iterable[str | bytes]]
    dataset: Callable[[], tf.data.Dataset]
    in_files: bool
    paths: Callable[[], list[str]]


class MemoryStore:
    """Decoded images, one behind the other in one flat tensor of bytes.

    Args:
      flat: uint8 [bytes], from `aligned_empty`; taken over, not copied.
      offsets: int64 [N], where each image begins.
      shapes: int64 [N, 2], (height, width) of each image.
      channels: of each image; 1 for masks.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray, shapes: np.ndarray, channels: int = 3):
        self._channels = channels
        self._flat = tf.experimental.dlpack.from_dlpack(
            flat.__dlpack__()
        )  # tf.constant would need three times the memory
        with tf.device("CPU:0"):
            self._offsets = tf.constant(offsets, tf.int64)
            self._shapes = tf.constant(shapes, tf.int64)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Image number `index`, an int64 scalar: uint8 [h, w, channels]."""
        with tf.device("CPU:0"):
            shape = tf.concat([self._shapes[index], [self._channels]], axis=0)
            pixels = tf.slice(self._flat, self._offsets[index, tf.newaxis], tf.reduce_prod(shape, keepdims=True))
            return tf.ensure_shape(tf.reshape(pixels, shape), [None, None, self._channels])


class FileStore:
    """Encoded images in files, decoded whenever they are read.

    Args:
      paths: the N files.
    """

    def __init__(self, paths: list[str]):
        with tf.device("CPU:0"):
            self._paths = tf.constant(paths)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Image number `index`, an int64 scalar: uint8 [h, w, 3]."""
        with tf.device("CPU:0"):
            return decode_image(tf.io.read_file(self._paths[index]))


def array_store(images: np.ndarray) -> MemoryStore:
    """A store of images that are decoded already: uint8 [N, h, w, 3]."""
    count, height, width, _ = images.shape
    flat = aligned_empty(images.size)
    flat[:] = images.reshape(-1)
    return MemoryStore(flat, np.arange(count) * height * width * 3, np.tile([height, width], (count, 1)))


@dataclasses.dataclass(frozen=True)
class Opened:
    """What `open_store` found: the store, and what became of the N examples of the listing.

    Attributes:
      store: holds the `kept` examples, in their order.
      kept: int64 [n], which examples those are.
      sizes: int64 [n, 3], their (height, width, encoded bytes).
      broken: reason by index of the examples that were left out.
    """

    store: MemoryStore | FileStore
    kept: np.ndarray
    sizes: np.ndarray
    broken: dict[int, str]


def open_store(listing: ImageIndex, cache_bytes: float, skip_broken: bool, progress: bool) -> Opened:
    """Decodes every image once: that fills the memory, and finds the broken ones before training does.

    Sizes come from the images' headers first, so that the memory is taken once and whole.

    Args:
      listing: the dataset.
      cache_bytes: decoded images are kept in memory up to this many bytes, and read from files beyond.
      skip_broken: False: the first broken image raises.
      progress: show a progress bar where stderr is a terminal.

    Returns:
      The store, and what is in it.

    Raises:
      DataError: a broken image without `skip_broken`; no image left; one that cannot be read from a file each time.
    """
    scan = _Scan(listing, skip_broken, progress)
    headers = scan.run("reading sizes", lambda index, item: read_header(item))
    sizes = np.array([(h.height, h.width, h.encoded_bytes) if h else (0, 0, 0) for h in headers], np.int64)
    lengths = sizes[:, 0] * sizes[:, 1] * 3
    offsets = np.cumsum(lengths) - lengths
    in_memory = lengths.sum() <= cache_bytes
    flat = aligned_empty(lengths.sum() if in_memory else 0)

    def decode(index: int, item: str | bytes) -> None:
        if headers[index] is None:
            return
        image, by_pillow = decode_once(item, headers[index])
        if in_memory:
            flat[offsets[index] : offsets[index] + lengths[index]] = image.reshape(-1)
        elif by_pillow:
            raise DataError(
                f"{listing.names[index]} is of a kind that can be kept in memory only: convert it to PNG or JPEG, or "
                f"let the cache grow to {lengths.sum() / 1e9:.1f} GB"
            )

    scan.run("decoding", decode)
    broken = scan.broken
    kept = np.array([index for index in range(len(sizes)) if index not in broken], np.int64)
    if not len(kept):
        raise DataError(f"all {len(broken)} images are broken, the first is {listing.names[0]} ({broken[0]})")
    if in_memory:
        store = MemoryStore(flat, offsets[kept], sizes[kept, :2])
    else:
        paths = listing.paths()
        store = FileStore([paths[index] for index in kept])
    return Opened(store, kept, sizes[kept], broken)


class BrokenImage(Exception):
    """Says why one image cannot be read."""


def broken_error(name: str, reason: str) -> DataError:
    """What a user is told of a broken image that may not be skipped."""
    return DataError(f"{name} is broken ({reason}): mend or remove it, or pass --skip_broken_images")


class _Scan:
    """Passes over all examples of a listing in threads, keeping account of the broken ones."""

    def __init__(self, listing: ImageIndex, skip_broken: bool, progress: bool):
        self.broken: dict[int, str] = {}
        self._listing, self._skip_broken, self._progress = listing, skip_broken, progress

    def run(self, title: str, work: Callable[[int, str | bytes], Any]) -> list[Any]:
        """Results of `work(index, item)` for every example, None for the broken ones."""
        results = []
        items = enumerate(self._listing.items())
        silent = not (self._progress and sys.stderr.isatty())
        bar = tqdm.tqdm(total=len(self._listing.names), desc=title, unit=" images", disable=silent, leave=False)
        with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            while chunk := list(itertools.islice(items, CHUNK)):
                for (index, _), (result, reason) in zip(chunk, pool.map(_guarded(work), chunk), strict=True):
                    if reason:
                        self._note(index, reason)
                    results.append(result)
                bar.update(len(chunk))
        return results

    def _note(self, index: int, reason: str) -> None:
        if not self._skip_broken:
            raise broken_error(self._listing.names[index], reason)
        self.broken[index] = reason


def _guarded(work: Callable[[int, str | bytes], Any]) -> Callable[[tuple[int, str | bytes]], tuple[Any, str | None]]:
    """`work`, returning (result, None) or (None, why the image is broken)."""

    def call(job: tuple[int, str | bytes]) -> tuple[Any, str | None]:
        try:
            return work(*job), None
        except BrokenImage as error:
            return None, str(error)

    return call


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first bytes of an encoded image say of it."""

    height: int
    width: int
    encoded_bytes: int
    palette_bmp: bool  # TensorFlow reads their palette indices as shades of grey


def read_header(item: str | bytes) -> Header:
    """Size and kind of an encoded image (path or bytes), without decoding it."""
    with _pillow(item) as image:
        encoded_bytes = len(item) if isinstance(item, bytes) else os.path.getsize(item)
        return Header(image.height, image.width, encoded_bytes, image.format == "BMP" and image.mode in ("P", "1"))


def decode_once(item: str | bytes, header: Header) -> tuple[np.ndarray, bool]:
    """Decodes with TensorFlow, so that memory and files hold the same bits, or with Pillow what TensorFlow cannot read.

    Args:
      item: path or bytes.
      header: what `read_header` said.

    Returns:
      uint8 [h, w, 3], and whether Pillow had to do it.
    """
    if not header.palette_bmp:
        try:
            encoded = tf.constant(item) if isinstance(item, bytes) else tf.io.read_file(item)
            image = decode_image(encoded).numpy()
            if image.shape == (header.height, header.width, 3):
                return image, False
        except tf.errors.OpError:
            pass  # Pillow has the last word, and the clearer reason
    with _pillow(item) as image:
        return np.asarray(image.convert("RGB")), True


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """An encoded image (JPEG, PNG, BMP, first frame of a GIF) as uint8 [h, w, 3].

    Grey becomes RGB, 16 bits become the upper 8, and an alpha channel is dropped, as TensorFlow Datasets and Pillow do.
    """
    return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])


@contextlib.contextmanager
def _pillow(item: str | bytes) -> Iterator[Image.Image]:
    """The image as Pillow opens it; whatever goes wrong with it becomes `BrokenImage`."""
    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            yield image
    except UnidentifiedImageError:
        raise BrokenImage("not an image") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise BrokenImage(first_line(error)) from None


def aligned_empty(size: int) -> np.ndarray:
    """Bytes for a `MemoryStore`: uint8 [size], not set."""
    buffer = np.empty([int(size) + ALIGNMENT], np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + int(size)]


def free_memory() -> int:
    """Bytes that this process may still take, by the machine and by its control group."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int(pathlib.Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return free
