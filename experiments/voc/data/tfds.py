"""VOC data from TensorFlow Datasets.

`voc/2007`, `voc/2012`, and sets with the same features.
"""

import pathlib
from typing import Any

import numpy as np

from experiments.voc.data.devkit import split_names, unrepeated
from experiments.voc.data.records import Record, VocListing, image_size, pixel_boxes
from lts.data.splits import resolve
from lts.data.store import DataError
from lts.data.tfds_set import examples, prepared_builder, unpack

SPLITS = {"val": ("validation",), "trainval": ("train", "validation")}  # VOC's names of tfds' splits


def list_tfds_voc(name: str, split: str, task: str, data_dir: str | None) -> VocListing:
    """List the images of a split.

    The set is downloaded and prepared, and its images are unpacked, where needed.

    Args:
      name: name for `tfds.builder`, such as "voc/2007".
      split: names of VOC or of tfds, sums and slices.
      task: "classification" | "detection" | "segmentation".
      data_dir: folder of the prepared sets; None: the default of tfds.

    Returns:
      The listing, with image files below the folder of the set.

    Raises:
      DataError: no such set or split, a set without the required features, or a repeated image.
    """
    where = f"tfds:{name}"
    if task == "segmentation":
        raise DataError(f"{where} has no masks. For segmentation pass the VOCdevkit folder, folder:PATH")
    builder = prepared_builder(name, data_dir)
    class_names = _class_names(builder, where)
    selection = _selection(builder, split, where)
    images = (example["image"] for example in examples(builder, selection, ["image"]).as_numpy_iterator())
    paths = unpack(builder.data_dir, selection, images)
    rows = list(examples(builder, selection, ["image/filename", "objects"]).as_numpy_iterator())
    ids = tuple(pathlib.PurePath(row["image/filename"].decode()).stem for row in rows)

    def read(index: int) -> Record:
        printed_name = f"{where} {ids[index]}"
        size = image_size(paths[index], printed_name)
        objects = rows[index]["objects"]
        names = tuple(class_names[label] for label in objects["label"])
        # tfds divides the corners by the sides of the image. Rounding to 1/1000 pixel removes the error of float32.
        corners = np.round(objects["bbox"].astype(np.float64).reshape(-1, 4) * np.tile(size[:2], 2), 3)
        boxes = pixel_boxes(corners, size, printed_name, names)
        return Record(paths[index], size, printed_name, names, boxes, objects["is_difficult"].astype(bool))

    return VocListing(unrepeated(ids, f"{where}, split {split!r}"), read, class_names)


def _class_names(builder: Any, where: str) -> tuple[str, ...]:
    """Return the declared classes of a set with the features of VOC."""
    features = builder.info.features
    needed = ("bbox", "is_difficult", "label")
    objects = getattr(features["objects"], "feature", {}) if "objects" in features else {}
    if not ({"image", "image/filename"} <= set(features) and set(needed) <= set(objects)):
        raise DataError(
            f"{where} must have the features of VOC: image, image/filename and objects with {', '.join(needed)}. "
            f"Received: {', '.join(features)}"
        )
    return tuple(objects["label"].names)


def _selection(builder: Any, split: str, where: str) -> str:
    """Return a split in tfds' names, every part a slice."""
    counts = {key: info.num_examples for key, info in builder.info.splits.items()}
    parts_of = {name: (name,) for name in counts}
    for name, parts in SPLITS.items():
        if set(parts) <= set(counts):
            parts_of[name] = parts
    sizes = {}
    for name in split_names(split):
        if name not in parts_of:
            raise DataError(f"{where} has no split {name!r}; it has {', '.join(parts_of)}")
        sizes[name] = sum(counts[part] for part in parts_of[name])
    slices = []
    for name, start, stop in resolve(split, sizes, where):
        offset = 0
        for part in parts_of[name]:
            first = max(start - offset, 0)
            last = min(stop - offset, counts[part])
            if first < last:
                slices.append(f"{part}[{first}:{last}]")
            offset += counts[part]
    return "+".join(slices)
