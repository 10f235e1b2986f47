"""Image stores: decoded images in memory, or images in files.

An `ImageDataset` reads from one of the two. Both give the same bytes.

Photographs that are larger than training needs are shrunk once, when they are opened. What does not fit into memory is
read from the cache on disk (`lts.data.cache`).
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from lts.data.cache import ImageCache, default_folder, open_cache
from lts.data.decoding import (
    SHRUNK,
    STORED,
    TENSORFLOW,
    BrokenImage,
    Header,
    decode_in_graph,
    decode_once,
    decode_shrunk,
    read_bytes,
    read_header,
)
from lts.utils.errors import UserError
from lts.utils.progress import Progress

ALIGNMENT = 64  # bytes; TensorFlow kernels need aligned buffers
CHUNK = 256  # encoded images in flight while a dataset is opened

ROLES = {
    "pretrain": "labels are kept where they exist; -1 marks an image without a label",
    "train": "training images of a probe: every image has a label",
    "test": "test images of a probe: every image has a label",
    "tuning": "part of the training images, to train on while a choice is tuned: every image has a label",
    "validation": "the other training images, to tune a choice on: every image has a label",
    "features": "labels are kept where they exist; -1 marks an image without a label",
}
LABELLED = ("train", "test", "tuning", "validation")


class DataError(UserError):
    """Unusable dataset, split or image."""


def require_labels(labels: np.ndarray | None) -> np.ndarray:
    """Return the labels of images that must have some; `DataError` if they have none."""
    if labels is None:
        raise DataError("the images have no labels. Received: labels=None. Choose a split with labels.")
    return labels


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
      unlisted: reason by name of the folders and links that could not be followed; their images are missing.
      other_files: number of files of other kinds by extension.
    """

    names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    dataset: Callable[[], tf.data.Dataset]
    in_files: bool
    paths: Callable[[], list[str]]
    unlisted: Mapping[str, str] = dataclasses.field(default_factory=dict)
    other_files: Mapping[str, int] = dataclasses.field(default_factory=dict)

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
            kept = numbered.filter(lambda keep, _: keep)  # pyright: ignore[reportArgumentType]
            return kept.map(lambda _, item: item)

        def paths() -> list[str]:
            every_path = self.paths()
            return [every_path[position] for position in positions]

        names = tuple(self.names[position] for position in positions)
        labels = None if self.labels is None else self.labels[positions]
        return dataclasses.replace(self, names=names, labels=labels, dataset=dataset, paths=paths)

    def items(self) -> Iterable[Any]:
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
    """Images in files, read at each use.

    Args:
      paths: the N files.
      ways: int [N], how each is read, see `decode_in_graph`; None: TensorFlow decodes all.
      shapes: int64 [N, 2], height and width of the images; None where none is SHRUNK or STORED.
    """

    def __init__(self, paths: Sequence[str], ways: np.ndarray | None = None, shapes: np.ndarray | None = None):
        self.paths = tuple(paths)
        self.ways = np.full([len(paths)], TENSORFLOW) if ways is None else ways
        self._kinds = np.unique(self.ways).tolist()
        with tf.device("CPU:0"):
            self._paths = tf.constant([os.fsencode(path) for path in paths])
            self._ways = tf.constant(self.ways, tf.int32)
            self._shapes = tf.constant(np.zeros([len(paths), 2]) if shapes is None else shapes, tf.int64)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Return image `index`, an int64 scalar, as uint8 [h, w, 3]."""
        with tf.device("CPU:0"):
            content = tf.io.read_file(self._paths[index])
            return decode_in_graph(content, self._ways[index], self._shapes[index], self._kinds)


def check_files(store: MemoryStore | FileStore, names: Sequence[str]) -> None:
    """Raise `DataError` for the first unreadable image.

    `tf.data` does not report which image a training step failed on, so every file is read again. Images in memory
    cannot fail.
    """
    if isinstance(store, FileStore):
        for path, way, name in zip(store.paths, store.ways, names, strict=True):
            if way == STORED:
                _check_stored(path, name)
                continue
            try:
                decode_once(path, read_header(path))
            except BrokenImage as error:
                raise broken_error(name, str(error)) from None


def _check_stored(path: str, name: str) -> None:
    """Raise `DataError` if an image of the cache is missing."""
    try:
        read_bytes(path)
    except BrokenImage as error:
        raise DataError(
            f"the shrunk copy of {name} in the cache cannot be read ({error}). Received: {path}. Run the same command "
            "again, which writes it anew."
        ) from None


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
      sizes: int64 [n, 4], their height, width, encoded bytes and checksum, before they are shrunk.
      broken: reason by position of the skipped images.
      shrunk: number of images that were shrunk.
      cache: folder of the cache that holds shrunk images; None: not used.
    """

    store: MemoryStore | FileStore
    kept: np.ndarray
    sizes: np.ndarray
    broken: dict[int, str]
    shrunk: int = 0
    cache: pathlib.Path | None = None


