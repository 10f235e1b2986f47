"""Test images of data sets without a test split, and validation images for tuning."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from lts.data.store import LABELLED, ImageIndex, require_labels

TEST_SPLITS = ("test", "validation", "val")  # the first that a data set has is its test split
SHARE = 5  # one image of this many is held out
# Parts of a split, written after its name as slices are.
HELD_OUT = "[a fifth of each class]"
REST = "[all but a fifth of each class]"
# Parts of the training images, by role: a choice is tuned on them, and the test images stay unseen.
TUNED = {"tuning": "train[:80%]", "validation": "train[80%:]"}


def default_split(role: str, names: Collection[str]) -> tuple[str, bool]:
    """Return the split of a role where none is given.

    Args:
      role: one of `lts.data.store.LABELLED`.
      names: of the data set's splits; "all" is the only one of a data set without splits.

    Returns:
      The split, and whether `hold_out` divides it because there is no test split.

    Example:
      >>> default_split("test", ["train", "val"])
      ('val', False)
      >>> default_split("test", ["train", "unlabelled"])
      ('train', True)
      >>> default_split("validation", ["train", "test"])
      ('train[80%:]', False)
    """
    base = "all" if set(names) == {"all"} else "train"
    test = [name for name in TEST_SPLITS if name in names]
    if not test:
        return base, True
    return {"train": base, "test": test[0], **TUNED}[role], False


def hold_out(index: ImageIndex, split: str, role: str) -> tuple[ImageIndex, str]:
    """Return the part of a split for a role.

    A fifth of the images of each class is held out for the test, at least one where the class has two. The other images
    are those of the training. The roles "tuning" and "validation" divide these in the same way. The choice depends on
    the names of the images only.

    Args:
      index: images with labels.
      split: their split.
      role: one of `lts.data.store.LABELLED`.

    Returns:
      The images, and the part as a split: "all[a fifth of each class]".
    """
    if role not in LABELLED:
        raise ValueError(f"role must be of {', '.join(LABELLED)}. Received: role={role!r}")
    if role in TUNED:
        index, split = hold_out(index, split, "train")
    order = order_of_names(index.names)
    labels = require_labels(index.labels)[order]
    held_out = np.zeros(len(index.names), bool)
    for label in np.unique(labels):
        members = order[labels == label]
        count = min(max(1, round(len(members) / SHARE)), len(members) - 1)
        held_out[members[:count]] = True
    if role in ("test", "validation"):
        return index.select(np.flatnonzero(held_out)), split + HELD_OUT
    return index.select(np.flatnonzero(~held_out)), split + REST


def order_of_names(names: Sequence[str]) -> np.ndarray:
    """Return the positions of images in an order that is random, and depends on their names only."""
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    return np.array(sorted(range(len(names)), key=digests.__getitem__), np.int64)
