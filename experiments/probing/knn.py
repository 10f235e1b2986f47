"""k nearest neighbours by cosine similarity: features as they are, with nothing fitted to them but k.

Votes are weighted by exp(similarity / 0.07), as Wu et al. ("Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018) do: near neighbours count for more, and hardly any vote is a tie.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from experiments.probing import linear
from experiments.probing.protocols import KnnProtocol

TEMPERATURE = 0.07


def predict(train: np.ndarray, labels: np.ndarray, images: np.ndarray, neighbours: Sequence[int]) -> np.ndarray:
    """Labels by the votes of the nearest training images, for several k from one search.

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
    votes = np.eye(len(classes))[positions[rows]] * np.exp((distances[:, :1] - distances) / TEMPERATURE)[..., None]
    totals = np.cumsum(votes, axis=1)  # [images, largest k, classes]
    return np.stack([classes[totals[:, k - 1].argmax(axis=1)] for k in neighbours])


def choose_neighbours(features: np.ndarray, labels: np.ndarray, protocol: KnnProtocol) -> tuple[int, float]:
    """The k with the best accuracy on held-out training images; the largest of equals.

    Args:
      features: float32 [images, dimensions].
      labels: int [images].
      protocol: names the candidates, the held-out fraction and the seed.

    Returns:
      (k, its accuracy on the held-out images).
    """
    rows, held_out = linear.hold_out(labels, protocol)
    candidates = sorted({min(k, len(rows)) for k in protocol.neighbours})
    guesses = predict(features[rows], labels[rows], features[held_out], candidates)
    accuracy, k = max(zip(np.mean(guesses == labels[held_out], axis=1), candidates, strict=True))
    return k, float(accuracy)


def measure(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, protocol: KnnProtocol
) -> dict[str, Any]:
    """K chosen on held-out training images, neighbours then sought among all of them, test images looked at once.

    Args:
      train, test: float32 [images, dimensions]: pooled features.
      train_labels, test_labels: int [images].
      protocol: see `KnnProtocol`.

    Returns:
      A record, see `probes.of_images`.
    """
    k, validation_accuracy = choose_neighbours(train, train_labels, protocol)
    (guesses,) = predict(train, train_labels, test, [k])
    return linear.of_images(
        guesses == test_labels,
        protocol,
        neighbours=k,
        validation_accuracy=validation_accuracy,
        dimensions=train.shape[1],
    )