class _Images:
    """Images of an index while they are decoded.

    Args:
      headers: of the N images; a `BrokenImage` is the reason why there is none.
      stored_size: see `open_store`.
    """

    def __init__(self, headers: Sequence[Header | BrokenImage], stored_size: int):
        self.headers = headers
        self.sizes = np.zeros([len(headers), 4], np.int64)
        self.shapes = np.zeros([len(headers), 2], np.int64)
        for position, header in enumerate(headers):
            if isinstance(header, Header):
                self.sizes[position, :3] = (header.height, header.width, header.encoded_bytes)
                self.shapes[position] = header.stored_shape(stored_size)
        self.is_shrunk = (self.shapes != self.sizes[:, :2]).any(axis=1)
        self.ways = np.full([len(headers)], TENSORFLOW)
        self.cached: dict[int, str] = {}  # file in the cache by position
        self.lengths = self.shapes.prod(axis=1) * 3  # bytes
        self.offsets = np.cumsum(self.lengths) - self.lengths

    def decode(self, position: int, item: str | bytes, cache: ImageCache | None) -> np.ndarray:
        """Return an image, uint8 [h, w, 3]; record how it can be read again.

        Raises:
          BrokenImage: it cannot be read.
        """
        header = self.headers[position]
        if isinstance(header, BrokenImage):
            raise header
        encoded = read_bytes(item)
        self.sizes[position, 3] = checksum(encoded)
        if not self.is_shrunk[position]:
            image, by_pillow = decode_once(encoded, header)
            self.ways[position] = int(by_pillow)
            return image
        shape = tuple(self.shapes[position].tolist())
        self.ways[position] = SHRUNK
        if cache is None:
            return decode_shrunk(encoded, header, shape)
        path = cache.path(encoded)
        cached_image = cache.read(path, shape)
        image = decode_shrunk(encoded, header, shape) if cached_image is None else cached_image
        is_cached = cached_image is not None or cache.write(path, image)
        if is_cached:
            self.ways[position] = STORED
            self.cached[position] = str(path)
        return image

    def file_store(self, index: ImageIndex, kept: np.ndarray) -> FileStore:
        """Return the store of the images that were kept."""
        paths = dict(self.cached)
        if any(position not in paths for position in kept.tolist()):
            for position, path in enumerate(index.paths()):
                paths.setdefault(position, path)
        return FileStore([paths[position] for position in kept.tolist()], self.ways[kept], self.shapes[kept])


def open_store(
    index: ImageIndex,
    cache_bytes: float,
    skip_broken: bool,
    progress: bool,
    stored_size: int = 0,
    cache_dir: str | os.PathLike | None = None,
) -> Opened:
    """Decode every image once.

    This fills the memory and the cache on disk, and it reports broken images before training begins.

    Args:
      index: the dataset.
      cache_bytes: largest size of the decoded images in memory; a larger dataset is read from files.
      skip_broken: skip broken images instead of raising.
      progress: show progress.
      stored_size: larger images are shrunk to this shorter side in pixels; 0: none is shrunk.
      cache_dir: folder that keeps shrunk images on disk. None: `lts.data.cache.default_folder` if they do not fit into
        memory, otherwise none.

    Returns:
      The store and its images.

    Raises:
      DataError: a broken image without `skip_broken`, or no image left.
    """
    # The sizes in the headers come first, so that the memory is allocated once.
    headers = scan(index, "reading sizes", lambda _, item: read_header(item), skip_broken, progress)
    images = _Images(headers, stored_size)
    in_memory = images.lengths.sum() <= cache_bytes
    flat = aligned_empty(images.lengths.sum() if in_memory else 0)
    folder = None
    if images.is_shrunk.any():
        folder = cache_dir or (None if in_memory else default_folder())

    with open_cache(folder, stored_size) as cache:

        def decode(position: int, item: str | bytes) -> None:
            image = images.decode(position, item, cache)
            if in_memory:
                offset = images.offsets[position]
                flat[offset : offset + images.lengths[position]] = image.reshape(-1)

        results = scan(index, "decoding", decode, skip_broken, progress)
    broken = {position: str(result) for position, result in enumerate(results) if isinstance(result, BrokenImage)}
    kept = np.array([position for position in range(len(results)) if position not in broken], np.int64)
    if not len(kept):
        raise DataError(f"all {len(broken)} images are broken. The first is {index.names[0]} ({broken[0]}).")
    if in_memory:
        store = MemoryStore(flat, images.offsets[kept], images.shapes[kept])
    else:
        store = images.file_store(index, kept)
    used = cache.folder if cache and images.cached else None
    return Opened(store, kept, images.sizes[kept], broken, int(images.is_shrunk[kept].sum()), used)


def checksum(encoded: bytes) -> int:
    """Return a checksum of an encoded image."""
    # It tells changed files from unchanged ones and takes 1 % of the time of decoding a JPEG; SHA-256 takes 5 %.
    return zlib.crc32(encoded)


def broken_error(name: str, reason: str) -> DataError:
    """Return the error of a broken image."""
    return DataError(f"{name} is broken ({reason}). Repair or remove it, or pass --skip_broken_images.")


def scan(
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
    bar = Progress(title, len(index.names), summary=False) if progress else None
    # NB: `pool.map` over all images would queue every encoded image of the dataset in memory.
    with bar or contextlib.nullcontext(), ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(jobs, CHUNK)):
            for (position, _), result in zip(chunk, pool.map(guarded, chunk), strict=True):
                if isinstance(result, BrokenImage) and not skip_broken:
                    raise broken_error(index.names[position], str(result))
                results.append(result)
                if bar:
                    bar.advance(1)
    return results


def aligned_empty(size: int) -> np.ndarray:
    """Return uninitialised bytes for a `MemoryStore`, uint8 [size]."""
    buffer = np.empty([int(size) + ALIGNMENT], np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + int(size)]
