"""Average precision, detection matching and intersection over union by the rules of PASCAL VOC. Pure NumPy.

Every figure can be taken again with other weights of the images, so that one bootstrap over images serves all three
tasks: `lts.utils.statistics.bootstrap` with `AveragePrecision.weighted`, or with `class_iou` of the weighted sum of
confusion matrices, `lambda times: class_iou(np.tensordot(times, confusions, 1))`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lts.utils.ranking import Ranking

RULES = ("11-point", "area")
HIT, ALARM, IGNORED = 1, 0, -1  # what becomes of a detection


class Detections(NamedTuple):
    """What was found in one image.

    Attributes:
      boxes: float [n, 4]: ymin, xmin, ymax, xmax in pixels, half-open.
      labels: int [n], from 0, without background.
      scores: float [n].
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class Truths(NamedTuple):
    """What there is in one image; anything with these attributes serves.

    Attributes:
      boxes: float [m, 4]: ymin, xmin, ymax, xmax in pixels, half-open.
      labels: int [m], from 0, without background.
      difficult: bool [m].
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclasses.dataclass(frozen=True)
class AveragePrecision:
    """Average precision of several classes over the same images.

    Attributes:
      rankings: one a class: thresholds, and precision and recall for plots.
      rule: "11-point" or "area".
    """

    rankings: tuple[Ranking, ...]
    rule: str

    def weighted(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Float [classes], with each image counted so often; nan where no positive is left."""
        return np.array([ranking.counts(weights).average_precision(self.rule) for ranking in self.rankings])

    @functools.cached_property
    def per_class(self) -> np.ndarray:
        """Float [classes]; nan for a class without positives."""
        return self.weighted()

    @property
    def mean(self) -> float:
        """Over the classes that have positives."""
        return float(class_mean(self.per_class))

    @property
    def images(self) -> int:
        """How many there are, to be drawn from."""
        return len(self.rankings[0].positives)


def classification_ap(scores: np.ndarray, labels: np.ndarray, rule: str) -> AveragePrecision:
    """Average precision of image-level labels, each class ranking all images (VOC classification).

    Args:
      scores: float [images, classes].
      labels: int [images, classes]: 1 present, 0 absent, -1 left out of this class' ranking ("difficult" only).
      rule: "11-point" or "area".

    Raises:
      ValueError: shapes that differ, another label, a score that is not a number.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"scores and labels must be [images, classes]. Received: {scores.shape} and {labels.shape}")
    if not np.isin(labels, (1, 0, -1)).all():
        raise ValueError(f"labels must be 1, 0 or -1. Received: {np.setdiff1d(labels, (1, 0, -1))[:3]}")
    rankings = []
    for column, marks in zip(scores.T, labels.T, strict=True):
        kept = np.flatnonzero(marks >= 0)
        rankings.append(Ranking(column[kept], marks[kept] == 1, kept, marks == 1))
    return AveragePrecision(tuple(rankings), rule)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of half-open boxes.

    VOC's annotations name the first and the last pixel of a box, counted from 1, and its development kit measures
    xmax - xmin + 1. As half-open [xmin - 1, xmax) the same box has the same width without the + 1.

    Args:
      first: float [n, 4]: ymin, xmin, ymax, xmax.
      second: float [m, 4].

    Returns:
      float64 [n, m]; 0 where neither box has an area.
    """
    first, second = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1) for boxes in (first, second)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-300)


def match(detections: Detections, truths: Truths, iou: float = 0.5) -> np.ndarray:
    """What becomes of each detection of one image (VOC development kit, VOCevaldet).

    Each is held against the box of its class with which its IoU is largest, the first of equals. Below the threshold
    it is a false alarm. If that box is difficult it is ignored; if a detection with a higher score (or an equal one
    that stands before it) was held against that box it is a duplicate, a false alarm, though it may cover another
    box too; else it is a hit.

    Args:
      detections: of the image, in any order.
      truths: of the image.
      iou: least intersection over union, in (0, 1].

    Returns:
      int8 [n]: `HIT`, `ALARM` or `IGNORED`.
    """
    outcome = np.full(len(detections.scores), ALARM, np.int8)
    if not len(truths.labels):
        return outcome
    same = np.asarray(detections.labels)[:, None] == np.asarray(truths.labels)[None]
    overlaps = np.where(same, box_iou(detections.boxes, truths.boxes), -1.0)  # [n, m]
    best, near = overlaps.argmax(axis=1), overlaps.max(axis=1) >= iou
    difficult = np.asarray(truths.difficult, bool)[best]
    outcome[near & difficult] = IGNORED
    order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
    order = order[(near & ~difficult)[order]]
    _, first = np.unique(best[order], return_index=True)  # the highest score of each box
    outcome[order[first]] = HIT
    return outcome


