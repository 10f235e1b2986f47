"""Labels of which only a share is used (ours)."""

import hashlib
from collections.abc import Sequence

import numpy as np

from lts.data.held_out import order_of_names

UNKNOWN = -1


def share_of_labels(labels: np.ndarray, names: Sequence[str], share: float) -> np.ndarray:
    """Return labels of which only a share is known.

    The choice depends on the names of the images only. The same images have the same labels in every split that holds
    them all, and a smaller share is a part of a larger one.

    Args:
      labels: int64 [N], -1: unknown.
      names: N names.
      share: part of each class's labels to keep, in (0, 1]; at least one is kept.

    Returns:
      int64 [N], -1: unknown.

    Example:
      >>> share_of_labels(np.array([0, 0, 1, 1]), ["a", "b", "c", "d"], 0.5)
      array([-1,  0, -1,  1])
    """
    order = order_of_names(names)
    kept = np.full_like(labels, UNKNOWN)
    for label in np.unique(labels[labels >= 0]):
        members = order[labels[order] == label]
        count = max(1, round(share * len(members)))
        kept[members[:count]] = label
    return kept


def labels_digest(labels: np.ndarray, names: Sequence[str]) -> str:
    """Return 16 hex digits of the known labels and their images.

    Images without a label, the order of the images and the spelling of a data set's name do not count.

    Args:
      labels: int64 [N], -1: unknown.
      names: N names.
    """
    entries = []
    for position in np.flatnonzero(labels >= 0).tolist():
        image = names[position].rpartition(" ")[2]  # "train[7]" of "tfds:stl10 train[7]"
        entries.append(f"{image} {labels[position]}".encode(errors="surrogateescape"))
    return hashlib.sha256(b"\n".join(sorted(entries))).hexdigest()[:16]
