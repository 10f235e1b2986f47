"""Metrics of PASCAL VOC in NumPy.

Average precision, matching of detections, and intersection over union. Every figure can be computed with weights of the
images, so `lts.utils.statistics.bootstrap` serves all three tasks.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lts.utils.ranking import Ranking

RULES = ("11-point", "area")
# Outcomes of a detection.
HIT = 1
FALSE_ALARM = 0
IGNORED = -1


class Detections(NamedTuple):
    """Detections in one image.

    Attributes:
      boxes: float [n, 4]: ymin, xmin, ymax, xmax in pixels, half-open.
      labels: int [n], from 0, without background.
      scores: float [n].
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class Truths(NamedTuple):
    """Objects of one image; any object with these attributes works.

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
      rankings: one per class.
      rule: "11-point" or "area".
    """

    rankings: tuple[Ranking, ...]
    rule: str

    def weighted(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return float [classes] with weighted images; nan where no positive is left."""
        return np.array([ranking.counts(weights).average_precision(self.rule) for ranking in self.rankings])

    @functools.cached_property
    def per_class(self) -> np.ndarray:
        """Values of the classes, float [classes]; nan without positives."""
        return self.weighted()

    @property
    def mean(self) -> float:
        """Mean over the classes that have positives."""
        return float(class_mean(self.per_class))

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.rankings[0].positives)


def classification_ap(scores: np.ndarray, labels: np.ndarray, rule: str) -> AveragePrecision:
    """Return the average precision of image labels (VOC classification).

    Each class ranks all images.

    Args:
      scores: float [images, classes].
      labels: int [images, classes]: 1 present, 0 absent, -1 ignored in the ranking of this class (only "difficult").
      rule: "11-point" or "area".

    Raises:
      ValueError: shapes that differ, another label, a score that is not a number.
    """
    scores = np.asarray(scores)
    labels = np.asarray(labels)
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
    """Return the intersection over union of half-open boxes.

    VOC's annotations name the first and the last pixel of a box, counted from 1, and its development kit measures
    xmax - xmin + 1. As half-open [xmin - 1, xmax) the same box has the same width without the + 1.

    Args:
      first: float [n, 4]: ymin, xmin, ymax, xmax.
      second: float [m, 4].

    Returns:
      float64 [n, m]; 0 where neither box has an area.
    """
    first = np.asarray(first, np.float64)[:, None]
    second = np.asarray(second, np.float64)[None]
    top_left = np.maximum(first[..., :2], second[..., :2])
    bottom_right = np.minimum(first[..., 2:], second[..., 2:])
    intersection = _area(top_left, bottom_right)
    union = _area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:]) - intersection
    return intersection / np.maximum(union, 1e-300)


def _area(top_left: np.ndarray, bottom_right: np.ndarray) -> np.ndarray:
    """Return the areas of boxes; 0 where a side is negative."""
    return np.prod(np.maximum(bottom_right - top_left, 0), axis=-1)


def match(detections: Detections, truths: Truths, iou: float = 0.5) -> np.ndarray:
    """Match the detections of one image to its objects.

    Source: VOC development kit, VOCevaldet. A detection is compared with the object of its class that has the largest
    IoU, the first of equals.

    - Below the threshold it is a false alarm.
    - If that object is difficult, it is ignored.
    - If a detection with a higher score, or an earlier one with the same score, was compared with that object, it is a
      duplicate and a false alarm, even if it also covers another object.
    - Otherwise it is a hit.

    Args:
      detections: of the image, in any order.
      truths: objects of the image.
      iou: smallest intersection over union, in (0, 1].

    Returns:
      int8 [n]: `HIT`, `FALSE_ALARM` or `IGNORED`.
    """
    outcome = np.full(len(detections.scores), FALSE_ALARM, np.int8)
    if not len(truths.labels):
        return outcome
    same = np.asarray(detections.labels)[:, None] == np.asarray(truths.labels)[None]
    overlaps = np.where(same, box_iou(detections.boxes, truths.boxes), -1.0)  # [n, m]
    best = overlaps.argmax(axis=1)
    near = overlaps.max(axis=1) >= iou
    difficult = np.asarray(truths.difficult, bool)[best]
    outcome[near & difficult] = IGNORED
    order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
    order = order[(near & ~difficult)[order]]
    _, first = np.unique(best[order], return_index=True)  # the highest score of each object
    outcome[order[first]] = HIT
    return outcome


def detection_ap(
    detections: Sequence[Detections], truths: Sequence[Truths], classes: int, rule: str, iou: float = 0.5
) -> AveragePrecision:
    """Return the average precision of detections (VOC detection).

    Each class ranks the detections of all images. Difficult objects are no positives, and detections of them are
    ignored.

    Args:
      detections: detections of each image.
      truths: objects of each image, in the same order.
      classes: number of classes.
      rule: "11-point" or "area".
      iou: smallest intersection over union of a hit.

    Raises:
      ValueError: different numbers of images, or a label that is no class.
    """
    if len(detections) != len(truths):
        raise ValueError(f"every image needs both. Received: {len(detections)} detections and {len(truths)} truths")
    found_labels = np.concatenate([[], *(found.labels for found in detections)])
    found_scores = np.concatenate([[], *(found.scores for found in detections)])
    true_labels = np.concatenate([[], *(truth.labels for truth in truths)]).astype(np.int64)
    difficult = np.concatenate([[], *(truth.difficult for truth in truths)]) != 0
    for name, values in (("detections", found_labels), ("truths", true_labels)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"labels of {name} must be in 0..{classes - 1}. Received: {values.min()}..{values.max()}")

    outcomes = [match(found, truth, iou) for found, truth in zip(detections, truths, strict=True)]
    outcome = np.concatenate([np.zeros(0, np.int8), *outcomes])
    image_of_detection = np.repeat(np.arange(len(detections)), [len(found.scores) for found in detections])

    # Positives of every image and class.
    image_of_object = np.repeat(np.arange(len(truths)), [len(truth.labels) for truth in truths])
    bins = image_of_object * classes + true_labels
    positives = np.bincount(bins[~difficult], minlength=len(truths) * classes).reshape(-1, classes)

    rankings = []
    for label in range(classes):
        kept = (found_labels == label) & (outcome != IGNORED)
        hits = outcome[kept] == HIT
        rankings.append(Ranking(found_scores[kept], hits, image_of_detection[kept], positives[:, label]))
    return AveragePrecision(tuple(rankings), rule)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore: int = 255) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
      truth: int [...], 0..classes-1, or `ignore` for ignored pixels.
      prediction: int, same shape.
      classes: number of classes, background included.
      ignore: label of pixels without a class.

    Returns:
      int64 [classes (truth), classes (prediction)].

    Raises:
      ValueError: shapes that differ, or another class.
    """
    truth = np.asarray(truth)
    prediction = np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must have one shape. Received: {truth.shape} and {prediction.shape}")
    kept = truth != ignore
    true_classes = truth[kept].astype(np.int64)
    predicted_classes = prediction[kept].astype(np.int64)
    for name, values in (("truth", true_classes), ("prediction", predicted_classes)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"{name} must be in 0..{classes - 1}. Received: {values.min()}..{values.max()}")
    return np.bincount(true_classes * classes + predicted_classes, minlength=classes**2).reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class.

    Args:
      confusion: [..., classes, classes], see `confusion_matrix`.

    Returns:
      float [..., classes]; nan for a class that is neither present nor predicted.
    """
    shared = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - shared
    return np.divide(shared, union, out=np.full(shared.shape, np.nan), where=union > 0)


@dataclasses.dataclass(frozen=True)
class SegmentationScore:
    """Result of `mean_iou`.

    Attributes:
      per_class: float [classes], intersection over union; nan for classes neither present nor predicted.
      mean: mean of the others. A class that is predicted but never present counts as 0.
      pixel_accuracy: fraction of labelled pixels with the correct class; nan without pixels.
    """

    per_class: np.ndarray
    mean: float
    pixel_accuracy: float


def mean_iou(confusion: np.ndarray) -> SegmentationScore:
    """Return the intersection over union over the pixels of all images (VOC segmentation).

    Args:
      confusion: int [classes, classes], summed over the images, see `confusion_matrix`.
    """
    per_class = class_iou(confusion)
    pixels = confusion.sum()
    accuracy = float(np.trace(confusion) / pixels) if pixels else float("nan")
    return SegmentationScore(per_class, float(class_mean(per_class)), accuracy)


def class_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis, ignoring nan; nan where all values are."""
    measured = ~np.isnan(values)
    count = measured.sum(axis=-1)
    sums = np.where(measured, values, 0).sum(axis=-1)
    return np.where(count, sums / np.maximum(count, 1), np.nan)
