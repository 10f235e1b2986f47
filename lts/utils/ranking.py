"""Rankings by score: ROC, precision and recall, IoU.

This project. The rules of average precision are those of scikit-learn and of the PASCAL VOC development kit.
"""

import dataclasses

import numpy as np

RULES = ("11-point", "area", "step")


@dataclasses.dataclass(frozen=True)
class Counts:
    """What "score >= threshold" retrieves, for each threshold.

    Attributes:
      thresholds: float [T], the distinct scores from high to low.
      hits: float [T], positives with at least that score.
      alarms: float [T], negatives with at least that score.
      positives: all positives, including those that no entry stands for.
      negatives: all negatives.
    """

    thresholds: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    positives: float
    negatives: float

    @property
    def base_rate(self) -> float:
        """Share of positives: the average precision of a guess."""
        return self.positives / (self.positives + self.negatives)

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Return false and true positive rates.

        Both begin with 0 and end with 1.

        Raises:
          ValueError: the labels are all positive or all negative.
        """
        if not self.positives or not self.negatives:
            total = self.positives + self.negatives
            raise ValueError(f"labels must hold positives and negatives. Received: {self.positives:g} of {total:g}")
        false_positive_rate = np.append(0, self.alarms / self.negatives)
        true_positive_rate = np.append(0, self.hits / self.positives)
        return false_positive_rate, true_positive_rate

    @property
    def auroc(self) -> float:
        """Area under the ROC curve; ties count half."""
        false_positive_rate, true_positive_rate = self.roc()
        return float(np.trapezoid(true_positive_rate, false_positive_rate))

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and recall by threshold, not interpolated.

        Recall is nan without positives.
        """
        precision = self.hits / np.maximum(self.hits + self.alarms, 1e-300)  # 0 / 0 is 0
        recall = self.hits / (self.positives or np.nan)
        return precision, recall

    def average_precision(self, rule: str = "step") -> float:
        """Return the average precision.

        With interpolation, the precision at recall r is the greatest precision at any threshold whose recall is at
        least r, and 0 where there is none.

        Args:
          rule: "11-point" (VOC 2007 to 2009): mean of the interpolated precision over r = 0, 0.1, ..., 1;
            "area" (VOC since 2010): integral of the interpolated precision over r;
            "step" (scikit-learn): sum of the precision over steps of recall, without interpolation.

        Returns:
          A number in [0, 1]; nan without positives.

        Raises:
          ValueError: an unknown rule.
        """
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}. Received: rule={rule!r}")
        if not self.positives:
            return float("nan")
        precision, recall = self.precision_recall()
        if rule == "step":
            return float(np.sum(precision * np.diff(recall, prepend=0)))
        # Greatest precision at this threshold or a lower one; 0 beyond the last.
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        if rule == "11-point":
            # In whole numbers the comparison of recall with 0.1, 0.2, ... is exact.
            return float(np.mean(envelope[np.searchsorted(10 * self.hits, np.arange(11) * self.positives)]))
        return float(np.sum(envelope[:-1] * np.diff(self.hits, prepend=0)) / self.positives)

    def iou(self) -> np.ndarray:
        """Return intersection over union by threshold."""
        return self.hits / (self.positives + self.alarms)

    def at(self, threshold: float, values: np.ndarray) -> float:
        """Return the entry of a curve at a threshold.

        Args:
          threshold: any number; the last threshold that is not below it counts.
          values: float [T]: one of the curves above.

        Returns:
          The value; 0 where no score reaches the threshold.
        """
        index = np.searchsorted(-self.thresholds, -threshold, side="right") - 1
        return 0.0 if index < 0 else float(values[index])


class Ranking:
    """Entries from the highest score to the lowest.

    The order is computed once; `counts` then counts it with any weights of the images. Entries of equal score enter
    together, since no threshold separates them. Their order has no influence, and the same score for everything gives
    the base rate. (The VOC development kit takes them one by one, in the order of its file.)

    Args:
      scores: float [...].
      positive: bool, the same shape.
      images: int, the same shape: the image of each entry, from 0; None: one entry per image, in order.
      positives: int [images]: positives of each image, including those that no entry stands for; None: those among
        the entries.

    Attributes:
      thresholds: float [T], the distinct scores from high to low.
      positives: int [images].

    Raises:
      ValueError: a score is nan.

    Example:
      >>> Ranking([0.9, 0.8, 0.3], [True, False, True]).counts().auroc
      0.5
    """

    def __init__(
        self,
        scores: np.ndarray,
        positive: np.ndarray,
        images: np.ndarray | None = None,
        positives: np.ndarray | None = None,
    ):
        scores = np.ravel(np.asarray(scores, np.float64))
        positive = np.ravel(np.asarray(positive, bool))
        if np.isnan(scores).any():
            raise ValueError(f"scores must be numbers. Received: {np.isnan(scores).sum()} nan of {len(scores)}")
        images = np.arange(len(scores)) if images is None else np.ravel(np.asarray(images, np.int64))
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        # Index of the last entry of each group of equal scores.
        self._last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
        self._images = images[order]  # [entries]
        self._positive = positive[order].astype(np.float64)  # [entries]
        self.positives = np.bincount(images, positive) if positives is None else np.asarray(positives)
        self.thresholds = ranked[self._last]

    def counts(self, weights: np.ndarray | None = None) -> Counts:
        """Return what each threshold retrieves.

        Args:
          weights: float [images]: how often each image counts; None: once.
        """
        weights = np.ones(len(self.positives)) if weights is None else weights
        entries = weights[self._images].astype(np.float64)  # weight of each entry
        hits = np.cumsum(entries * self._positive)
        alarms = np.cumsum(entries * (1 - self._positive))
        negatives = float(alarms[-1]) if len(alarms) else 0.0
        return Counts(self.thresholds, hits[self._last], alarms[self._last], float(weights @ self.positives), negatives)
