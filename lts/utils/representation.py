"""Quality of features without training: neighbours, rank, alignment and uniformity.

Pure NumPy. The online evaluation of the training and the nearest-neighbour probe of `experiments` share it.
"""

from collections.abc import Iterator

import numpy as np

NEIGHBOURS = 20  # of an image in `knn_accuracy`
TEMPERATURE = 0.07  # of the votes (Wu et al.)
BLOCK = 256  # images that are compared with all others at once


def neighbour_votes(distances: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the votes of the nearest neighbours for each class.

    A neighbour's vote has the weight exp(similarity / 0.07), as in Wu et al. ("Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination", CVPR 2018). Near neighbours count more, and ties are rare.

    Args:
      distances: float [images, neighbours], one minus the cosine similarity, the nearest first.
      labels: int [images, neighbours], classes of the neighbours in [0, classes).
      classes: number of classes.

    Returns:
      float [images, neighbours, classes]: the votes of the first k neighbours at position k - 1.
    """
    # Only the ratios of an image's weights count. Relative to the nearest neighbour, none of them overflows.
    weights = np.exp((distances[:, :1] - distances) / TEMPERATURE)
    votes = np.eye(classes)[labels] * weights[..., None]
    return np.cumsum(votes, axis=1)


def knn_accuracy(features: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Return how often an image's nearest neighbours name its class.

    Each image is classified by all other images (leave one out), with the votes of `neighbour_votes`. Features that
    tell nothing can lie below chance, because the other images hold one image less of the same class.

    Args:
      features: float [images, channels], two images at least.
      labels: int [images].
      neighbours: number of neighbours that vote, at most all other images.

    Returns:
      The accuracy in [0, 1]; higher is better.
    """
    classes, positions = np.unique(labels, return_inverse=True)
    neighbours = min(neighbours, len(features) - 1)
    images = np.arange(len(features))
    numbers, similarities = nearest(features, images, neighbours)
    correct = 0
    for start in range(0, len(images), BLOCK):
        rows = images[start : start + BLOCK]
        votes = neighbour_votes(1 - similarities[rows], positions[numbers[rows]], len(classes))[:, -1]
        correct += np.sum(votes.argmax(axis=1) == positions[rows])
    return float(correct / len(features))


def nearest(features: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other images of some images, by cosine similarity.

    Args:
      features: float [images, channels].
      rows: int [n], the images whose neighbours are wanted.
      count: number of neighbours, at most all other images.

    Returns:
      int [n, count], numbers of the neighbours, the nearest first.
      float32 [n, count], their similarities.
    """
    numbers = np.empty([len(rows), count], np.int64)
    similarities = np.empty([len(rows), count], np.float32)
    done = 0
    for block, similarity in _similarities(features, rows):
        similarity[np.arange(len(block)), block] = -np.inf  # an image is no neighbour of itself
        chosen = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similarity, chosen, axis=1)
        order = np.argsort(-values, axis=1)
        numbers[done : done + len(block)] = np.take_along_axis(chosen, order, axis=1)
        similarities[done : done + len(block)] = np.take_along_axis(values, order, axis=1)
        done += len(block)
    return numbers, similarities


def similar_pairs(features: np.ndarray, threshold: float, limit: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the pairs of images above a cosine similarity.

    Args:
      features: float [images, channels].
      threshold: smallest similarity of a pair.
      limit: largest number of pairs to return.

    Returns:
      int [p, 2], numbers of the most similar pairs, the smaller number first and the most similar pair first.
      float32 [p], their similarities.
      The number of all pairs above the threshold.
    """
    pairs = np.empty([0, 2], np.int64)
    similarities = np.empty([0], np.float32)
    total = 0
    images = np.arange(len(features))
    for rows, similarity in _similarities(features, images):
        similarity[images <= rows[:, None]] = -np.inf  # each pair once
        first, second = np.nonzero(similarity >= threshold)
        total += len(first)
        pairs = np.concatenate([pairs, np.stack([rows[first], second], axis=1)])
        similarities = np.concatenate([similarities, similarity[first, second]])
        # Thousands of equal images have millions of pairs.
        best = np.argsort(-similarities, kind="stable")[:limit]
        pairs = pairs[best]
        similarities = similarities[best]
    return pairs, similarities, total


def effective_rank(features: np.ndarray) -> float:
    """Return RankMe, the number of dimensions that features use.

    The exponential of the entropy of the singular values, divided by their sum (Garrido et al., "RankMe: Assessing the
    downstream performance of pretrained self-supervised representations by their rank", ICML 2023).

    Args:
      features: float [images, channels].

    Returns:
      1 for features that are multiples of one vector, min(images, channels) for equal singular values. Higher is
      better.
    """
    features = np.asarray(features, np.float64)
    # The eigenvalues of the smaller Gram matrix are the squares of the singular values, in a tenth of the time of a
    # decomposition. Singular values below 1e-8 of the largest are lost, which no entropy shows.
    images, channels = features.shape
    gram = features.T @ features if channels < images else features @ features.T
    eigenvalues = np.linalg.eigvalsh(gram)
    singular_values = np.sqrt(np.maximum(eigenvalues, 0))
    positive = singular_values[singular_values > 0]
    shares = positive / np.sum(positive)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean squared distance between two views of an image.

    Of unit features (Wang and Isola, "Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere", ICML 2020, with the exponent 2).

    Args:
      first: float [images, channels].
      second: float [images, channels], of other views of the same images.

    Returns:
      A number in [0, 4]; lower is better.
    """
    differences = normalized(first) - normalized(second)
    return float(np.mean(np.sum(np.square(differences), axis=1)))


def uniformity(features: np.ndarray) -> float:
    """Return how evenly unit features cover the sphere.

    The logarithm of the mean of exp(-2 * squared distance) over all pairs of images (Wang and Isola, 2020, with t=2).

    Args:
      features: float [images, channels], two images at least.

    Returns:
      A number in [-8, 0]: 0 if all features are equal, about -4 if they cover the sphere. Lower is better.
    """
    count = len(features)
    squares = np.any(features, axis=1).astype(np.float32)  # of the lengths: 1, or 0 for features that are all zero
    total = 0.0
    for rows, similarity in _similarities(features, np.arange(count)):
        squared_distances = squares[rows, None] + squares - 2 * similarity
        potentials = np.exp(-2 * squared_distances)
        potentials[np.arange(len(rows)), rows] = 0  # an image with itself is no pair
        total += np.sum(potentials, dtype=np.float64)
    return float(np.log(total / (count * (count - 1))))


def normalized(features: np.ndarray) -> np.ndarray:
    """Return features of length 1, as float64; zeros stay zeros."""
    features = np.asarray(features, np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def _similarities(features: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of `rows`, int [n], and their cosine similarities [n, images] to all images."""
    # In blocks, so that memory grows with the number of images and not with its square; in float32 for speed.
    unit = normalized(features).astype(np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        yield block, unit[block] @ unit.T
