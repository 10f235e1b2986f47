"""k nearest neighbours by cosine similarity; only k is chosen.

The votes are weighted, see `lts.utils.representation.neighbour_votes`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from experiments.probing import linear, statistics
from experiments.probing.features import FeatureProbe
from experiments.probing.protocols import KnnProtocol
from lts.utils.representation import neighbour_votes


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnnProbe(FeatureProbe):
    """Nearest neighbours on each layer, with a `KnnProtocol`."""

    kind = "knn_probe"

    def measure(self, train, train_labels, test, test_labels) -> dict[str, Any]:
        """Evaluate the features of one layer; see `FeatureProbe.measure`."""
        k, validation_accuracy = choose_neighbours(train, train_labels, self.protocol)
        (predictions,) = predict(train, train_labels, test, [k])
        return statistics.accuracy_record(
            predictions == test_labels,
            self.protocol,
            neighbours=k,
            validation_accuracy=validation_accuracy,
            dimensions=train.shape[1],
        )


def predict(train: np.ndarray, labels: np.ndarray, images: np.ndarray, neighbours: Sequence[int]) -> np.ndarray:
    """Predict labels by the votes of the nearest training images.

    One search serves all values of k.

    Args:
      train: float32 [training images, dimensions].
      labels: int [training images].
      images: float32 [images, dimensions].
      neighbours: values of k, none larger than the number of training images.

    Returns:
      int [number of k, images].
    """
    search = NearestNeighbors(n_neighbors=max(neighbours), metric="cosine", algorithm="brute").fit(train)
    distances, rows = search.kneighbors(images)  # [images, largest k], the nearest first
    classes, positions = np.unique(labels, return_inverse=True)
    totals = neighbour_votes(distances, positions[rows], len(classes))  # [images, largest k, classes]
    return np.stack([classes[totals[:, k - 1].argmax(axis=1)] for k in neighbours])


def choose_neighbours(features: np.ndarray, labels: np.ndarray, protocol: KnnProtocol) -> tuple[int, float]:
    """Choose the k with the best accuracy on held-out training images.

    Args:
      features: float32 [images, dimensions].
      labels: int [images].
      protocol: names the candidates, the held-out fraction and the seed.

    Returns:
      (k, its accuracy on the held-out images). Of equally good ones the largest is chosen.
    """
    rows, held_out = linear.hold_out(labels, protocol)
    candidates = sorted({min(k, len(rows)) for k in protocol.neighbours})
    predictions = predict(features[rows], labels[rows], features[held_out], candidates)
    accuracies = np.mean(predictions == labels[held_out], axis=1)
    accuracy, k = max(zip(accuracies, candidates, strict=True))
    return k, float(accuracy)
