"""Declarations of the labelled data sets, and checks of opened sets.

Classes and shapes are those of TensorFlow Datasets' builders; a test compares them. Sizes come from its catalogue
(stl10), from the text of its builders (cifar10, caltech101) and from public documentation (imagenet2012,
places365_small). A size in none of these sources is None.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from experiments.probing.probe import ProbeError
from lts import data
from lts.data.held_out import default_split


@dataclasses.dataclass(frozen=True)
class Declaration:
    """Declaration of a data set."""

    classes: int
    splits: Mapping[str, int | None]  # number of images of each split; None: unknown
    shape: tuple[int | None, int | None, int]  # height, width and channels of every image; None: images differ
    labelled: tuple[str, ...] = ("train", "test")  # splits whose images have labels


DECLARED = {
    "tfds:stl10": Declaration(10, {"train": 5000, "test": 8000, "unlabelled": 100_000}, (96, 96, 3)),
    "tfds:imagenet2012": Declaration(
        1000,
        {"train": 1_281_167, "validation": 50_000, "test": None},
        (None, None, 3),
        labelled=("train", "validation"),
    ),
    "tfds:places365_small": Declaration(
        365,
        {"train": 1_803_460, "validation": 36_500, "test": 328_500},
        (256, 256, 3),
        labelled=("train", "validation"),
    ),
    "tfds:caltech101": Declaration(102, {"train": 102 * 30, "test": None}, (None, None, 3)),
    "tfds:cifar10": Declaration(10, {"train": 50_000, "test": 10_000}, (32, 32, 3)),
    "synthetic": Declaration(10, {"train": 2000, "test": 1000, "unlabelled": 4000}, (64, 64, 3)),
}


def declaration(dataset: str) -> Declaration | None:
    """Return the declaration for a value of --dataset, or None."""
    kind, _, rest = dataset.partition(":")
    if kind == "tfds":
        name_without_version = re.split("[/:]", rest)[0]
        return DECLARED.get(f"tfds:{name_without_version}")
    return DECLARED.get(dataset)


def open_labelled(dataset: str, split: str | None = None, *, role: str = "train", **options: Any) -> Any:
    """Open labelled images and check them against their declaration.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: which images, in the notation of tfds. None: the split that the role needs and that has labels.
      role: one of `lts.data.store.LABELLED`.
      **options: further ones of `lts.data.open_source`.

    Returns:
      What `lts.data.open_source` returns.

    Raises:
      ProbeError: a split without labels, or other classes, sizes or shapes than declared.
      DataError: see `lts.data.open_source`.
    """
    declared = declaration(dataset)
    if declared is not None:
        split = split or default_split(role, declared.labelled)[0]
        for name in re.findall(r"\w+", split):
            if name in declared.splits and name not in declared.labelled:
                labelled = " and ".join(repr(labelled) for labelled in declared.labelled)
                raise ProbeError(
                    f"{dataset} has labels only for {labelled}. Received: split={name!r}. Choose another split."
                )
    source = data.open_source(dataset, split, role=role, **options)
    if declared is not None:
        check(source, declared)
    return source


def check(source: Any, declared: Declaration) -> None:
    """Check an opened set against its declaration.

    Raises:
      ProbeError: they differ.
    """
    expected = declared.splits.get(source.split)  # None also for slices and sums, whose sizes differ
    received = source.num_examples + len(source.broken)
    if expected is not None and received != expected:
        raise ProbeError(
            f"{source.name}, split {source.split!r}, should have {expected:,} images. Received: {received:,}"
        )
    if len(source.class_names) != declared.classes:
        raise ProbeError(f"{source.name} should have {declared.classes} classes. Received: {len(source.class_names)}")
    shape = tuple(source.read(0).shape)
    if any(side not in (None, received) for side, received in zip(declared.shape, shape, strict=True)):
        raise ProbeError(f"{source.name} should hold images of shape {declared.shape}. Received: {shape}")
