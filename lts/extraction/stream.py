"""Image streams: images used once, in order.

Images are decoded when they are needed and never all in memory. They are decoded inside `tf.data`. An image that fails
there is decoded again by `lts.data.decoding`, as `open_source` decodes it. Training and extraction therefore skip
the same broken images and decode the others to the same values.

Opening a stream reads every file once, without decoding it: the headers say how to decode it, and the checksums enter
the fingerprint.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from lts.config import ImageConfig
from lts.data.decoding import (
    PILLOW,
    SHRUNK,
    TENSORFLOW,
    BrokenImage,
    Header,
    decode_in_graph,
    decode_once,
    decode_shrunk,
    read_bytes,
    read_header,
)
from lts.data.pipeline import test_view
from lts.data.sources import fingerprint_of, list_images, open_synthetic
from lts.data.store import ImageIndex, broken_error, checksum, scan

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
    fingerprint: str  # see `ImageDataset.fingerprint`
    stored_size: int  # shorter side in pixels to which larger images are shrunk; 0: none is larger
    unlisted: Mapping[str, str]  # reason by name of skipped folders
    other_files: Mapping[str, int]  # number of files that are not read, by extension
    _readable: np.ndarray = dataclasses.field(repr=False)  # bool [N], False for a header that cannot be read
    _items: Callable[[], tf.data.Dataset] = dataclasses.field(repr=False)
    _decode: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = dataclasses.field(repr=False)  # of number and item
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
            return number, test_view(self._decode(number, item), image)

        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(first, len(self.names)), self._items().skip(first))
        # TensorFlow might accept a header that was refused, and it would wait for a named pipe.
        readable = tf.constant(self._readable)
        numbered = numbered.filter(lambda number, _: readable[number])
        # `ignore_errors` drops images; their numbers show which ones.
        views = numbered.map(view, num_parallel_calls=os.cpu_count(), deterministic=True).ignore_errors()
        return views.batch(batch_size).prefetch(PREFETCH)


def open_stream(
    dataset: str,
    split: str | None = None,
    *,
    data_dir: str | None = None,
    skip_broken_images: bool = False,
    stored_size: int = 0,
    progress: bool = False,
) -> ImageStream:
    """Open a dataset as a stream.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: as tfds writes it; None: all images.
      data_dir: folder of the prepared tfds sets; None: the default of tfds.
      skip_broken_images: skip folders that cannot be listed instead of raising.
      stored_size: larger images are shrunk to this shorter side in pixels, as by `open_source`; 0: none.
      progress: show progress.

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
    index, split = list_images(dataset, split, "features", data_dir, skip_broken_images)

    headers, sizes = _inspect(index, progress)
    shapes = np.array([header.stored_shape(stored_size) if header else (0, 0) for header in headers], np.int64)
    is_shrunk = (shapes != sizes[:, :2]).any(axis=1)
    by_pillow = np.array([header is not None and header.by_pillow for header in headers])
    way_of_number = np.select([is_shrunk, by_pillow], [SHRUNK, PILLOW], TENSORFLOW)
    ways = tf.constant(way_of_number, tf.int32)
    kinds = np.unique(way_of_number).tolist()
    stored_shapes = tf.constant(shapes)
    stored_size = stored_size if is_shrunk.any() else 0

    # A tfds set holds encoded images, a folder holds paths.
    def decode(number: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        encoded = tf.io.read_file(item) if index.in_files else item
        return decode_in_graph(encoded, ways[number], stored_shapes[number], kinds)

    return ImageStream(
        name=dataset,
        split=split,
        names=index.names,
        labels=index.labels,
        class_names=index.class_names,
        fingerprint=fingerprint_of(index.names, sizes, index.labels, stored_size),
        stored_size=stored_size,
        unlisted=index.unlisted,
        other_files=index.other_files,
        _readable=np.array([header is not None for header in headers]),
        _items=index.dataset,
        _decode=decode,
        _decode_slowly=lambda number: _decode_slowly(index, number, stored_size),
    )


def _inspect(index: ImageIndex, progress: bool) -> tuple[list[Header | None], np.ndarray]:
    """Read every file.

    Returns:
      N headers, None for a broken image.
      int64 [N, 4], their height, width, encoded bytes and checksum; 0 for a broken image.
    """

    def inspect(_, item: str | bytes) -> tuple[Header, int]:
        encoded = read_bytes(item)
        return read_header(encoded), checksum(encoded)

    # The error of a broken image is reported when its range is reached.
    results = scan(index, "reading files", inspect, skip_broken=True, progress=progress)
    sizes = np.zeros([len(results), 4], np.int64)
    headers = []
    for number, result in enumerate(results):
        if isinstance(result, BrokenImage):
            headers.append(None)
            continue
        header, contents = result
        headers.append(header)
        sizes[number] = (header.height, header.width, header.encoded_bytes, contents)
    return headers, sizes


def _synthetic_stream(split: str | None) -> ImageStream:
    """Return the synthetic set, held in memory."""
    images = open_synthetic(split, "features")
    return ImageStream(
        name=images.name,
        split=images.split,
        names=images.names,
        labels=images.labels,
        class_names=images.class_names,
        fingerprint=images.fingerprint,
        stored_size=0,
        unlisted={},
        other_files={},
        _readable=np.ones([images.num_examples], bool),
        _items=lambda: tf.data.Dataset.range(images.num_examples),
        _decode=lambda number, _: images.read(number),
        _decode_slowly=lambda number: images.read(number).numpy(),
    )


def _decode_slowly(index: ImageIndex, number: int, stored_size: int) -> np.ndarray:
    """Decode an image as `open_source` does."""
    items = index.items()
    item = items[number] if isinstance(items, list) else next(itertools.islice(items, number, None))
    header = read_header(item)
    shape = header.stored_shape(stored_size)
    if shape != (header.height, header.width):
        return decode_shrunk(item, header, shape)
    return decode_once(item, header)[0]
