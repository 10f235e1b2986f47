"""VOC sets with pixels, readable by index in `tf.data`."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc.data.dataset import VocSet, open_voc
from lts.data.sources import fingerprint_of
from lts.data.store import FileStore, ImageIndex, MemoryStore, aligned_empty, check_files, open_store
from lts.utils.memory import free_memory
from lts.utils.text import printable


@dataclasses.dataclass(frozen=True)
class Images:
    """A VOC set with its pixels.

    Attributes:
      set: annotations of the images; every image can be decoded.
      store: decoded images in memory, or files.
    """

    set: VocSet
    store: MemoryStore | FileStore = dataclasses.field(repr=False)

    def read(self, index: tf.Tensor | int) -> tf.Tensor:
        """Return image `index` in [0, N), uint8 [h, w, 3]; works in `tf.data` maps."""
        return self.store.read(tf.convert_to_tensor(index, tf.int64))

    def check_files(self) -> None:
        """Read every image again if the images are read from files.

        `tf.data` does not report on which file it failed.

        Raises:
          DataError: the first image that cannot be read.
        """
        check_files(self.store, self.set.paths)


def open_images(
    dataset: str,
    split: str,
    task: str,
    *,
    skip_broken_images: bool = False,
    cache_gb: float | None = None,
    progress: bool = True,
    **options: Any,
) -> Images:
    """Open a split of a VOC set and decode every image once.

    Args:
      dataset: as for `open_voc`.
      split: as for `open_voc`.
      task: as for `open_voc`.
      skip_broken_images: as for `open_voc`.
      cache_gb: gigabytes (10**9 bytes) up to which decoded images are kept in memory; larger sets are decoded from
        files at each use. None: half of the free memory.
      progress: as for `open_voc`.
      **options: `class_names` and `data_dir` of `open_voc`.

    Returns:
      The images; `set.broken` lists the skipped ones.

    Raises:
      DataError: as for `open_voc`, or an image cannot be decoded.
    """
    voc_set = open_voc(dataset, split, task, skip_broken_images=skip_broken_images, progress=progress, **options)
    index = ImageIndex.of_files(voc_set.paths, voc_set.paths)
    cache_bytes = free_memory() / 2 if cache_gb is None else cache_gb * 1e9
    opened = open_store(index, cache_bytes, skip_broken_images, progress)
    intact = _without_broken(voc_set, opened.kept, opened.broken)
    if opened.broken and progress:
        reasons = [intact.broken[voc_set.ids[index]] for index in sorted(opened.broken)]
        print(printable(f"skipped {len(reasons)} images that cannot be decoded: {'; '.join(reasons)}"), flush=True)
    return Images(intact, opened.store)


def _without_broken(voc_set: VocSet, kept: np.ndarray, broken: dict[int, str]) -> VocSet:
    """Return the set of the images `kept`; `broken` has the reasons for the others by index."""
    if not broken:
        return voc_set

    def select(values):
        return None if values is None else tuple(values[index] for index in kept)

    ids = select(voc_set.ids)
    reasons = {voc_set.ids[index]: f"{voc_set.paths[index]}: {reason}" for index, reason in broken.items()}
    return dataclasses.replace(
        voc_set,
        ids=ids,
        paths=select(voc_set.paths),
        sizes=voc_set.sizes[kept],
        objects=select(voc_set.objects),
        masks=select(voc_set.masks),
        broken=voc_set.broken | reasons,
        fingerprint=fingerprint_of((voc_set.fingerprint, *ids), voc_set.sizes[kept], None),
    )


def open_masks(voc_set: VocSet) -> MemoryStore:
    """Read all masks of a set into memory, uint8 [h, w, 1] each.

    TensorFlow cannot read the indices of a palette from files. The masks of VOC 2012's train and val take 0.5 GB.

    Raises:
      DataError: a mask cannot be read.
    """
    lengths = voc_set.sizes.prod(axis=1)
    offsets = np.cumsum(lengths) - lengths
    flat = aligned_empty(lengths.sum())

    def read(index: int) -> None:
        flat[offsets[index] : offsets[index] + lengths[index]] = voc_set.read_mask(index).reshape(-1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, range(voc_set.num_examples)))
    return MemoryStore(flat, offsets, voc_set.sizes, channels=1)
