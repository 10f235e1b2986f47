"""Image stores: decoded images in memory, or encoded images in files.

An `ImageDataset` reads from one of the two. Both give the same bytes.
"""

import contextlib
import dataclasses
import io
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
import tqdm
from PIL import Image, UnidentifiedImageError

from lts.utils.errors import UserError, first_line

ALIGNMENT = 64  # bytes; TensorFlow kernels need aligned buffers
CHUNK = 256  # encoded images in flight while a dataset is opened

ROLES = {
    "pretrain": "labels are not needed",
    "train": "training images of a probe: every image has a label",
    "test": "test images of a probe: every image has a label",
    "features": "labels are kept where they exist; -1 marks an image without a label",
}
LABELLED = ("train", "test")


class DataError(UserError):
    """Unusable dataset, split or image."""


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """Contents of a dataset before any image is decoded.

    Attributes:
      names: N names for messages and reports.
      labels: int64 [N], or None.
      class_names: names of the classes; empty without labels.
      dataset: function that returns N paths or encoded images as a `tf.data.Dataset` of strings.
      in_files: whether `dataset` holds paths.
      paths: function that returns the paths of N encoded images; it writes the files first if there are none.
    """

    names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    dataset: Callable[[], tf.data.Dataset]
    in_files: bool
    paths: Callable[[], list[str]]

    @classmethod
    def of_files(cls, paths: Sequence[str], names: Sequence[str], labels: Any = None, class_names: Sequence[str] = ()):
        """Return the index of N image files."""
        encoded = [os.fsencode(path) for path in paths]  # TensorFlow takes names that are not UTF-8 as bytes
        dataset = lambda: tf.data.Dataset.from_tensor_slices(encoded)  # noqa: E731
        return cls(tuple(names), labels, tuple(class_names), dataset, in_files=True, paths=lambda: list(paths))

    def select(self, positions: np.ndarray) -> "ImageIndex":
        """Return the index of the images at ascending positions."""
        chosen = np.zeros(len(self.names), bool)
        chosen[positions] = True

        def dataset() -> tf.data.Dataset:
            numbered = tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(chosen), self.dataset())
            return numbered.filter(lambda keep, _: keep).map(lambda _, item: item)

        def paths() -> list[str]:
            every_path = self.paths()
            return [every_path[position] for position in positions]

        names = tuple(self.names[position] for position in positions)
        labels = None if self.labels is None else self.labels[positions]
        return dataclasses.replace(self, names=names, labels=labels, dataset=dataset, paths=paths)

    def items(self) -> Iterable[str | bytes]:
        """Return the N paths or encoded images; may be called again."""
        return self.paths() if self.in_files else self.dataset().as_numpy_iterator()


class MemoryStore:
    """Decoded images in one flat tensor of bytes.

    Args:
      flat: uint8 [bytes] from `aligned_empty`; the store takes it over without a copy.
      offsets: int64 [N], where each image begins.
      shapes: int64 [N, 2], height and width of each image.
      channels: of each image; 1 for masks.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray, shapes: np.ndarray, channels: int = 3):
        self._channels = channels
        # NB: tf.constant would need three times the memory.
        self._flat = tf.experimental.dlpack.from_dlpack(flat.__dlpack__())
        with tf.device("CPU:0"):
            self._offsets = tf.constant(offsets, tf.int64)
            self._shapes = tf.constant(shapes, tf.int64)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Return image `index`, an int64 scalar, as uint8 [h, w, channels]."""
        with tf.device("CPU:0"):
            shape = tf.concat([self._shapes[index], [self._channels]], axis=0)
            offset = self._offsets[index, tf.newaxis]
            pixels = tf.slice(self._flat, offset, tf.reduce_prod(shape, keepdims=True))
            return tf.ensure_shape(tf.reshape(pixels, shape), [None, None, self._channels])