def detection_ap(
    detections: Sequence[Detections], truths: Sequence[Truths], classes: int, rule: str, iou: float = 0.5
) -> AveragePrecision:
    """Average precision of detections, each class ranking those of all images (VOC detection).

    Detections are matched once, see `match`; difficult boxes are no positives, and what finds them is left out.

    Args:
      detections: of each image.
      truths: of each image, in the same order.
      classes: how many there are.
      rule: "11-point" or "area".
      iou: that a detection needs.

    Raises:
      ValueError: other numbers of images, or a label that is no class.
    """
    if len(detections) != len(truths):
        raise ValueError(f"every image needs both. Received: {len(detections)} detections and {len(truths)} truths")
    pairs, counts = zip(detections, truths, strict=True), [len(each.scores) for each in detections]
    found, scores = (np.concatenate([[], *(getattr(d, name) for d in detections)]) for name in ("labels", "scores"))
    there = np.concatenate([[], *(each.labels for each in truths)]).astype(np.int64)
    for name, values in (("detections", found), ("truths", there)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"labels of {name} must be in 0..{classes - 1}. Received: {values.min()}..{values.max()}")
    outcome = np.concatenate([np.zeros(0, np.int8), *(match(*pair, iou) for pair in pairs)])
    images = np.repeat(np.arange(len(detections)), counts)
    easy = np.concatenate([[], *(each.difficult for each in truths)]) == 0
    place = np.repeat(np.arange(len(truths)), [len(each.labels) for each in truths]) * classes + there
    positives = np.bincount(place[easy], minlength=len(truths) * classes).reshape(-1, classes)  # [images, classes]
    rankings = []
    for number in range(classes):
        kept = (found == number) & (outcome != IGNORED)
        rankings.append(Ranking(scores[kept], outcome[kept] == HIT, images[kept], positives[:, number]))
    return AveragePrecision(tuple(rankings), rule)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore: int = 255) -> np.ndarray:
    """Pixels by class that is there and class that is predicted; those of several images are summed.

    Args:
      truth: int [...]: 0..classes-1, or `ignore`: these pixels are left out.
      prediction: int, same shape.
      classes: how many there are, background included.
      ignore: mark of pixels that belong to no class.

    Returns:
      int64 [classes (truth), classes (prediction)].

    Raises:
      ValueError: shapes that differ, or another class.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must have one shape. Received: {truth.shape} and {prediction.shape}")
    kept = truth != ignore
    pair = [values[kept].astype(np.int64) for values in (truth, prediction)]
    for name, values in zip(("truth", "prediction"), pair, strict=True):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"{name} must be in 0..{classes - 1}. Received: {values.min()}..{values.max()}")
    return np.bincount(pair[0] * classes + pair[1], minlength=classes**2).reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union, float [..., classes] of [..., classes, classes]; nan: neither there nor predicted."""
    shared = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - shared
    return np.divide(shared, union, out=np.full(shared.shape, np.nan), where=union > 0)


@dataclasses.dataclass(frozen=True)
class SegmentationScore:
    """What `mean_iou` gives.

    Attributes:
      per_class: float [classes], intersection over union; nan for classes neither there nor predicted.
      mean: of the others: a class that is predicted where it never is counts with 0.
      pixel_accuracy: share of the pixels with the right class, ignored ones left out; nan without pixels.
    """

    per_class: np.ndarray
    mean: float
    pixel_accuracy: float


def mean_iou(confusion: np.ndarray) -> SegmentationScore:
    """Intersection over union per class and mean, over the pixels of all images together (VOC segmentation).

    Args:
      confusion: int [classes, classes], summed over the images, see `confusion_matrix`.
    """
    per_class, pixels = class_iou(confusion), confusion.sum()
    accuracy = float(np.trace(confusion) / pixels) if pixels else float("nan")
    return SegmentationScore(per_class, float(class_mean(per_class)), accuracy)


def class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without nan; nan where there is nothing else."""
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    return np.where(count, np.where(there, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)
