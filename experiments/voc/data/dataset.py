"""`open_voc`: a VOC data set for one task, checked and in plain arrays. Boxes: see `experiments.voc.data.records`."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from experiments.voc.data.devkit import IGNORED, LISTS, list_devkit, read_mask
from experiments.voc.data.records import BrokenFile, Found, Record
from experiments.voc.data.tfds import list_tfds_voc
from lts.data.sources import fingerprint_of
from lts.data.store import DataError
from lts.utils.errors import first_line
from lts.utils.progress import Progress

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
SHOWN_CLASSES = 30  # most whose names stand in the line that says what was opened
SPARE = 2  # threads beyond the cores: they wait for files


@dataclasses.dataclass(frozen=True)
class Objects:
    """The n annotated objects of one image.

    Attributes:
      boxes: float32 [n, 4], (ymin, xmin, ymax, xmax) in pixels, from 0, half-open; within the image, with an area.
      labels: int64 [n], places in the set's `class_names`.
      difficult: bool [n]; evaluations count these neither as found nor as missed.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclasses.dataclass(frozen=True)
class VocSet:
    """Images of one split with what a task needs to know of them.

    Attributes:
      name: the value of --dataset.
      split: as it was asked for.
      task: "classification" | "detection" | "segmentation".
      class_names: of the C classes. No class is the background unless a set of masks has one as a class.
      ids: of the N images, in the order of the split.
      paths: the N image files.
      sizes: int64 [N, 2], (height, width).
      objects: of the N images; None for segmentation.
      masks: the N mask files; None for the other tasks.
      broken: for the images that were left out, by id: the file and why.
      fingerprint: 16 hex digits of ids, sizes, classes, boxes or masks; another one means that the data changed.
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
        """Image number `index` in [0, N): uint8 [height, width, 3].

        Raises:
          DataError: it cannot be decoded.
        """
        try:
            with Image.open(self.paths[index]) as image:
                return np.array(image.convert("RGB"))
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise _unusable(BrokenFile(self.paths[index], first_line(error))) from None

    def read_mask(self, index: int) -> np.ndarray:
        """Labels of image number `index`: uint8 [height, width], in [0, C) or 255, which belongs to no class.

        Raises:
          DataError: it cannot be decoded.
        """
        try:
            return read_mask(self.masks[index])
        except BrokenFile as error:
            raise _unusable(error) from None

    def image_labels(self) -> np.ndarray:
        """What each image shows, by VOC's rule of the classification task.

        Returns:
          int8 [N, C]: 1 for an object of the class that is not difficult, -1 for difficult ones alone, which count
          neither in losses nor in evaluations, else 0.
        """
        labels = np.zeros([self.num_examples, self.num_classes], np.int8)
        for row, found in zip(labels, self.objects, strict=True):
            row[found.labels] = -1
            row[found.labels[~found.difficult]] = 1
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
    """Opens a split of a VOC data set and checks every file of it; images are not decoded, masks are.

    Args:
      dataset: "folder:PATH" (`devkit.list_devkit` says how it is laid out) | "tfds:voc/2007" | "tfds:voc/2012".
      split: "train" | "val" | "trainval" | "test", other lists of the folder, sums and slices: "train+val[:50]".
      task: "classification" | "detection" | "segmentation".
      class_names: the classes, for instance those of the training split when the test split is opened; None: those
        that tfds declares or the split's annotations name, sorted; of masks 0 to the greatest label, named by number.
      data_dir: where TensorFlow Datasets keeps its sets; None: its own default.
      skip_broken_images: leave out images with a broken file instead of stopping at the first.
      progress: say what is going on.

    Returns:
      The set.

    Raises:
      DataError: anything that is wrong with the data or the way they were asked for, in one line. For one image that
        is: a file that is missing or cannot be read, a box outside the image or without area, an object without name
        or corners, a mask of another size or mode than it should have, an unknown class.

    Example:
      >>> train = open_voc("folder:VOCdevkit/VOC2007", "trainval", "detection")
      >>> test = open_voc("folder:VOCdevkit/VOC2007", "test", "detection", class_names=train.class_names)
    """
    kind, _, rest = dataset.partition(":")
    if task not in LISTS:
        raise DataError(f"task must be {' | '.join(LISTS)}. Received: task={task!r}")
    if kind not in ("folder", "tfds") or not rest:
        raise DataError(f"dataset must be folder:PATH or tfds:voc/YEAR. Received: dataset={dataset!r}")
    found = list_devkit(rest, split, task) if kind == "folder" else list_tfds_voc(rest, split, task, data_dir)
    records = _read_all(found, f"reading {dataset}, split {split}", progress)
    records = _checked_classes(records, class_names or found.class_names, skip_broken_images)
    broken = {name: str(record) for name, record in records.items() if isinstance(record, BrokenFile)}
    kept = {name: record for name, record in records.items() if name not in broken}
    if not kept:
        raise DataError(
            f"{dataset}, split {split!r}: all {len(broken)} images are broken; {next(iter(broken.values()))}"
        )
    names = tuple(class_names or found.class_names or _classes_of(kept.values()))
    opened = _as_set(dataset, split, task, names, kept, broken)
    if progress:
        print(_summary(opened), flush=True)
        if broken:
            print(f"left out {len(broken)} broken images: {'; '.join(broken.values())}", flush=True)
    return opened


def read_class_names(name: str, masks: bool = False) -> tuple[str, ...]:
    """Names of the classes.

    Args:
      name: "voc" for VOC's own 20; or a text file with one name a line, of masks label 0 first.
      masks: the labels of masks are meant, VOC's 0 being the background.

    Raises:
      DataError: no such file, an empty line between others, or a name that is there twice.
    """
    if name == "voc":
        return ("background", *VOC_CLASSES) if masks else VOC_CLASSES
    try:
        names = tuple(line.strip() for line in pathlib.Path(name).read_text(encoding="utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} should be 'voc' or a text file of class names ({first_line(error)})") from None
    if not names or "" in names or len(set(names)) < len(names):
        raise DataError(f"{name} should hold one class name a line, none empty and none twice")
    return names


def _unusable(error: BrokenFile) -> DataError:
    return DataError(f"{error}; mend it, or pass --skip_broken_images")


def _read_all(found: Found, title: str, progress: bool) -> dict[str, Record | BrokenFile]:
    """Record by id, or why there is none."""

    def read(index: int) -> Record | BrokenFile:
        try:
            return found.read(index)
        except BrokenFile as error:
            return error

    numbers = range(len(found.ids))
    with ThreadPoolExecutor((os.cpu_count() or 1) + SPARE) as pool:
        results = pool.map(read, numbers)
        if not progress:
            return dict(zip(found.ids, results, strict=True))
        with Progress(title, len(found.ids)) as bar:
            records = {}
            for name, result in zip(found.ids, results, strict=True):
                records[name] = result
                bar.advance(1)
    return records


def _checked_classes(
    records: dict[str, Record | BrokenFile], class_names: Sequence[str] | None, skip_broken: bool
) -> dict[str, Record | BrokenFile]:
    """The records, those with a class that is none of `class_names` as broken; the first broken one may raise."""
    checked = {}
    for name, record in records.items():
        if class_names is not None and isinstance(record, Record):
            unknown = [repr(found) for found in record.class_names if found not in class_names]
            if record.mask and record.mask_labels[0] >= len(class_names):
                unknown = [f"label {record.mask_labels[0]}"]
            if unknown:
                count, known = len(class_names), ", ".join(class_names)
                record = BrokenFile(record.source, f"{unknown[0]} is none of the {count} classes, {known}")
        if isinstance(record, BrokenFile) and not skip_broken:
            raise _unusable(record)
        checked[name] = record
    return checked


def _classes_of(records: Sequence[Record]) -> list[str]:
    """Classes that the annotations name, sorted; of masks 0 to the greatest label."""
    greatest = max((int(record.mask_labels[0]) for record in records if record.mask), default=-1)
    return sorted({name for record in records for name in record.class_names}) or [str(i) for i in range(greatest + 1)]


def _as_set(
    dataset: str,
    split: str,
    task: str,
    class_names: tuple[str, ...],
    records: dict[str, Record],
    broken: dict[str, str],
) -> VocSet:
    """The set of these records."""
    if not class_names:
        raise DataError(f"{dataset}, split {split!r}: no mask has a label but {IGNORED}, no annotation an object")
    ids, sizes = tuple(records), np.array([record.size for record in records.values()], np.int64)
    objects = masks = None
    if task == "segmentation":
        masks = tuple(record.mask for record in records.values())
        content = np.stack([record.mask_labels for record in records.values()])
    else:
        number = {name: index for index, name in enumerate(class_names)}
        objects = tuple(
            Objects(record.boxes, np.array([number[name] for name in record.class_names], np.int64), record.difficult)
            for record in records.values()
        )
        rows = [
            np.column_stack([np.full(len(one.labels), index), one.boxes, one.labels, one.difficult])
            for index, one in enumerate(objects)
        ]
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


def _summary(opened: VocSet) -> str:
    """One line of what a set holds."""
    text = f"{opened.name}, split {opened.split}: {opened.num_examples} images, {opened.num_classes} classes"
    if opened.num_classes <= SHOWN_CLASSES:
        text += f" ({', '.join(opened.class_names)})"
    if opened.objects is None:
        return text
    difficult = sum(int(one.difficult.sum()) for one in opened.objects)
    return f"{text}, {sum(len(one.labels) for one in opened.objects)} objects ({difficult} difficult)"
