"""VOC data sets for one task.

`open_voc` checks every file and returns plain arrays. Boxes are those of `experiments.voc.data.records`.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from experiments.voc.data.devkit import IGNORED, LISTS, list_devkit, read_mask
from experiments.voc.data.records import BrokenFile, Record, VocListing
from experiments.voc.data.tfds import list_tfds_voc
from lts.data.decoding import BrokenImage, decode_once, read_header
from lts.data.sources import fingerprint_of
from lts.data.store import DataError
from lts.utils.errors import first_line
from lts.utils.files import check_regular
from lts.utils.progress import Progress
from lts.utils.text import printable

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
PRINTED_CLASSES = 30  # the summary prints class names up to this number
SPARE_THREADS = 2  # threads in addition to the cores, because threads wait for files


@dataclasses.dataclass(frozen=True)
class Objects:
    """Annotated objects of one image.

    Attributes:
      boxes: float32 [n, 4], (ymin, xmin, ymax, xmax) in pixels, from 0, half-open; within the image, with an area.
      labels: int64 [n], indices of the set's `class_names`.
      difficult: bool [n]; evaluations ignore these.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclasses.dataclass(frozen=True)
class VocSet:
    """Images of one split with the annotations of a task.

    Attributes:
      name: value of --dataset.
      split: the requested split.
      task: "classification" | "detection" | "segmentation".
      class_names: names of the C classes; the background is a class of masks only.
      ids: ids of the N images, in the order of the split.
      paths: the N image files.
      sizes: int64 [N, 2], (height, width).
      objects: objects of the N images; None for segmentation.
      masks: the N mask files; None for the other tasks.
      broken: file and reason of every skipped image, by id.
      fingerprint: 16 hex digits of ids, sizes, classes, boxes or masks; it changes with the data.
    """

    name: str
    split: str
    task: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...] = dataclasses.field(repr=False)
    paths: tuple[str, ...] = dataclasses.field(repr=False)
    sizes: np.ndarray = dataclasses.field(repr=False)
    objects: tuple[Objects, ...] | None = dataclasses.field(repr=False)
    masks: tuple[str, ...] | None = dataclasses.field(repr=False)
    broken: dict[str, str] = dataclasses.field(repr=False)
    fingerprint: str

    @property
    def num_examples(self) -> int:
        """Number of images."""
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def read_image(self, index: int) -> np.ndarray:
        """Return an image, uint8 [height, width, 3], upright.

        Raises:
          DataError: the image cannot be decoded.
        """
        path = self.paths[index]
        try:
            image, _ = decode_once(path, read_header(path))
        except BrokenImage as error:
            raise _unusable(BrokenFile(path, str(error))) from None
        return image

    def read_mask(self, index: int) -> np.ndarray:
        """Return the labels of an image, uint8 [height, width] in [0, C), or 255 for no class.

        Raises:
          DataError: the mask cannot be decoded.
        """
        try:
            return read_mask(self.masks[index])
        except BrokenFile as error:
            raise _unusable(error) from None

    def image_labels(self) -> np.ndarray:
        """Return the image labels of the classification task.

        Returns:
          int8 [N, C]: 1 with an object of the class that is not difficult, -1 with difficult ones only (ignored in
          losses and evaluations), 0 otherwise.
        """
        labels = np.zeros([self.num_examples, self.num_classes], np.int8)
        for row, objects in zip(labels, self.objects, strict=True):
            row[objects.labels] = -1
            row[objects.labels[~objects.difficult]] = 1
        return labels


def open_voc(
    dataset: str,
    split: str,
    task: str,
    *,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
    skip_broken_images: bool = False,
    progress: bool = True,
) -> VocSet:
    """Open a split of a VOC data set and check every file.

    Masks are decoded, images are not.

    Args:
      dataset: "folder:PATH" (layout: `devkit.list_devkit`) | "tfds:voc/2007" | "tfds:voc/2012".
      split: "train" | "val" | "trainval" | "test", other lists of the folder, sums and slices: "train+val[:50]".
      task: "classification" | "detection" | "segmentation".
      class_names: the classes, for example those of the training split when a test split is opened. None: those that
        tfds declares, or the sorted names in the annotations; for masks the numbers 0 to the largest label.
      data_dir: folder of TensorFlow Datasets; None: its default.
      skip_broken_images: skip images with a broken file instead of raising at the first.
      progress: print a progress bar and a summary.

    Returns:
      The set.

    Raises:
      DataError: an invalid argument, or broken data. Broken are: a file that is missing or unreadable, a box outside
        the image or without area, an object without name or corners, a mask of another size or mode, an unknown class.

    Example:
      >>> train = open_voc("folder:VOCdevkit/VOC2007", "trainval", "detection")
      >>> test = open_voc("folder:VOCdevkit/VOC2007", "test", "detection", class_names=train.class_names)
    """
    kind, _, rest = dataset.partition(":")
    if task not in LISTS:
        raise DataError(f"task must be {' | '.join(LISTS)}. Received: task={task!r}")
    if kind not in ("folder", "tfds") or not rest:
        raise DataError(f"dataset must be folder:PATH or tfds:voc/YEAR. Received: dataset={dataset!r}")
    listing = list_devkit(rest, split, task) if kind == "folder" else list_tfds_voc(rest, split, task, data_dir)
    declared = class_names or listing.class_names
    records = _read_all(listing, f"reading {dataset}, split {split}", progress)
    records = _checked_classes(records, declared, skip_broken_images)
    broken = {name: str(record) for name, record in records.items() if isinstance(record, BrokenFile)}
    intact = {name: record for name, record in records.items() if name not in broken}
    if not intact:
        first = next(iter(broken.values()))
        raise DataError(f"{dataset}, split {split!r}: all {len(broken)} images are broken; {first}")
    names = tuple(declared or _classes_of(intact.values()))
    voc_set = _as_set(dataset, split, task, names, intact, broken)
    if progress:
        print(printable(_summary(voc_set)), flush=True)
        if broken:
            print(printable(f"skipped {len(broken)} broken images: {'; '.join(broken.values())}"), flush=True)
    return voc_set


