"""VOC data from TensorFlow Datasets: `voc/2007`, `voc/2012`, and sets with the same features."""

import pathlib
from typing import Any

import numpy as np

from experiments.voc.data.devkit import split_names, unrepeated
from experiments.voc.data.records import Found, Record, image_size, pixel_boxes
from lts.data.splits import resolve
from lts.data.store import DataError
from lts.data.tfds_set import examples, prepared_builder, unpack

SPLITS = {"val": ("validation",), "trainval": ("train", "validation")}  # VOC's names for what tfds calls otherwise


def list_tfds_voc(name: str, split: str, task: str, data_dir: str | None) -> Found:
    """Finds the images of a split, downloading and preparing the set and unpacking its images where needed.

    Args:
      name: as `tfds.builder` takes it: "voc/2007".
      split: VOC's names or those of tfds, sums and slices of them.
      task: "classification" | "detection" | "segmentation".
      data_dir: folder of the prepared sets; None: that of tfds.

    Returns:
      The images, as files below the set's own folder.

    Raises:
      DataError: no such set or split, a set without the features that are needed, or an image that is there twice.
    """
    where = f"tfds:{name}"
    if task == "segmentation":
        raise DataError(f"{where} has no masks: for segmentation give the VOCdevkit's folder, folder:PATH")
    builder = prepared_builder(name, data_dir)
    class_names = _class_names(builder, where)
    selection = _selection(builder, split, where)
    images = (example["image"] for example in examples(builder, selection, ["image"]).as_numpy_iterator())
    paths = unpack(builder.data_dir, selection, images)
    rows = list(examples(builder, selection, ["image/filename", "objects"]).as_numpy_iterator())
    ids = tuple(pathlib.PurePath(row["image/filename"].decode()).stem for row in rows)

    def read(index: int) -> Record:
        shown = f"{where} {ids[index]}"
        size = image_size(paths[index], shown)
        objects = rows[index]["objects"]
        names = tuple(class_names[label] for label in objects["label"])
        # tfds divides the corners by the image's sides; a thousandth of a pixel undoes float32's rounding
        corners = np.round(objects["bbox"].astype(np.float64).reshape(-1, 4) * np.tile(size[:2], 2), 3)
        boxes = pixel_boxes(corners, size, shown, names)
        return Record(paths[index], size, shown, names, boxes, objects["is_difficult"].astype(bool))

    return Found(unrepeated(ids, f"{where}, split {split!r}"), read, class_names)


def _class_names(builder: Any, where: str) -> tuple[str, ...]:
    """Classes that the set declares; it must have the features of VOC."""
    features = builder.info.features
    needed = ("bbox", "is_difficult", "label")
    objects = getattr(features["objects"], "feature", {}) if "objects" in features else {}
    if not ({"image", "image/filename"} <= set(features) and set(needed) <= set(objects)):
        raise DataError(
            f"{where} should have the features of VOC: image, image/filename and objects with {', '.join(needed)}. "
            f"Received: {', '.join(features)}"
        )
    return tuple(objects["label"].names)


def _selection(builder: Any, split: str, where: str) -> str:
    """A split specification in tfds' own names, every piece a slice."""
    counts = {key: info.num_examples for key, info in builder.info.splits.items()}
    spans = {key: (key,) for key in counts} | {key: to for key, to in SPLITS.items() if set(to) <= set(counts)}
    for name in split_names(split):
        if name not in spans:
            raise DataError(f"{where} has no split {name!r}; it has {', '.join(spans)}")
    sizes = {name: sum(counts[part] for part in spans[name]) for name in split_names(split)}
    chosen = []
    for name, start, stop in resolve(split, sizes, where):
        for part in spans[name]:
            if max(start, 0) < min(stop, counts[part]):
                chosen.append(f"{part}[{max(start, 0)}:{min(stop, counts[part])}]")
            start, stop = start - counts[part], stop - counts[part]
    return "+".join(chosen)