class FileStore:
    """Encoded images in files, decoded at each read."""

    def __init__(self, paths: list[str]):
        with tf.device("CPU:0"):
            self._paths = tf.constant(paths)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Return image `index`, an int64 scalar, as uint8 [h, w, 3]."""
        with tf.device("CPU:0"):
            return decode_image(tf.io.read_file(self._paths[index]))


def check_files(store: MemoryStore | FileStore, names: Sequence[str]) -> None:
    """Raise `DataError` for the first unreadable image.

    `tf.data` does not report which image a training step failed on, so every file is read again. Images in memory
    cannot fail.
    """
    if isinstance(store, FileStore):
        for number, name in enumerate(names):
            try:
                store.read(number)
            except tf.errors.OpError as error:
                raise broken_error(name, first_line(error)) from None


def array_store(images: np.ndarray) -> MemoryStore:
    """Return a store of decoded images, uint8 [N, h, w, 3]."""
    count, height, width, _ = images.shape
    flat = aligned_empty(images.size)
    flat[:] = images.reshape(-1)
    return MemoryStore(flat, np.arange(count) * height * width * 3, np.tile([height, width], (count, 1)))


@dataclasses.dataclass(frozen=True)
class Opened:
    """Result of `open_store`.

    Attributes:
      store: the n images that can be read, in the order of the index.
      kept: int64 [n], their positions in the index.
      sizes: int64 [n, 3], their height, width and encoded bytes.
      broken: reason by position of the skipped images.
    """

    store: MemoryStore | FileStore
    kept: np.ndarray
    sizes: np.ndarray
    broken: dict[int, str]


def open_store(index: ImageIndex, cache_bytes: float, skip_broken: bool, progress: bool) -> Opened:
    """Decode every image once.

    This fills the memory, and it reports broken images before training begins.

    Args:
      index: the dataset.
      cache_bytes: largest size of the decoded images in memory; a larger dataset is read from files.
      skip_broken: skip broken images instead of raising.
      progress: show a progress bar if stderr is a terminal.

    Returns:
      The store and its images.

    Raises:
      DataError: a broken image without `skip_broken`, no image left, or an image that files cannot serve.
    """
    # The sizes in the headers come first, so that the memory is allocated once.
    headers = _scan(index, "reading sizes", lambda _, item: read_header(item), skip_broken, progress)
    sizes = np.zeros([len(headers), 3], np.int64)
    for position, header in enumerate(headers):
        if isinstance(header, Header):
            sizes[position] = (header.height, header.width, header.encoded_bytes)
    lengths = sizes[:, 0] * sizes[:, 1] * 3
    offsets = np.cumsum(lengths) - lengths
    in_memory = lengths.sum() <= cache_bytes
    flat = aligned_empty(lengths.sum() if in_memory else 0)

    def decode(position: int, item: str | bytes) -> None:
        if isinstance(headers[position], BrokenImage):
            raise headers[position]
        image, by_pillow = decode_once(item, headers[position])
        if in_memory:
            flat[offsets[position] : offsets[position] + lengths[position]] = image.reshape(-1)
        elif by_pillow:
            hint = f"Convert it to PNG or JPEG, or set --cache_gb to at least {lengths.sum() / 1e9:.1f}."
            raise DataError(f"TensorFlow cannot read this kind of image. Received: {index.names[position]}. {hint}")

    results = _scan(index, "decoding", decode, skip_broken, progress)
    broken = {position: str(result) for position, result in enumerate(results) if isinstance(result, BrokenImage)}
    kept = np.array([position for position in range(len(sizes)) if position not in broken], np.int64)
    if not len(kept):
        raise DataError(f"all {len(broken)} images are broken. The first is {index.names[0]} ({broken[0]}).")
    if in_memory:
        store = MemoryStore(flat, offsets[kept], sizes[kept, :2])
    else:
        paths = index.paths()
        store = FileStore([paths[position] for position in kept])
    return Opened(store, kept, sizes[kept], broken)


class BrokenImage(Exception):
    """Image that cannot be read; the message is the reason."""


def broken_error(name: str, reason: str) -> DataError:
    """Return the error of a broken image."""
    return DataError(f"{name} is broken ({reason}). Repair or remove it, or pass --skip_broken_images.")


def _scan(
    index: ImageIndex, title: str, work: Callable[[int, str | bytes], Any], skip_broken: bool, progress: bool
) -> list[Any]:
    """Return `work(position, item)` or a `BrokenImage` for every image."""

    def guarded(job: tuple[int, str | bytes]) -> Any:
        try:
            return work(*job)
        except BrokenImage as error:
            return error

    results = []
    jobs = enumerate(index.items())
    silent = not (progress and sys.stderr.isatty())
    bar = tqdm.tqdm(total=len(index.names), desc=title, unit=" images", disable=silent, leave=False)
    # NB: `pool.map` over all images would queue every encoded image of the dataset in memory.
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(jobs, CHUNK)):
            for (position, _), result in zip(chunk, pool.map(guarded, chunk), strict=True):
                if isinstance(result, BrokenImage) and not skip_broken:
                    raise broken_error(index.names[position], str(result))
                results.append(result)
            bar.update(len(chunk))
    return results


@dataclasses.dataclass(frozen=True)
class Header:
    """Size and kind of an encoded image."""

    height: int
    width: int
    encoded_bytes: int
    palette_bmp: bool  # TensorFlow decodes their palette indices as grey levels


def read_header(item: str | bytes) -> Header:
    """Return the header of an encoded image (path or bytes)."""
    with _pillow(item) as image:
        encoded_bytes = len(item) if isinstance(item, bytes) else os.path.getsize(item)
        palette_bmp = image.format == "BMP" and image.mode in ("P", "1")
        return Header(image.height, image.width, encoded_bytes, palette_bmp)


def decode_once(item: str | bytes, header: Header) -> tuple[np.ndarray, bool]:
    """Decode an image (path or bytes) with TensorFlow or Pillow.

    TensorFlow comes first because it decodes files at each read, and JPEG bits differ between libraries. Pillow reads
    the kinds of images that TensorFlow cannot read.

    Returns:
      uint8 [h, w, 3], and whether Pillow decoded it.
    """
    if not header.palette_bmp:
        try:
            encoded = tf.constant(item) if isinstance(item, bytes) else tf.io.read_file(item)
            image = decode_image(encoded).numpy()
            if image.shape == (header.height, header.width, 3):
                return image, False
        except tf.errors.OpError:
            pass  # Pillow tries next; its reasons are clearer
    with _pillow(item) as image:
        return np.asarray(image.convert("RGB")), True


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decode JPEG, PNG, BMP or GIF to uint8 [h, w, 3].

    Grey becomes RGB, 16 bits become the upper 8, an alpha channel is dropped, and a GIF gives its first frame, as in
    TensorFlow Datasets and Pillow.
    """
    return tf.ensure_shape(tf.io.decode_image(encoded, channels=3, expand_animations=False), [None, None, 3])


@contextlib.contextmanager
def _pillow(item: str | bytes) -> Iterator[Image.Image]:
    """Open an image with Pillow; every error becomes a `BrokenImage`."""
    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            yield image
    except UnidentifiedImageError:
        raise BrokenImage("not an image") from None
    except Exception as error:  # decoders of damaged files raise nearly any type
        raise BrokenImage(first_line(error)) from None


def aligned_empty(size: int) -> np.ndarray:
    """Return uninitialised bytes for a `MemoryStore`, uint8 [size]."""
    buffer = np.empty([int(size) + ALIGNMENT], np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + int(size)]


def free_memory() -> int:
    """Return the bytes that this process may still allocate."""
    free = psutil.virtual_memory().available
    # A container's control group may allow less than the machine has.
    with contextlib.suppress(OSError, ValueError):
        group = pathlib.Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        free = min(free, limit - used)
    return free
