"""A VOC set whose images can be read by number inside `tf.data`: decoded in memory, or from files."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc.data.dataset import VocSet, open_voc
from lts.data.sources import fingerprint_of
from lts.data.store import FileStore, ImageIndex, MemoryStore, aligned_empty, check_files, free_memory, open_store


@dataclasses.dataclass(frozen=True)
class Images:
    """A VOC set with its pixels.

    Attributes:
      set: what is known of the images; every one of them can be decoded.
      store: where their pixels are.
    """

    set: VocSet
    store: MemoryStore | FileStore = dataclasses.field(repr=False)

    def read(self, index: tf.Tensor | int) -> tf.Tensor:
        """Image number `index`, an int64 scalar in [0, N): uint8 [h, w, 3]. Works inside `tf.data` maps."""
        return self.store.read(tf.convert_to_tensor(index, tf.int64))

    def check_files(self) -> None:
        """Reads every image again where they are read from files: `tf.data` does not say which one it failed on.

        Raises:
          DataError: the first that cannot be read.
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
    """Opens a split of a VOC set and decodes every image once.

    Args:
      dataset, split, task, skip_broken_images, progress: as for `open_voc`.
      cache_gb: decoded images are kept in memory up to this many gigabytes (10**9 bytes), and decoded from files at
        each use beyond; None: half of the free memory.
      **options: `class_names` and `data_dir` of `open_voc`.

    Returns:
      The images; `set.broken` names those that were left out.

    Raises:
      DataError: as `open_voc` raises it, and an image that cannot be decoded.
    """
    opened = open_voc(dataset, split, task, skip_broken_images=skip_broken_images, progress=progress, **options)
    index = ImageIndex.of_files(opened.paths, opened.paths)
    cache_bytes = free_memory() / 2 if cache_gb is None else cache_gb * 1e9
    found = open_store(index, cache_bytes, skip_broken_images, progress)
    kept = _without_broken(opened, found.kept, found.broken)
    if found.broken and progress:
        reasons = (kept.broken[opened.ids[index]] for index in sorted(found.broken))
        print(f"left out {len(found.broken)} images that cannot be decoded: {'; '.join(reasons)}", flush=True)
    return Images(kept, found.store)


def _without_broken(opened: VocSet, kept: np.ndarray, broken: dict[int, str]) -> VocSet:
    """The set of the images `kept`; `broken` says by number why the others are not."""
    if not broken:
        return opened

    def chosen(values):
        return None if values is None else tuple(values[index] for index in kept)

    ids = chosen(opened.ids)
    reasons = {opened.ids[index]: f"{opened.paths[index]}: {reason}" for index, reason in broken.items()}
    return dataclasses.replace(
        opened,
        ids=ids,
        paths=chosen(opened.paths),
        sizes=opened.sizes[kept],
        objects=chosen(opened.objects),
        masks=chosen(opened.masks),
        broken=opened.broken | reasons,
        fingerprint=fingerprint_of((opened.fingerprint, *ids), opened.sizes[kept], None),
    )


def open_masks(opened: VocSet) -> MemoryStore:
    """All masks of a set in memory, a byte a pixel: uint8 [h, w, 1] each.

    Always in memory, because TensorFlow cannot read the indices of a palette: VOC 2012's train and val are 0.5 GB.

    Raises:
      DataError: a mask that cannot be read any more.
    """
    lengths = opened.sizes.prod(axis=1)
    offsets = np.cumsum(lengths) - lengths
    flat = aligned_empty(lengths.sum())

    def read(index: int) -> None:
        flat[offsets[index] : offsets[index] + lengths[index]] = opened.read_mask(index).reshape(-1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read, range(opened.num_examples)))
    return MemoryStore(flat, offsets, opened.sizes, channels=1)
