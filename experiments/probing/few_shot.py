"""Linear classifiers from a part of the training images, several times: few labels, or the folds of STL-10."""

from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from experiments.probing import linear
from experiments.probing.protocols import FewShotProtocol


def draw(labels: np.ndarray, share: float, seed: int, number: int) -> np.ndarray:
    """Rows of one draw: `share` percent of the images of each class, rounded, at least two.

    Two, because a classifier's regularisation is chosen by cross-validation inside the draw.

    Args:
      labels: int [images], of each class two at least (`probe_run.check_labels`).
      share: percent, between 0 and 100.
      seed: of all draws.
      number: of this draw; another number or share gives other rows, another model the same.

    Returns:
      int [drawn images], sorted.
    """
    generator = np.random.default_rng([seed, number, round(1e6 * share)])
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(generator.choice(rows, max(2, round(share / 100 * len(rows))), replace=False))
    return np.sort(np.concatenate(chosen))


def few_shot_probe(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, protocol: FewShotProtocol
) -> linear.ProbeResult:
    """A linear classifier from few images: as `probes.linear_probe`, with its regularisation by cross-validation.

    Args:
      train, test: float32 [images, dimensions]: pooled features; training images are those of one draw.
      labels, test_labels: int [images].
      protocol: names the classifier, the parts of the cross-validation and the seed.

    Returns:
      A `ProbeResult`.
    """
    train, test = linear.standardise(train, test)
    parts = min(protocol.parts, int(np.bincount(labels)[np.unique(labels)].min()))
    splits = StratifiedKFold(parts, shuffle=True, random_state=protocol.seed).split(train, labels)
    strength, accuracy = linear.best_regularisation(train, labels, protocol.classifier, splits)
    (predict,) = linear.FITS[protocol.classifier][0](train, labels, [strength])
    return linear.ProbeResult(predict(test) == test_labels, strength, accuracy, train.shape[1])


def measure_shares(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, protocol: FewShotProtocol
) -> dict[str, dict[str, Any]]:
    """Accuracies over the draws of every share.

    Args:
      train, test: float32 [images, dimensions]: pooled features of all images.
      train_labels, test_labels: int [images].
      protocol: see `FewShotProtocol`.

    Returns:
      Name of the share ("5 %") to its record, see `probes.of_draws`.
    """
    records = {}
    for share in protocol.shares:
        drawn = [draw(train_labels, share, protocol.seed, number) for number in range(protocol.draws)]
        results = [few_shot_probe(train[rows], train_labels[rows], test, test_labels, protocol) for rows in drawn]
        records[share_name(share)] = linear.of_draws(results, protocol, images=len(drawn[0]))
    return records


def share_name(share: float) -> str:
    """How tables call a share: 5.0 is "5 %"."""
    return f"{share:g} %"
