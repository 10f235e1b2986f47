"""The protocol of STL-10: ten given folds of 1,000 training images, mean and deviation of the test accuracy over them.

The folds are the file fold_indices.txt of the official download: a line for each fold, indices from 0 into train_X.bin.
TensorFlow Datasets leaves the file out and writes the images in another order, by a hash of their number; here that
order is undone.
"""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.probing import linear
from experiments.probing.features import ProbeError
from experiments.probing.protocols import FoldsProtocol

DATASET = "tfds:stl10"


def read(path: str | os.PathLike) -> list[np.ndarray]:
    """The folds of a file in the format of fold_indices.txt: int [images] each, indices from 0 in the official order.

    Raises:
      ProbeError: no such file, something else than indices in it, an index twice in a fold, or fewer than two folds.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        folds = [np.array(line.split(), dtype=np.int64) for line in lines if line.strip()]
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror}): give fold_indices.txt of STL-10") from None
    except ValueError:
        raise ProbeError(f"{path} is not like fold_indices.txt of STL-10: a line of indices for each fold") from None
    if len(folds) < 2 or any(len(np.unique(fold)) < len(fold) or fold.min() < 0 for fold in folds):
        raise ProbeError(f"{path} must hold at least two folds, a line each, of different indices from 0 on")
    return folds


def digest(folds: Sequence[np.ndarray]) -> str:
    """16 hex digits that change when the folds do."""
    text = "\n".join(" ".join(map(str, fold)) for fold in folds)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rows(folds: Sequence[np.ndarray], train) -> list[np.ndarray]:
    """The folds as rows of a source.

    Args:
      folds: as `read` gives them.
      train: the whole split `train` of tfds:stl10.

    Returns:
      int [images] for each fold.

    Raises:
      ProbeError: another set or split, skipped images, or an index beyond the images.
    """
    if train.name.split("/")[0].split(":")[:2] != DATASET.split(":") or train.split != "train" or train.broken:
        raise ProbeError(
            f"the folds of STL-10 are folds of {DATASET}, whole split 'train'. Received: {train.name}, "
            f"split {train.split!r}, {len(train.broken)} images skipped"
        )
    largest = max(int(fold.max()) for fold in folds)
    if largest >= train.num_examples:
        raise ProbeError(f"the folds name image {largest}, but {train.name} has {train.num_examples} training images")
    places = written_order(train.num_examples)
    return [places[fold] for fold in folds]


def written_order(count: int, split: str = "train") -> np.ndarray:
    """Where tfds puts examples whose keys are 0..count-1, as those of its STL-10 are: int [count], key to place."""
    from tensorflow_datasets.core import hashing  # slow to import

    hasher = hashing.Hasher(split)
    keys = sorted(range(count), key=hasher.hash_key)
    places = np.empty(count, np.int64)
    places[keys] = np.arange(count)
    return places


def measure(
    folds: Sequence[np.ndarray],
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    protocol: FoldsProtocol,
) -> dict[str, Any]:
    """A linear probe on each fold, tested on all test images.

    Args:
      folds: rows of the training images, see `rows`.
      train, test: float32 [images, dimensions]: pooled features.
      train_labels, test_labels: int [images].
      protocol: names the classifier and the seed; the regularisation is chosen on a fifth of each fold.

    Returns:
      A record, see `probes.of_draws`.
    """
    results = [linear.linear_probe(train[fold], train_labels[fold], test, test_labels, protocol) for fold in folds]
    return linear.of_draws(results, protocol, images=len(folds[0]))
