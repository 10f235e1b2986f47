"""Test images of data sets that have no test split."""

import hashlib
from collections.abc import Collection

import numpy as np

from lts.data.store import LABELLED, ImageIndex

TEST_SPLITS = ("test", "validation", "val")  # the first that a data set has is its test split
SHARE = 5  # one image of this many is held out
# Parts of a split, written after its name as slices are.
HELD_OUT = "[a fifth of each class]"
REST = "[all but a fifth of each class]"


def default_split(role: str, names: Collection[str]) -> tuple[str, bool]:
    """Return the split of a role where none is given.

    Args:
      role: "train" | "test".
      names: of the data set's splits; "all" is the only one of a data set without splits.

    Returns:
      The split, and whether `hold_out` divides it because there is no test split.

    Example:
      >>> default_split("test", ["train", "val"])
      ('val', False)
      >>> default_split("test", ["train", "unlabelled"])
      ('train', True)
    """
    base = "all" if set(names) == {"all"} else "train"
    test = [name for name in TEST_SPLITS if name in names]
    if test:
        return (test[0] if role == "test" else base), False
    return base, True


def hold_out(index: ImageIndex, split: str, role: str) -> tuple[ImageIndex, str]:
    """Return the part of a split for training or for the test.

    A fifth of the images of each class is held out for the test, at least one where the class has two. The choice
    depends on the names of the images only.

    Args:
      index: images with labels.
      split: their split.
      role: "train" | "test".

    Returns:
      The images, and the part as a split: "all[a fifth of each class]".
    """
    if role not in LABELLED:
        raise ValueError(f"role must be of {', '.join(LABELLED)}. Received: role={role!r}")
    order = sorted(range(len(index.names)), key=lambda position: _digest(index.names[position]))
    held_out = np.zeros(len(index.names), bool)
    for label in np.unique(index.labels):
        members = [position for position in order if index.labels[position] == label]
        count = min(max(1, round(len(members) / SHARE)), len(members) - 1)
        held_out[members[:count]] = True
    if role == "test":
        return index.select(np.flatnonzero(held_out)), split + HELD_OUT
    return index.select(np.flatnonzero(~held_out)), split + REST


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
