"""What every threshold on a score finds, and what follows: ROC, precision, recall, IoU, intervals. Pure NumPy."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Counts:
    """What "score >= threshold" finds, for each threshold that makes a difference.

    Attributes:
      thresholds: float [T], the distinct scores from high to low.
      hits: float [T], positives found.
      alarms: float [T], negatives that are called positive.
    """

    thresholds: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray

    @property
    def base_rate(self) -> float:
        """Share of positives: average precision of a guess, and IoU of calling everything positive."""
        return float(self.hits[-1] / (self.hits[-1] + self.alarms[-1]))

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """False and true positive rate, from (0, 0) to (1, 1)."""
        return tuple(np.append(0, found / found[-1]) for found in (self.alarms, self.hits))

    @property
    def auroc(self) -> float:
        """Area under the ROC curve: how often a positive scores higher than a negative; ties count half."""
        return float(np.trapezoid(*reversed(self.roc())))

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall by threshold."""
        return self.hits / np.maximum(self.hits + self.alarms, 1e-300), self.hits / self.hits[-1]

    @property
    def average_precision(self) -> float:
        """Mean of the precision over steps of recall, without interpolation."""
        precision, recall = self.precision_recall()
        return float(np.sum(precision * np.diff(recall, prepend=0)))

    def iou(self) -> np.ndarray:
        """Intersection over union of what is found and what is there, by threshold."""
        return self.hits / (self.hits[-1] + self.alarms)

    def at(self, threshold: float) -> int:
        """Index of the last threshold that is not below the given one; -1 where nothing is found."""
        return int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1

    def iou_at(self, threshold: float) -> float:
        """IoU of "score >= threshold"."""
        index = self.at(threshold)
        return 0.0 if index < 0 else float(self.iou()[index])


class Ranking:
    """Scores in their order, to be counted again and again with other weights.

    Args:
      scores: float [...].
      labels: bool, same shape: which are positive.

    Raises:
      ValueError: not both kinds of label.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        scores, labels = np.ravel(scores), np.ravel(labels).astype(bool)
        if labels.all() or not labels.any():
            raise ValueError(f"labels must hold positives and negatives. Received: {labels.sum()} of {labels.size}")
        self._order = np.argsort(-scores, kind="stable")
        self._positive = labels[self._order]
        ranked = scores[self._order]
        self._last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each group of equal scores
        self._thresholds = ranked[self._last]

    def counts(self, weights: np.ndarray | None = None) -> Counts:
        """What each threshold finds; `weights` say how often each score counts, None: once."""
        weights = np.ones(len(self._order)) if weights is None else np.ravel(weights)[self._order].astype(float)
        hits, alarms = (np.cumsum(weights * which)[self._last] for which in (self._positive, ~self._positive))
        return Counts(self._thresholds, hits, alarms)


def intervals(
    ranking: Ranking,
    images: np.ndarray,
    figures: Mapping[str, Callable[[Counts], float]],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 1,
) -> dict[str, list[float]]:
    """Bootstrap intervals over images: all that belongs to an image is drawn together.

    Args:
      ranking: of all scores.
      images: int, shape of the scores: the image that each belongs to, from 0.
      figures: by name; all are taken of the same resamples.
      resamples: times that as many images as there are are drawn with replacement.
      confidence: share of the resampled figures inside.
      seed: of the drawing.

    Returns:
      Name to [low, high].
    """
    random, count, images = np.random.default_rng(seed), int(np.max(images)) + 1, np.ravel(images)
    values: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(resamples):
        times = np.bincount(random.integers(count, size=count), minlength=count)
        found = ranking.counts(times[images])
        if found.hits[-1] and found.alarms[-1]:  # else: a resample of one kind alone
            for name, figure in figures.items():
                values[name].append(figure(found))
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    return {name: [float(end) for end in np.quantile(each, ends)] for name, each in values.items()}