def read_class_names(name: str, masks: bool = False) -> tuple[str, ...]:
    """Return the class names of a file.

    Args:
      name: "voc" for VOC's 20 classes, or a text file with one name per line, for masks label 0 first.
      masks: whether the names are for masks, where VOC's label 0 is the background.

    Raises:
      DataError: no such file, an empty line, or a repeated name.
    """
    if name == "voc":
        return ("background", *VOC_CLASSES) if masks else VOC_CLASSES
    try:
        check_regular(name)
        text = pathlib.Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} must be 'voc' or a text file of class names ({first_line(error)})") from None
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or "" in names or len(set(names)) < len(names):
        raise DataError(f"{name} must hold one class name per line, none empty and none repeated")
    return names


def _unusable(error: BrokenFile) -> DataError:
    return DataError(f"{error}. Repair the file, or pass --skip_broken_images")


def _read_all(listing: VocListing, title: str, progress: bool) -> dict[str, Record | BrokenFile]:
    """Return the record of every image by id, or why there is none."""

    def read(index: int) -> Record | BrokenFile:
        try:
            return listing.read(index)
        except BrokenFile as error:
            return error

    count = len(listing.ids)
    records = {}
    with (
        ThreadPoolExecutor((os.cpu_count() or 1) + SPARE_THREADS) as pool,
        Progress(title, count) if progress else contextlib.nullcontext() as bar,
    ):
        for name, record in zip(listing.ids, pool.map(read, range(count)), strict=True):
            records[name] = record
            if bar:
                bar.advance(1)
    return records


def _checked_classes(
    records: dict[str, Record | BrokenFile], class_names: Sequence[str] | None, skip_broken: bool
) -> dict[str, Record | BrokenFile]:
    """Replace records with an unknown class by the reason.

    Raises:
      DataError: the first broken record, unless `skip_broken`.
    """
    checked = {}
    for name, record in records.items():
        if class_names is not None and isinstance(record, Record):
            unknown = [repr(label) for label in record.class_names if label not in class_names]
            if record.mask and record.mask_labels[0] >= len(class_names):
                unknown = [f"label {record.mask_labels[0]}"]
            if unknown:
                known = ", ".join(class_names)
                record = BrokenFile(record.source, f"{unknown[0]} is none of the {len(class_names)} classes, {known}")
        if isinstance(record, BrokenFile) and not skip_broken:
            raise _unusable(record)
        checked[name] = record
    return checked


def _classes_of(records: Sequence[Record]) -> list[str]:
    """Return the sorted class names of the annotations; for masks 0 to the largest label."""
    names = set()
    largest = -1
    for record in records:
        names.update(record.class_names)
        if record.mask:
            largest = max(largest, int(record.mask_labels[0]))
    return sorted(names) or [str(label) for label in range(largest + 1)]


def _as_set(
    dataset: str,
    split: str,
    task: str,
    class_names: tuple[str, ...],
    records: dict[str, Record],
    broken: dict[str, str],
) -> VocSet:
    """Return the set of these records."""
    if not class_names:
        raise DataError(f"{dataset}, split {split!r}: no mask has a label but {IGNORED}, no annotation an object")
    ids = tuple(records)
    sizes = np.array([record.size for record in records.values()], np.int64)
    objects = None
    masks = None
    if task == "segmentation":
        masks = tuple(record.mask for record in records.values())
        content = np.stack([record.mask_labels for record in records.values()])
    else:
        label_of = {name: label for label, name in enumerate(class_names)}
        objects = []
        rows = []
        for index, record in enumerate(records.values()):
            labels = np.array([label_of[name] for name in record.class_names], np.int64)
            objects.append(Objects(record.boxes, labels, record.difficult))
            rows.append(np.column_stack([np.full(len(labels), index), record.boxes, labels, record.difficult]))
        objects = tuple(objects)
        content = np.concatenate(rows)
        if not len(content):
            raise DataError(
                f"{dataset}, split {split!r}: no image has an annotated object (the test split of VOC 2012 has none)"
            )
    return VocSet(
        name=dataset,
        split=split,
        task=task,
        class_names=class_names,
        ids=ids,
        paths=tuple(record.path for record in records.values()),
        sizes=sizes[:, :2],
        objects=objects,
        masks=masks,
        broken=broken,
        fingerprint=fingerprint_of((*ids, "", *class_names), sizes, content),
    )


def _summary(voc_set: VocSet) -> str:
    """Return one line on the content of a set."""
    text = f"{voc_set.name}, split {voc_set.split}: {voc_set.num_examples} images, {voc_set.num_classes} classes"
    if voc_set.num_classes <= PRINTED_CLASSES:
        text += f" ({', '.join(voc_set.class_names)})"
    if voc_set.objects is not None:
        count = sum(len(objects.labels) for objects in voc_set.objects)
        difficult = sum(int(objects.difficult.sum()) for objects in voc_set.objects)
        text += f", {count} objects ({difficult} difficult)"
    return text
