"""Image streams: images used once, in order.

Images are decoded when they are needed and never all in memory. JPEG and PNG files are decoded inside `tf.data`. An
image that fails there is decoded again by `store.decode_once`, as `open_source` decodes it. Training and extraction
therefore skip the same broken images and decode the others to the same values.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from lts.config import ImageConfig
from lts.data.pipeline import test_view
from lts.data.sources import fingerprint_of, list_images, open_synthetic
from lts.data.store import BrokenImage, ImageIndex, broken_error, decode_once, read_header

PREFETCH = 4  # batches


@dataclasses.dataclass(frozen=True)
class Views:
    """Test views of a range of images."""

    stop: int  # number of the first image after the range
    images: np.ndarray | tf.Tensor  # uint8 [n, image_size, image_size, 3], without broken ones
    broken: dict[int, str]  # number to reason


@dataclasses.dataclass(frozen=True)
class ImageStream:
    """Images in a fixed order."""

    name: str  # the value of --dataset
    split: str  # resolved, as tfds writes it
    names: tuple[str, ...] = dataclasses.field(repr=False)  # broken images included; relative paths in a folder
    labels: np.ndarray | None = dataclasses.field(repr=False)  # int64 [N], -1: none; or None
    class_names: tuple[str, ...]  # empty without labels
    fingerprint: str  # 16 hex digits of names, file sizes and labels
    _items: Callable[[], tf.data.Dataset] = dataclasses.field(repr=False)
    _decode: Callable[[tf.Tensor], tf.Tensor] = dataclasses.field(repr=False)
    _decode_slowly: Callable[[int], np.ndarray] = dataclasses.field(repr=False)

    def views(
        self, image: ImageConfig, *, batch_size: int, first: int = 0, skip_broken: bool = False
    ) -> Iterator[Views]:
        """Yield all test views, bit-identical to `test_batches`.

        Args:
          image: size and central crop.
          batch_size: images per range.
          first: number of images to skip without reading them.
          skip_broken: skip broken images instead of raising.

        Yields:
          The views of [first, first + batch_size), of the next range, and so on.

        Raises:
          DataError: a broken image without `skip_broken`, when its range is reached.
        """
        view = tf.function(lambda pixels: test_view(pixels, image), [tf.TensorSpec([None, None, 3], tf.uint8)])
        for start, stop, numbers, images in self._ranges(image, batch_size, first):
            missing = np.setdiff1d(np.arange(start, stop), numbers).tolist()
            if not missing:
                yield Views(stop, images, {})
                continue
            # Decode the images that `tf.data` dropped, and merge them in order.
            by_number = dict(zip(numbers.tolist(), images, strict=True))
            broken = {}
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for number, pixels in zip(missing, pool.map(self._pixels, missing), strict=True):
                    if isinstance(pixels, np.ndarray):
                        by_number[number] = view(pixels).numpy()
                    elif skip_broken:
                        broken[number] = str(pixels)
                    else:
                        raise broken_error(self.names[number], str(pixels))
            merged = np.array([by_number[number] for number in sorted(by_number)], np.uint8)
            yield Views(stop, merged.reshape(-1, image.image_size, image.image_size, 3), broken)

    def _pixels(self, number: int) -> np.ndarray | BrokenImage:
        """Return pixels [h, w, 3] or the error."""
        try:
            return self._decode_slowly(number)
        except BrokenImage as error:
            return error

    def _ranges(
        self, image: ImageConfig, batch_size: int, first: int
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Yield start, stop, numbers, views of each range."""
        # A broken image is in no batch, so its number is missing.
        batches = self._fast_views(image, batch_size, first).as_numpy_iterator()
        numbers = np.empty([0], np.int64)
        images = np.empty([0, image.image_size, image.image_size, 3], np.uint8)
        for start in range(first, len(self.names), batch_size):
            stop = min(start + batch_size, len(self.names))
            # Dropped images make the batches run ahead of the ranges: collect until the range is covered.
            while not len(numbers) or numbers[-1] < stop - 1:
                batch = next(batches, None)
                if batch is None:
                    break
                # NB: without leftovers the batch is passed on as it is; copying every batch costs time.
                numbers = np.concatenate([numbers, batch[0]]) if len(numbers) else batch[0]
                images = np.concatenate([images, batch[1]]) if len(images) else batch[1]
            inside = np.searchsorted(numbers, stop)
            yield start, stop, numbers[:inside], images[:inside]
            numbers = numbers[inside:]
            images = images[inside:]

    def _fast_views(self, image: ImageConfig, batch_size: int, first: int) -> tf.data.Dataset:
        """Return batches of (number, view) in order."""

        # Complete images are decoded: `decode_and_crop_jpeg` takes 142 microseconds per image instead of 103, and it
        # would accept a file whose last rows are missing. Compiling the view with XLA would change its bits.
        def view(number: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return number, test_view(self._decode(item), image)

        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(first, len(self.names)), self._items().skip(first))
        # `ignore_errors` drops images; their numbers show which ones.
        views = numbered.map(view, num_parallel_calls=os.cpu_count(), deterministic=True).ignore_errors()
        return views.batch(batch_size).prefetch(PREFETCH)


