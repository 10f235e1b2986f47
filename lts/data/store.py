"""Image stores: decoded images in memory, or encoded images in files.

An `ImageDataset` reads from one of the two. Both give the same bytes.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
import tqdm

from lts.data.decoding import (
    BrokenImage,
    Header,
    decode_image,
    decode_in_graph,
    decode_once,
    read_bytes,
    read_header,
)
from lts.utils.errors import UserError

ALIGNMENT = 64  # bytes; TensorFlow kernels need aligned buffers
CHUNK = 256  # encoded images in flight while a dataset is opened
MEMORY_FILES = (  # of control groups, versions 2 and 1: limit, used bytes, lines of memory.stat that can be given back
    ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)

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
    """Encoded images in files, decoded at each read.

    Args:
      paths: the N files.
      by_pillow: bool [N], which of them Pillow decodes, see `decode_once`; None: no file.
    """

    def __init__(self, paths: Sequence[str], by_pillow: np.ndarray | None = None):
        self.paths = tuple(paths)
        with tf.device("CPU:0"):
            self._paths = tf.constant([os.fsencode(path) for path in paths])
            # Without such files, the graph stays free of Python.
            self._by_pillow = tf.constant(by_pillow) if by_pillow is not None and by_pillow.any() else None

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Return image `index`, an int64 scalar, as uint8 [h, w, 3]."""
        with tf.device("CPU:0"):
            encoded = tf.io.read_file(self._paths[index])
            if self._by_pillow is None:
                return decode_image(encoded)
            return decode_in_graph(encoded, self._by_pillow[index])


def check_files(store: MemoryStore | FileStore, names: Sequence[str]) -> None:
    """Raise `DataError` for the first unreadable image.

    `tf.data` does not report which image a training step failed on, so every file is read again. Images in memory
    cannot fail.
    """
    if isinstance(store, FileStore):
        for path, name in zip(store.paths, names, strict=True):
            try:
                decode_once(path, read_header(path))
            except BrokenImage as error:
                raise broken_error(name, str(error)) from None


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
      sizes: int64 [n, 4], their height, width, encoded bytes and checksum.
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
      DataError: a broken image without `skip_broken`, or no image left.
    """
    # The sizes in the headers come first, so that the memory is allocated once.
    headers = scan(index, "reading sizes", lambda _, item: read_header(item), skip_broken, progress)
    sizes = np.zeros([len(headers), 4], np.int64)
    for position, header in enumerate(headers):
        if isinstance(header, Header):
            sizes[position, :3] = (header.height, header.width, header.encoded_bytes)
    by_pillow = np.zeros([len(headers)], bool)
    lengths = sizes[:, 0] * sizes[:, 1] * 3
    offsets = np.cumsum(lengths) - lengths
    in_memory = lengths.sum() <= cache_bytes
    flat = aligned_empty(lengths.sum() if in_memory else 0)

    def decode(position: int, item: str | bytes) -> None:
        if isinstance(headers[position], BrokenImage):
            raise headers[position]
        encoded = read_bytes(item)
        sizes[position, 3] = checksum(encoded)
        image, by_pillow[position] = decode_once(encoded, headers[position])
        if in_memory:
            flat[offsets[position] : offsets[position] + lengths[position]] = image.reshape(-1)

    results = scan(index, "decoding", decode, skip_broken, progress)
    broken = {position: str(result) for position, result in enumerate(results) if isinstance(result, BrokenImage)}
    kept = np.array([position for position in range(len(sizes)) if position not in broken], np.int64)
    if not len(kept):
        raise DataError(f"all {len(broken)} images are broken. The first is {index.names[0]} ({broken[0]}).")
    if in_memory:
        store = MemoryStore(flat, offsets[kept], sizes[kept, :2])
    else:
        paths = index.paths()
        store = FileStore([paths[position] for position in kept], by_pillow[kept])
    return Opened(store, kept, sizes[kept], broken)


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


def aligned_empty(size: int) -> np.ndarray:
    """Return uninitialised bytes for a `MemoryStore`, uint8 [size]."""
    buffer = np.empty([int(size) + ALIGNMENT], np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + int(size)]


def free_memory() -> int:
    """Return the bytes that this process may still allocate."""
    free = psutil.virtual_memory().available
    # A container's control group, or one above it, may allow less than the machine has.
    for group in _control_groups():
        for names in MEMORY_FILES:
            with contextlib.suppress(OSError, ValueError):
                free = min(free, _free_in_group(group, *names))
    return free


def _control_groups() -> Iterator[pathlib.Path]:
    """Yield the folders of this process's control groups."""
    groups = [pathlib.PurePath("/")]
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # Version 2 has one group without controllers.
            if not controllers or "memory" in controllers.split(","):
                groups += [pathlib.PurePath(path), *pathlib.PurePath(path).parents]
    for path in dict.fromkeys(groups):
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
            yield pathlib.Path(mount + str(path))


def _free_in_group(group: pathlib.Path, limit: str, used: str, reclaimable: Sequence[str]) -> int:
    """Return the bytes that a control group may still allocate."""
    free = int((group / limit).read_text()) - int((group / used).read_text())
    for line in (group / "memory.stat").read_text().splitlines():
        name, value = line.split()
        # The page cache counts as used, but the kernel gives it back.
        if name in reclaimable:
            free += int(value)
    return free
