"""`open_source`: where images come from, by the value of `--dataset`."""

import dataclasses
import hashlib
import time

import numpy as np
import tensorflow as tf

from lts.data.folder import list_folder
from lts.data.splits import resolve
from lts.data.store import (
    LABELLED,
    PURPOSES,
    DataError,
    FileStore,
    ImageIndex,
    MemoryStore,
    Opened,
    array_store,
    broken_error,
    free_memory,
    open_store,
)
from lts.data.synthetic import CLASS_NAMES, SPLITS, VERSION, render
from lts.data.tfds_set import list_tfds
from lts.utils.errors import first_line


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """Images that can be read by their number, with what is known about them.

    Attributes:
      name: the value of `--dataset`.
      split: the split that was chosen, as tfds writes it.
      store: where the images are.
      labels: int64 [N], or None.
      class_names: names of the classes; empty without labels.
      names: how reports name the N images; paths below the root for a folder, empty for the synthetic set.
      broken: names of the images that were skipped.
      fingerprint: 16 hex digits of names, sizes and labels; another one means that the data changed.
    """

    name: str
    split: str
    store: MemoryStore | FileStore = dataclasses.field(repr=False)
    num_examples: int
    labels: np.ndarray | None = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
    names: tuple[str, ...] = dataclasses.field(repr=False)
    broken: tuple[str, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Image number `index`, an int64 scalar in [0, N): uint8 [h, w, 3]. Works inside `tf.data` maps."""
        return self.store.read(tf.convert_to_tensor(index, tf.int64))

    def check_files(self) -> None:
        """Reads every image again where they are read from files: `tf.data` does not say which one it failed on.

        Raises:
          DataError: the first that cannot be read.
        """
        if isinstance(self.store, FileStore):
            for number, name in enumerate(self.names):
                try:
                    self.read(number)
                except tf.errors.OpError as error:
                    raise broken_error(name, first_line(error)) from None


def open_source(
    dataset: str,
    split: str | None = None,
    *,
    role: str = "pretrain",
    data_dir: str | None = None,
    skip_broken_images: bool = False,
    cache_gb: float | None = None,
    progress: bool = True,
) -> ImageDataset:
    """Opens a set of images and decodes every image once.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: which images, as tfds writes it ("unlabelled+train", "train[:80%]", "all"); None: what the role needs.
      role: see `lts.data.store.PURPOSES`.
      data_dir: where TensorFlow Datasets keeps its sets; None: its own default.
      skip_broken_images: leave broken images out instead of stopping at the first.
      cache_gb: decoded images are kept in memory up to this many gigabytes (10**9 bytes), and decoded from files at
        each use beyond; None: half of the free memory.
      progress: say what is going on.

    Returns:
      The source.

    Raises:
      DataError: anything that is wrong with the data or the way they were asked for, in one line.

    Example:
      >>> source = open_source("synthetic", "test[:4]", progress=False)
      >>> source.read(0).shape
      TensorShape([64, 64, 3])
    """
    if role not in PURPOSES:
        raise DataError(f"role must be {' | '.join(PURPOSES)}. Received: role={role!r}")
    start = time.monotonic()
    if dataset == "synthetic":
        source = open_synthetic(split, role)
    else:
        listing, split = list_images(dataset, split, role, data_dir)
        cache_bytes = free_memory() / 2 if cache_gb is None else cache_gb * 1e9
        source = _listed(dataset, split, listing, open_store(listing, cache_bytes, skip_broken_images, progress))
    if progress:
        place = "memory" if isinstance(source.store, MemoryStore) else "files"
        print(
            f"{dataset}, split {source.split}: {source.num_examples} images, {source.num_classes} classes, read from "
            f"{place}, opened in {time.monotonic() - start:.1f} s",
            flush=True,
        )
        if source.broken:
            print(f"skipped {len(source.broken)} broken images: {', '.join(source.broken)}", flush=True)
    return source


def _listed(dataset: str, split: str, listing: ImageIndex, opened: Opened) -> ImageDataset:
    """The source of a listing that was opened."""
    labels = None if listing.labels is None else listing.labels[opened.kept]
    names = tuple(listing.names[index] for index in opened.kept)
    return ImageDataset(
        name=dataset,
        split=split,
        store=opened.store,
        num_examples=len(opened.kept),
        labels=labels,
        class_names=listing.class_names,
        names=names,
        broken=tuple(listing.names[index] for index in sorted(opened.broken)),
        fingerprint=fingerprint_of(names, opened.sizes, labels),
    )


def list_images(dataset: str, split: str | None, role: str, data_dir: str | None) -> tuple[ImageIndex, str]:
    """What a folder or a set of tfds holds, before anything is decoded, and the split that was chosen.

    Raises:
      DataError: no such dataset or split, or no labels where the role needs them.
    """
    kind, _, rest = dataset.partition(":")
    if kind == "folder" and rest:
        return list_folder(rest, split, role)
    if kind == "tfds" and rest:
        return list_tfds(rest, split, role, data_dir)
    raise DataError(f"dataset must be synthetic, tfds:NAME or folder:PATH. Received: dataset={dataset!r}")


def open_synthetic(split: str | None, role: str) -> ImageDataset:
    """The procedural set of the project, drawn afresh each time."""
    split = split or {"pretrain": "unlabelled", "features": "all"}.get(role, role)
    pieces = resolve(split, SPLITS, "synthetic")
    if role in LABELLED and any(name == "unlabelled" for name, _, _ in pieces):
        raise DataError(f"synthetic has no labels for split {split!r}")
    drawn = [render(name, range(start, stop)) for name, start, stop in pieces]
    images, labels = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
    if labels.max() < 0 or (labels.min() < 0 and role != "features"):
        labels = None
    return ImageDataset(
        name="synthetic",
        split=split,
        store=array_store(images),
        num_examples=len(images),
        labels=labels,
        class_names=() if labels is None else CLASS_NAMES,
        names=(),
        broken=(),
        fingerprint=fingerprint_of((VERSION, str(pieces)), np.array(images.shape), labels),
    )


def fingerprint_of(names: tuple[str, ...], sizes: np.ndarray, labels: np.ndarray | None) -> str:
    """16 hex digits that change when the data do."""
    parts = [
        "\n".join(names).encode(errors="surrogateescape"),
        sizes.tobytes(),
        b"" if labels is None else labels.tobytes(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
