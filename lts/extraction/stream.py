"""`open_stream`: images that are used once, decoded as they are needed and never all in memory.

JPEG and PNG files go the fast way, inside `tf.data`. What fails there is not broken yet: it goes the way that
training's opening goes (`store.decode_once`), which has the last word. So both call the same images broken, and give
the same bits of the others.
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
from lts.data.sources import ImageDataset, fingerprint_of, list_images, open_synthetic
from lts.data.store import BrokenImage, ImageIndex, broken_error, decode_once, read_header

PREFETCH = 4  # batches that are made ahead


@dataclasses.dataclass(frozen=True)
class Views:
    """Test views of the images of one range.

    Attributes:
      stop: the range ends before this image.
      images: uint8 [n, image_size, image_size, 3], those of the range that are not broken, in order.
      broken: reason by number of the others.
    """

    stop: int
    images: np.ndarray | tf.Tensor
    broken: dict[int, str]


@dataclasses.dataclass(frozen=True)
class ImageStream:
    """Images in a fixed order, with what is known about them before any is decoded.

    Attributes:
      name: the value of `--dataset`.
      split: the split that was chosen, as tfds writes it.
      names: how reports name the N images, broken ones included; paths below the root for a folder.
      labels: int64 [N], -1 where there is none; or None.
      class_names: names of the classes; empty without labels.
      fingerprint: 16 hex digits of names, sizes of files and labels.
    """

    name: str
    split: str
    names: tuple[str, ...] = dataclasses.field(repr=False)
    labels: np.ndarray | None = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
    fingerprint: str
    _items: Callable[[], tf.data.Dataset] = dataclasses.field(repr=False)
    _decode: Callable[[tf.Tensor], tf.Tensor] = dataclasses.field(repr=False)
    _decode_slowly: Callable[[int], np.ndarray] = dataclasses.field(repr=False)

    def views(
        self, image: ImageConfig, *, batch_size: int, first: int = 0, skip_broken: bool = False
    ) -> Iterator[Views]:
        """Test views of all images in order, with the bits of `test_batches`.

        Args:
          image: size and central crop.
          batch_size: images of a range.
          first: begin at this image, without reading those before.
          skip_broken: leave broken images out.

        Yields:
          The views of [first, first + batch_size), of the next range, and so on.

        Raises:
          DataError: a broken image without `skip_broken`, when its range is due.
        """
        view = tf.function(lambda pixels: test_view(pixels, image), [tf.TensorSpec([None, None, 3], tf.uint8)])
        for start, stop, numbers, images in self._ranges(image, batch_size, first):
            missing = np.setdiff1d(np.arange(start, stop), numbers)
            if not len(missing):
                yield Views(stop, images, {})
                continue
            whole, broken = dict(zip(numbers.tolist(), images, strict=True)), {}
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for number, pixels in zip(missing.tolist(), pool.map(self._pixels, missing.tolist()), strict=True):
                    if isinstance(pixels, np.ndarray):
                        whole[number] = view(pixels).numpy()
                    elif skip_broken:
                        broken[number] = str(pixels)
                    else:
                        raise broken_error(self.names[number], str(pixels))
            images = [whole[number] for number in sorted(whole)]
            yield Views(stop, np.array(images, np.uint8).reshape(-1, image.image_size, image.image_size, 3), broken)

    def _pixels(self, number: int) -> np.ndarray | BrokenImage:
        """An image the slow way: uint8 [h, w, 3], or why it is broken."""
        try:
            return self._decode_slowly(number)
        except BrokenImage as error:
            return error

    def _ranges(
        self, image: ImageConfig, batch_size: int, first: int
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """(start, stop) of each range, with numbers and views of those of its images that went the fast way."""
        size, count = image.image_size, len(self.names)
        batches = self._fast_views(image, batch_size, first).as_numpy_iterator()
        numbers, images = np.empty([0], np.int64), np.empty([0, size, size, 3], np.uint8)
        for start in range(first, count, batch_size):
            stop = min(start + batch_size, count)
            while not len(numbers) or numbers[-1] < stop - 1:
                batch = next(batches, None)
                if batch is None:
                    break
                numbers, images = (
                    new if not len(old) else np.concatenate([old, new])
                    for old, new in zip((numbers, images), batch, strict=True)
                )
            inside = np.searchsorted(numbers, stop)
            yield start, stop, numbers[:inside], images[:inside]
            numbers, images = numbers[inside:], images[inside:]

    def _fast_views(self, image: ImageConfig, batch_size: int, first: int) -> tf.data.Dataset:
        """Batches of (number, view) of the images that TensorFlow decodes in `tf.data`, in order."""

        def view(number: tf.Tensor, item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return number, test_view(self._decode(item), image)

        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(first, len(self.names)), self._items().skip(first))
        views = numbered.map(view, num_parallel_calls=os.cpu_count(), deterministic=True).ignore_errors()
        return views.batch(batch_size).prefetch(PREFETCH)


def open_stream(dataset: str, split: str | None = None, *, data_dir: str | None = None) -> ImageStream:
    """Opens a set of images without reading one.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: which images, as tfds writes it; None: all.
      data_dir: where TensorFlow Datasets keeps its sets; None: its own default.

    Returns:
      The stream.

    Raises:
      DataError: no such dataset or split.

    Example:
      >>> stream = open_stream("synthetic", "test[:4]")
      >>> next(stream.views(ImageConfig(), batch_size=3)).images.shape
      (3, 96, 96, 3)
    """
    if dataset == "synthetic":
        return _synthetic_stream(open_synthetic(split, "features"))
    listing, split = list_images(dataset, split, "features", data_dir)
    sizes = np.array([_file_size(path) for path in listing.items()] if listing.in_files else [], np.int64)
    return ImageStream(
        name=dataset,
        split=split,
        names=listing.names,
        labels=listing.labels,
        class_names=listing.class_names,
        fingerprint=fingerprint_of(listing.names, sizes, listing.labels),
        _items=listing.dataset,
        _decode=(lambda path: _decode(tf.io.read_file(path))) if listing.in_files else _decode,
        _decode_slowly=lambda number: _decode_slowly(listing, number),
    )


def _file_size(path: str) -> int:
    """Bytes of a file; -1 if it cannot be opened, which is reported when it is read."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _synthetic_stream(source: ImageDataset) -> ImageStream:
    """The synthetic set, which is in memory as it is small."""
    names = tuple(f"synthetic {source.split}[{index}]" for index in range(source.num_examples))
    return ImageStream(
        name=source.name,
        split=source.split,
        names=names,
        labels=source.labels,
        class_names=source.class_names,
        fingerprint=source.fingerprint,
        _items=lambda: tf.data.Dataset.range(source.num_examples),
        _decode=source.read,
        _decode_slowly=lambda number: source.read(number).numpy(),
    )


def _decode(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG and PNG as `decode_image` does them; it fails on BMP, whose palettes TensorFlow cannot read, and films."""
    return tf.ensure_shape(tf.io.decode_jpeg(encoded, channels=3), [None, None, 3])


def _decode_slowly(listing: ImageIndex, number: int) -> np.ndarray:
    """Image `number` as training's opening decodes it: uint8 [h, w, 3].

    Raises:
      BrokenImage: says why.
    """
    items = listing.items()
    item = items[number] if isinstance(items, list) else next(itertools.islice(items, number, None))
    return decode_once(item, read_header(item))[0]
