"""Protocol of STL-10: ten given folds of 1,000 training images.

The result is the mean and deviation of the test accuracy over the folds. The folds are the file fold_indices.txt of the
official download: a line for each fold, with indices from 0 into train_X.bin. TensorFlow Datasets does not contain this
file, and writes the images in another order, by a hash of their number. This module undoes that order.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.probing import linear
from experiments.probing.features import FeatureProbe
from experiments.probing.probe import ProbeError
from lts.utils.files import check_regular

DATASET = "tfds:stl10"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldsProbe(FeatureProbe):
    """Linear classifier on each fold, tested on all test images.

    Its protocol is a `FoldsProtocol`. The regularisation is chosen on a fifth of each fold.
    """

    kind = "linear_probe"
    folds: Sequence[np.ndarray]  # rows of the training images, see `rows_of_folds`

    def measure(self, train, train_labels, test, test_labels) -> dict[str, Any]:
        """Evaluate the features of one layer; see `FeatureProbe.measure`."""
        results = []
        for rows in self.folds:
            labels = train_labels[rows]
            splits = [linear.hold_out(labels, self.protocol)]
            classifier = self.protocol.classifier
            results.append(linear.linear_probe(train[rows], labels, test, test_labels, classifier, splits))
        return linear.draws_record(results, self.protocol, images=len(self.folds[0]))


def read_folds(path: str | os.PathLike) -> list[np.ndarray]:
    """Read a file in the format of fold_indices.txt.

    Returns:
      int [images] for each fold, indices from 0 in the official order.

    Raises:
      ProbeError: the file is missing, or holds other things than two or more folds of different indices.
    """
    try:
        check_regular(path)
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
        folds = [np.array(line.split(), dtype=np.int64) for line in lines if line.strip()]
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}. Give fold_indices.txt of STL-10.") from None
    except (ValueError, OverflowError):
        raise ProbeError(
            f"{path} must contain a line of indices for each fold. Give fold_indices.txt of STL-10."
        ) from None
    if len(folds) < 2 or any(len(np.unique(fold)) < len(fold) or fold.min() < 0 for fold in folds):
        raise ProbeError(
            f"{path} must contain at least two folds of different indices from 0. Give fold_indices.txt of STL-10."
        )
    return folds


def digest(folds: Sequence[np.ndarray]) -> str:
    """Return 16 hex digits that identify the folds."""
    text = "\n".join(" ".join(map(str, fold)) for fold in folds)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rows_of_folds(folds: Sequence[np.ndarray], train) -> list[np.ndarray]:
    """Return the folds as rows of a set.

    Args:
      folds: as `read_folds` returns them.
      train: the whole split `train` of tfds:stl10.

    Returns:
      int [images] for each fold.

    Raises:
      ProbeError: another set or split, skipped images, or an index beyond the images.
    """
    if train.name.split("/")[0].split(":")[:2] != DATASET.split(":") or train.split != "train" or train.broken:
        raise ProbeError(
            f"the folds of STL-10 need the complete split 'train' of {DATASET}. Received: {train.name}, "
            f"split {train.split!r}, {len(train.broken)} images skipped"
        )
    largest = max(int(fold.max()) for fold in folds)
    if largest >= train.num_examples:
        raise ProbeError(f"indices of folds must be below {train.num_examples}. Received: {largest}")
    places = written_order(train.num_examples)
    return [places[fold] for fold in folds]


def written_order(count: int, split: str = "train") -> np.ndarray:
    """Return the order in which tfds writes examples.

    Args:
      count: number of examples; their keys are 0 to count - 1, as in STL-10.
      split: name of the split; it salts the hash.

    Returns:
      int [count], place of each key.
    """
    from tensorflow_datasets.core import hashing  # slow to import

    # As `tfds.core.shuffle`: examples are sorted by the salted hash of their key.
    hasher = hashing.Hasher(split)
    keys = sorted(range(count), key=hasher.hash_key)
    places = np.empty(count, np.int64)
    places[keys] = np.arange(count)
    return places
