"""Image datasets by the value of `--dataset`."""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from lts.data.folder import list_folder
from lts.data.held_out import HELD_OUT, default_split
from lts.data.labels import share_of_labels
from lts.data.splits import resolve
from lts.data.store import (
    LABELLED,
    ROLES,
    DataError,
    FileStore,
    ImageIndex,
    MemoryStore,
    Opened,
    array_store,
    check_files,
    open_store,
    require_labels,
)
from lts.data.synthetic import CLASS_NAMES, SPLITS, VERSION, render
from lts.data.tfds_set import list_tfds
from lts.utils.memory import free_memory
from lts.utils.outputs import is_inside
from lts.utils.progress import terminal_note
from lts.utils.text import printable

MAX_KINDS = 8  # extensions in a message
SYNTHETIC_SPLITS = {"pretrain": "unlabelled", "features": "all"}  # by role; labelled ones take `default_split`


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """Images with random access.

    Attributes:
      name: the value of `--dataset`.
      split: the resolved split, as tfds writes it.
      store: the images.
      num_examples: number N of images.
      labels: int64 [N], -1 for an image without a label; or None.
      class_names: names of the classes; empty without labels.
      names: N names for reports: relative paths in a folder; empty for the synthetic set.
      broken: names of the images and folders that were skipped.
      fingerprint: 16 hex digits of names, sizes, contents and labels; they change when the data change.
      other_files: number of files of other kinds in a folder, by extension.
      shorter_sides: int64 [N], in pixels, before images are shrunk; None: not known.
      stored_size: shorter side in pixels to which larger images were shrunk; 0: none is larger.
      place: absolute path of the folder, or of tfds' data sets; None if `name` holds it or none was given.
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
    other_files: Mapping[str, int] = dataclasses.field(default_factory=dict, repr=False)
    place: str | None = None
    shorter_sides: np.ndarray | None = dataclasses.field(default=None, repr=False)
    stored_size: int = 0

    @property
    def labelled(self) -> np.ndarray:
        """Positions of the images with a label, int64."""
        return np.flatnonzero(self.labels >= 0) if self.labels is not None else np.zeros(0, np.int64)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.class_names)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """Return image `index` as uint8 [h, w, 3]; works inside `tf.data` maps."""
        return self.store.read(tf.convert_to_tensor(index, tf.int64))

    def check_files(self) -> None:
        """Raise `DataError` for the first unreadable image."""
        check_files(self.store, self.names)


def open_source(
    dataset: str,
    split: str | None = None,
    *,
    role: str = "pretrain",
    data_dir: str | None = None,
    skip_broken_images: bool = False,
    cache_gb: float | None = None,
    stored_size: int = 0,
    cache_dir: str | None = None,
    limit: int | None = None,
    labels_share: float = 1.0,
    progress: bool = True,
) -> ImageDataset:
    """Open a dataset and decode every image once.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: as tfds writes it, for example "unlabelled+train", "train[:80%]", "all"; None: the default of the role.
        Without a test split a fifth of each class is held out for the role "test" (`lts.data.held_out`).
      role: see `lts.data.store.ROLES`.
      data_dir: folder of the prepared tfds sets; None: the default of tfds.
      skip_broken_images: skip broken images instead of raising.
      cache_gb: largest size of the decoded images in memory, in units of 10**9 bytes. Larger datasets are read from
        files at each use. None: half of the free memory.
      stored_size: larger images are shrunk to this shorter side in pixels; 0: none. `ImageConfig.stored_size` is the
        size from which a training loses nothing.
      cache_dir: folder that keeps shrunk images on disk. None: that of the user's cache if they do not fit into
        memory, otherwise none.
      limit: number of images to take from the beginning; None: all.
      labels_share: share of the images of each class to open, at least one; only for labelled roles. The choice is that
        of `lts.data.labels`.
      progress: print progress.

    Returns:
      The dataset.

    Raises:
      DataError: anything that is wrong with the dataset or its images.

    Example:
      >>> dataset = open_source("synthetic", "test[:4]", progress=False)
      >>> dataset.read(0).shape
      TensorShape([64, 64, 3])
    """
    if role not in ROLES:
        raise DataError(f"unknown role. Received: role={role!r}. Choose from {', '.join(ROLES)}.")
    start = time.monotonic()
    if dataset == "synthetic":
        with terminal_note("drawing the synthetic images") if progress else contextlib.nullcontext():
            images = open_synthetic(split, role, limit, labels_share)
    else:
        index, split = list_images(dataset, split, role, data_dir, skip_broken_images)
        if labels_share < 1:
            index = index.select(
                np.flatnonzero(share_of_labels(require_labels(index.labels), index.names, labels_share) >= 0)
            )
            split = _describe_share(split, labels_share)
        if limit is not None and limit < len(index.names):
            index = index.select(np.arange(limit))
        cache_bytes = free_memory() / 2 if cache_gb is None else cache_gb * 1e9
        _check_cache_dir(cache_dir, dataset)
        opened = open_store(index, cache_bytes, skip_broken_images, progress, stored_size, cache_dir)
        images = _describe(dataset, split, index, opened, role, stored_size)
        images = dataclasses.replace(images, place=_place(dataset, data_dir))
        if progress and images.stored_size:
            print(_describe_shrinking(opened, stored_size), flush=True)
    if progress:
        place = "memory" if isinstance(images.store, MemoryStore) else "files"
        labelled = len(images.labelled)
        some = f" ({labelled} with a label)" if 0 < labelled < images.num_examples else ""
        print(
            f"{printable(dataset)}, split {images.split}: {images.num_examples} images{some}, "
            f"{images.num_classes} classes, "
            f"read from {place}, opened in {time.monotonic() - start:.1f} s",
            flush=True,
        )
        if images.split.endswith(HELD_OUT):
            print(f"{dataset} has no test split, so a fifth of each class is held out for the {role}", flush=True)
        if images.other_files:
            print(describe_other_files(images.other_files), flush=True)
        if images.broken:
            print(f"skipped {len(images.broken)} broken images: {', '.join(map(printable, images.broken))}", flush=True)
    return images


def _describe(dataset: str, split: str, index: ImageIndex, opened: Opened, role: str, stored_size: int) -> ImageDataset:
    """Return the dataset of an index whose images were opened."""
    stored_size = stored_size if opened.shrunk else 0
    labels = None if index.labels is None else index.labels[opened.kept]
    names = tuple(index.names[position] for position in opened.kept)
    # Pre-training reads single labels only where a task needs them, and records them itself (`lts.training.train`).
    unread = role == "pretrain" and labels is not None and labels.min() < 0
    return ImageDataset(
        name=dataset,
        split=split,
        store=opened.store,
        num_examples=len(opened.kept),
        labels=labels,
        class_names=index.class_names,
        names=names,
        broken=(*index.unlisted, *(index.names[position] for position in sorted(opened.broken))),
        fingerprint=fingerprint_of(names, opened.sizes, None if unread else labels, stored_size),
        shorter_sides=opened.sizes[:, :2].min(axis=1),
        stored_size=stored_size,
        other_files=index.other_files,
    )


def _check_cache_dir(cache_dir: str | None, dataset: str) -> None:
    """Refuse a cache that is a file, or inside the folder of the images."""
    if cache_dir is None:
        return
    cache = os.path.realpath(cache_dir)
    if os.path.exists(cache) and not os.path.isdir(cache):
        raise DataError(f"cache_dir is a file, not a folder. Received: cache_dir={cache_dir}. Give another folder.")
    if is_inside(cache_dir, dataset):
        raise DataError(
            f"cache_dir is inside the folder of the images. Received: cache_dir={cache_dir}, dataset={dataset}. "
            "Give a folder outside of it."
        )


def _describe_shrinking(opened: Opened, stored_size: int) -> str:
    """Return one line on the images that were shrunk."""
    text = f"{opened.shrunk} images are shrunk to a shorter side of {stored_size} pixels (--stored_size=0: never)"
    return text + (f", kept in {printable(str(opened.cache))}" if opened.cache else "")


def _place(dataset: str, data_dir: str | None) -> str | None:
    """Return `ImageDataset.place`."""
    kind, _, rest = dataset.partition(":")
    if kind == "folder":
        return None if os.path.abspath(rest) == rest else os.path.abspath(rest)
    return data_dir and os.path.abspath(data_dir)


def list_images(
    dataset: str, split: str | None, role: str, data_dir: str | None, skip_broken: bool
) -> tuple[ImageIndex, str]:
    """Return the index of a dataset, and the resolved split.

    The arguments are those of `open_source`.

    Raises:
      DataError: no such dataset or split, or no labels where the role needs them.
    """
    kind, _, rest = dataset.partition(":")
    if kind == "folder" and rest:
        return list_folder(rest, split, role, skip_broken)
    if kind == "tfds" and rest:
        return list_tfds(rest, split, role, data_dir)
    hint = f" Give --dataset=folder:{dataset}." if os.path.isdir(dataset) else ""
    raise DataError(f"dataset must be synthetic, tfds:NAME or folder:PATH. Received: dataset={dataset!r}.{hint}")


def open_synthetic(split: str | None, role: str, limit: int | None = None, labels_share: float = 1.0) -> ImageDataset:
    """Return the synthetic set, rendered into memory."""
    if not split:
        split = default_split(role, SPLITS)[0] if role in LABELLED else SYNTHETIC_SPLITS[role]
    pieces = resolve(split, SPLITS, "synthetic")
    if limit is not None:
        pieces = _first_examples(pieces, limit)
    if role in LABELLED and any(name == "unlabelled" for name, _, _ in pieces):
        raise DataError(f"synthetic has no labels for this split. Received: split={split!r}. Give a labelled one.")
    rendered = [render(name, range(start, stop)) for name, start, stop in pieces]
    images = np.concatenate([piece_images for piece_images, _ in rendered])
    names = []
    for name, start, stop in pieces:
        names += [f"synthetic {name}[{index}]" for index in range(start, stop)]
    labels = np.concatenate([piece_labels for _, piece_labels in rendered])
    if labels.max() < 0:
        labels = None
    if labels_share < 1:
        labels = require_labels(labels)
        kept = np.flatnonzero(share_of_labels(labels, names, labels_share) >= 0)
        images, labels, names = images[kept], labels[kept], [names[position] for position in kept]
        split = _describe_share(split, labels_share)
        pieces = [*pieces, labels_share]
    unread = role == "pretrain" and labels is not None and labels.min() < 0
    return ImageDataset(
        name="synthetic",
        split=split,
        store=array_store(images),
        num_examples=len(images),
        labels=labels,
        class_names=() if labels is None else CLASS_NAMES,
        names=tuple(names),
        broken=(),
        fingerprint=fingerprint_of((VERSION, str(pieces)), np.array(images.shape), None if unread else labels),
    )


def _first_examples(pieces: list[tuple[str, int, int]], limit: int) -> list[tuple[str, int, int]]:
    """Return the first examples of the ranges of `resolve`."""
    taken = []
    for name, start, stop in pieces:
        stop = min(stop, start + limit)
        if start < stop:
            taken.append((name, start, stop))
        limit -= stop - start
    return taken


def _describe_share(split: str, share: float) -> str:
    """Return a split that holds a share of its images."""
    return f"{split}, {100 * share:g} % of each class"


def fingerprint_of(names: tuple[str, ...], sizes: np.ndarray, labels: np.ndarray | None, stored_size: int = 0) -> str:
    """Return 16 hex digits that change when the data change.

    Args:
      names: of the images.
      sizes: int64 [N, ...], their sizes and checksums.
      labels: int64 [N], or None.
      stored_size: shorter side in pixels to which larger images were shrunk; 0: none was.
    """
    name_bytes = "\n".join(names).encode(errors="surrogateescape")
    label_bytes = b"" if labels is None else labels.tobytes()
    parts = [name_bytes, sizes.tobytes(), label_bytes]
    if stored_size:
        parts.append(str(stored_size).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def describe_other_files(counts: Mapping[str, int]) -> str:
    """Return one line on files that are not read.

    Example:
      >>> describe_other_files({".heic": 4, ".txt": 1})
      '5 files of other kinds are not read: .heic 4, .txt 1'
    """
    # The most frequent kinds first.
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    shown = [f"{kind} {counts[kind]}" for kind in kinds[:MAX_KINDS]]
    if len(kinds) > MAX_KINDS:
        shown.append("...")
    return f"{sum(counts.values())} files of other kinds are not read: {', '.join(shown)}"