def open_stream(dataset: str, split: str | None = None, *, data_dir: str | None = None) -> ImageStream:
    """Open a dataset as a stream.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: as tfds writes it; None: all images.
      data_dir: folder of the prepared tfds sets; None: the default of tfds.

    Returns:
      The stream; no image is decoded yet.

    Raises:
      DataError: no such dataset or split.

    Example:
      >>> stream = open_stream("synthetic", "test[:4]")
      >>> next(stream.views(ImageConfig(), batch_size=3)).images.shape
      (3, 96, 96, 3)
    """
    if dataset == "synthetic":
        return _synthetic_stream(split)
    # File sizes make the fingerprint sensitive to changed images without decoding them.
    index, split = list_images(dataset, split, "features", data_dir)
    sizes = [_file_size(path) for path in index.items()] if index.in_files else []
    # A tfds set holds encoded images, a folder holds paths.
    return ImageStream(
        name=dataset,
        split=split,
        names=index.names,
        labels=index.labels,
        class_names=index.class_names,
        fingerprint=fingerprint_of(index.names, np.array(sizes, np.int64), index.labels),
        _items=index.dataset,
        _decode=(lambda path: _decode(tf.io.read_file(path))) if index.in_files else _decode,
        _decode_slowly=lambda number: _decode_slowly(index, number),
    )


def _file_size(path: str) -> int:
    """Return a file's size in bytes, or -1."""
    # The error of a file that cannot be opened is reported when its image is read.
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _synthetic_stream(split: str | None) -> ImageStream:
    """Return the synthetic set, held in memory."""
    images = open_synthetic(split, "features")
    return ImageStream(
        name=images.name,
        split=images.split,
        names=tuple(f"synthetic {images.split}[{index}]" for index in range(images.num_examples)),
        labels=images.labels,
        class_names=images.class_names,
        fingerprint=images.fingerprint,
        _items=lambda: tf.data.Dataset.range(images.num_examples),
        _decode=images.read,
        _decode_slowly=lambda number: images.read(number).numpy(),
    )


def _decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode JPEG and PNG."""
    # NB: `decode_jpeg` fails on BMP files, whose palettes TensorFlow cannot read, and on animations, as it must.
    return tf.ensure_shape(tf.io.decode_jpeg(encoded, channels=3), [None, None, 3])


def _decode_slowly(index: ImageIndex, number: int) -> np.ndarray:
    """Decode an image as `open_source` does."""
    items = index.items()
    item = items[number] if isinstance(items, list) else next(itertools.islice(items, number, None))
    return decode_once(item, read_header(item))[0]
