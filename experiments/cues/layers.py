"""Spotting from one layer alone: how much context does the decision need?"""

from typing import Any

import numpy as np

from experiments.probing.linear import choose_regularisation, ridge_scores, standardise
from experiments.probing.probe import ProbeError

CLASSIFIER = "ridge"
FEWEST_GROUPS = 4  # two to fit to, one to choose on, one to test


def divide(images: int, group_size: int, shares: tuple[float, float], seed: int) -> tuple[np.ndarray, ...]:
    """Divide images at random, without tearing groups.

    Args:
      images: their number, a multiple of `group_size`.
      group_size: consecutive images that show parts of each other.
      shares: of the test images, and of the remaining ones that are held out to choose on.
      seed: of the division.

    Returns:
      The numbers of the images to fit to, of those to choose on, and of those to test on.

    Raises:
      ProbeError: too few groups.
    """
    groups = images // group_size
    if groups < FEWEST_GROUPS:
        raise ProbeError(
            f"the probes of layers need at least {FEWEST_GROUPS * group_size} images. Received: {images}. Give more."
        )
    order = np.random.default_rng(seed).permutation(groups)
    test = int(np.clip(round(shares[0] * groups), 1, groups - 3))
    held_out = int(np.clip(round(shares[1] * (groups - test)), 1, groups - test - 2))
    parts = np.split(order, [groups - test - held_out, groups - test])
    members = np.arange(group_size)
    return tuple(np.sort((part[:, None] * group_size + members).ravel()) for part in parts)


def probe(features: np.ndarray, parts: tuple[np.ndarray, ...]) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a linear probe to one layer and score the test images.

    Both versions of an image are in the same part.

    Args:
      features: float32 [2, images, dimensions], of the untouched and of the repaired images.
      parts: of `divide`.

    Returns:
      float [2, test images], scores that are high for repaired images; and what was chosen.
    """
    fit, held_out, test = parts
    train = np.concatenate([fit, held_out])
    labels = np.repeat([0, 1], len(train))
    train_features = np.concatenate(list(features[:, train]))  # [2 * images, dimensions]
    train_features, test_features = standardise(train_features, np.concatenate(list(features[:, test])))
    # Rows of the training images: all untouched ones, then all repaired ones.
    fit_rows = np.concatenate([np.arange(len(fit)), len(train) + np.arange(len(fit))])
    held_out_rows = np.setdiff1d(np.arange(2 * len(train)), fit_rows)
    splits = [(fit_rows, held_out_rows)]
    strength, accuracy = choose_regularisation(train_features, labels, CLASSIFIER, splits)
    (scores,) = ridge_scores(train_features, labels, [strength])
    repaired = scores(test_features)[:, 1].reshape(2, len(test))
    chosen = {"regularisation": strength, "validation_accuracy": accuracy, "dimensions": features.shape[2]}
    return repaired, chosen
