"""Linear classifiers from few labels."""

import dataclasses
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from experiments.probing import linear
from experiments.probing.features import FeatureProbe
from experiments.probing.protocols import FewShotProtocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShotProbe(FeatureProbe):
    """Linear classifiers from shares of the labels.

    Its protocol is a `FewShotProtocol`. Each share is drawn several times.
    """

    kind = "few_shot"

    def measure(self, train, train_labels, test, test_labels) -> dict[str, dict[str, Any]]:
        """Evaluate the features of one layer; see `FeatureProbe.measure`.

        Returns:
          Name of the share ("5 %") to its record.
        """
        records = {}
        for share in self.protocol.shares:
            results = []
            # Every model gets the same draws, so that differences between models are paired.
            for number in range(self.protocol.draws):
                rows = draw(train_labels, share, self.protocol.seed, number)
                labels = train_labels[rows]
                splits = cross_validation(labels, self.protocol)
                classifier = self.protocol.classifier
                results.append(linear.linear_probe(train[rows], labels, test, test_labels, classifier, splits))
            records[f"{share:g} %"] = linear.draws_record(results, self.protocol, images=len(rows))
        return records


def draw(labels: np.ndarray, share: float, seed: int, number: int) -> np.ndarray:
    """Draw a percentage of each class's images.

    Args:
      labels: int [images], at least two of each class (`probe_run.check_labels`).
      share: percent, between 0 and 100.
      seed: of all draws.
      number: of this draw. Another number or share gives other rows; another model gets the same rows.

    Returns:
      int [drawn images], sorted.
    """
    generator = np.random.default_rng([seed, number, round(1e6 * share)])
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # At least two, because the regularisation is chosen by cross-validation inside the draw.
        count = max(2, round(share / 100 * len(rows)))
        chosen.append(generator.choice(rows, count, replace=False))
    return np.sort(np.concatenate(chosen))


def cross_validation(labels: np.ndarray, protocol: FewShotProtocol) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split the images of a draw for cross-validation.

    Args:
      labels: int [images], at least two of each class.
      protocol: names the number of parts and the seed.

    Returns:
      (rows to fit to, held-out rows) of each part.
    """
    # Every part needs an image of every class.
    smallest_class = int(np.unique(labels, return_counts=True)[1].min())
    parts = StratifiedKFold(min(protocol.parts, smallest_class), shuffle=True, random_state=protocol.seed)
    return list(parts.split(np.zeros([len(labels), 1]), labels))
