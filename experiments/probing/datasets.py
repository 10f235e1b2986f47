"""What the labelled sets that evaluations name are: classes, split sizes, shapes; an opened set is held to it.

Classes and shapes are those of TensorFlow Datasets' own builders (a test holds them to it); sizes come from its
catalogue (stl10), its builders' text (cifar10, caltech101) and public documentation of the sets (imagenet2012,
places365_small). A size that was found in none of them is left open.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from experiments.probing.features import ProbeError
from lts import data


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One set.

    Attributes:
      classes: number of classes.
      splits: number of images of each split; None where it is not known.
      shape: height, width, channels of every image; None where images differ.
      labelled: splits whose images have labels.
    """

    classes: int
    splits: Mapping[str, int | None]
    shape: tuple[int | None, int | None, int]
    labelled: tuple[str, ...] = ("train", "test")


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
    """The declaration of a value of --dataset, whatever its version; None for folders and sets not declared."""
    kind, _, rest = dataset.partition(":")
    return DECLARED.get(f"tfds:{re.split('[/:]', rest)[0]}" if kind == "tfds" else dataset)


def open_labelled(dataset: str, split: str | None = None, *, role: str = "train", **options: Any) -> Any:
    """`lts.data.open_source` of labelled images; a declared set must be what it is declared to be.

    Args:
      dataset: "synthetic" | "tfds:NAME" | "folder:PATH".
      split: which images, as tfds writes it; None: what the role needs, of a declared set its labelled split.
      role: "train" | "test".
      **options: further ones of `open_source`.

    Returns:
      The source.

    Raises:
      ProbeError: a split without labels, another number of classes or images, or another shape than declared.
      DataError: anything else that is wrong with the data.
    """
    declared = declaration(dataset)
    if declared is not None:
        split = split or (role if role in declared.labelled else declared.labelled[-1])
        bare = [name for name in declared.splits if name in re.findall(r"\w+", split) and name not in declared.labelled]
        if bare:
            raise ProbeError(f"{dataset} has no labels for split {bare[0]!r}; it has them for {_listed(declared)}")
    source = data.open_source(dataset, split, role=role, **options)
    if declared is not None:
        check(source, declared)
    return source


def check(source: Any, declared: Declaration) -> None:
    """Raises `ProbeError` unless a source is what is declared."""
    wanted = declared.splits.get(source.split)  # None for slices and sums too: they have other sizes
    received = source.num_examples + len(source.broken)
    if wanted is not None and received != wanted:
        raise ProbeError(
            f"{source.name}, split {source.split!r}, should have {wanted:,} images. Received: {received:,}"
        )
    if len(source.class_names) != declared.classes:
        raise ProbeError(f"{source.name} should have {declared.classes} classes. Received: {len(source.class_names)}")
    shape = tuple(source.read(0).shape)
    if any(side not in (None, found) for side, found in zip(declared.shape, shape, strict=True)):
        raise ProbeError(f"{source.name} should hold images of shape {declared.shape}. Received: {shape}")


def _listed(declared: Declaration) -> str:
    return " and ".join(repr(name) for name in declared.labelled)
