"""Boxes for Fast R-CNN (Girshick 2015): overlaps, targets, minibatches of regions, pooling, suppression.

A box is float32 [ymin, xmin, ymax, xmax] in pixels, half-open, so it is xmax - xmin wide; Girshick's release counts
whole pixels and adds 1. Number 0 is the background and classes are counted from 1 in training; `detections` gives them
from 0, as `experiments.voc.metrics` takes them. Everything works inside tf.function and tf.data with fixed shapes;
rows of zeros fill up.
"""

import math
from typing import NamedTuple

import tensorflow as tf

STDS = (0.1, 0.1, 0.2, 0.2)  # of (dy, dx, dlog h, dlog w): the constants in common use since Girshick's Faster R-CNN
LARGEST_GROWTH = math.log(1000 / 16)  # of a side, as a logarithm: `decode` allows no more (Detectron)
SMALLEST_SIDE = 1e-3  # pixels: `encode` divides by no less


def sides(boxes: tf.Tensor) -> tf.Tensor:
    """Height and width: [..., 4] to [..., 2], 0 where the corners are in the wrong order."""
    return tf.nn.relu(boxes[..., 2:] - boxes[..., :2])


def iou(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Intersection over union: boxes [n, 4] and [m, 4] to [n, m]; 0 where neither has an area."""
    a, b = tf.unstack(first[:, None], axis=-1), tf.unstack(second[None], axis=-1)  # four of [n, 1], four of [1, m]
    shared = tf.nn.relu(tf.minimum(a[2], b[2]) - tf.maximum(a[0], b[0]))  # rows
    shared *= tf.nn.relu(tf.minimum(a[3], b[3]) - tf.maximum(a[1], b[1]))
    area, other = (tf.reduce_prod(sides(boxes), -1) for boxes in (first[:, None], second[None]))
    return tf.math.divide_no_nan(shared, area + other - shared)


def encode(boxes: tf.Tensor, references: tf.Tensor, means=(0.0, 0.0, 0.0, 0.0), stds=STDS) -> tf.Tensor:
    """Regression targets: how a box is moved and scaled against its reference (Girshick et al. 2014, appendix C).

    dy and dx are distances of the centres in sides of the reference, dlog h and dlog w logarithms of the ratio of the
    sides. Sides below `SMALLEST_SIDE` count as that, so that padding gives finite numbers.

    Args:
      boxes: [..., 4].
      references: [..., 4].
      means: of the targets over a training set; subtracted.
      stds: what they are divided by then. Girshick (2015) has each target with zero mean and unit variance.

    Returns:
      [..., 4]: (dy, dx, dlog h, dlog w), normalised.
    """
    size, reference = (tf.maximum(sides(each), SMALLEST_SIDE) for each in (boxes, references))
    centre, origin = ((each[..., :2] + each[..., 2:]) / 2 for each in (boxes, references))
    targets = tf.concat([(centre - origin) / reference, tf.math.log(size / reference)], -1)
    return (targets - tf.constant(means, targets.dtype)) / tf.constant(stds, targets.dtype)


def decode(targets: tf.Tensor, references: tf.Tensor, means=(0.0, 0.0, 0.0, 0.0), stds=STDS) -> tf.Tensor:
    """The inverse of `encode`; no side grows beyond exp(`LARGEST_GROWTH`) = 62.5 times the reference's.

    Args:
      targets: [..., 4], normalised.
      references: [..., 4]; broadcast, so [n, 1, 4] serves targets [n, classes, 4].
      means, stds: as in `encode`.

    Returns:
      Boxes [..., 4].
    """
    targets = targets * tf.constant(stds, targets.dtype) + tf.constant(means, targets.dtype)
    reference = tf.maximum(sides(references), SMALLEST_SIDE)
    centre = (references[..., :2] + references[..., 2:]) / 2 + targets[..., :2] * reference
    half = tf.exp(tf.minimum(targets[..., 2:], LARGEST_GROWTH)) * reference / 2
    return tf.concat([centre - half, centre + half], -1)


def clip_to(boxes: tf.Tensor, height: tf.Tensor | float, width: tf.Tensor | float) -> tf.Tensor:
    """The part of each box [..., 4] that lies in an image; one that lies outside keeps no area."""
    ends = tf.cast(tf.stack([height, width, height, width]), boxes.dtype)
    return tf.clip_by_value(boxes, tf.zeros_like(ends), ends)


class Regions(NamedTuple):
    """A minibatch of regions of one image.

    Attributes:
      boxes: float32 [R, 4]: positives first, then background, then padding.
      classes: int32 [R]: 0 is background (and padding).
      targets: float32 [R, 4], normalised; 0 where the class is 0.
      weights: float32 [R]: 1, and 0 for padding. The regression loss counts where the class is above 0.
    """

    boxes: tf.Tensor
    classes: tf.Tensor
    targets: tf.Tensor
    weights: tf.Tensor


def sample_rois(
    proposals: tf.Tensor,
    truths: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    count: int = 64,
    positive_share: float = 0.25,
    positive_iou: float = 0.5,
    negative_iou: float = 0.1,
    means=(0.0, 0.0, 0.0, 0.0),
    stds=STDS,
) -> Regions:
    """Draws one image's regions of interest for a step (Girshick 2015, section 2.3).

    Candidates are the proposals and the true boxes themselves. Positives, at most `positive_share` of `count`, are
    drawn from those whose IoU with some true box is at least `positive_iou`; they take its class and regress to it (the
    first of equals). The rest are background: drawn from IoU in [negative_iou, positive_iou), the hard ones, and, where
    these are too few, from the easy ones below (ours; the release then takes fewer regions). Where both kinds together
    are too few, padding with weight 0 is left; further positives are not taken. Without true boxes all is background.

    Args:
      proposals: float32 [P, 4]; rows without area are padding.
      truths: float32 [T, 4], T at least 1; rows without area are padding.
      labels: int [T], from 1.
      seed: int [2]: the same seed draws the same regions.
      count: regions R; 64 for each of two images (paper).
      positive_share: of the regions (paper).
      positive_iou: least IoU of a positive (paper).
      negative_iou: least IoU of a hard negative (paper).
      means, stds: of `encode`.

    Returns:
      `Regions`, shuffled within each kind.
    """
    boxes = tf.concat([truths, proposals, tf.zeros([count, 4])], 0)  # [n, 4], n >= count whatever was given
    exists = tf.reduce_min(sides(boxes), -1) > 0
    overlaps = iou(boxes, truths)  # [n, T]; 0 with padding
    overlap, nearest = tf.reduce_max(overlaps, -1), tf.argmax(overlaps, -1)
    random = tf.random.stateless_uniform(tf.shape(overlap), seed)  # in [0, 1)
    hard = overlap >= negative_iou
    positive = tf.where(exists & (overlap >= positive_iou), random, -1.0)
    negative = tf.where(exists & (overlap < positive_iou), tf.where(hard, 1 + random, random), -1.0)  # hard ones first
    most = round(positive_share * count)
    keys, first = tf.math.top_k(positive, most)
    other_keys, second = tf.math.top_k(negative, count)
    taken = keys >= 0
    free = count - tf.reduce_sum(tf.cast(taken, tf.int32))
    taken = tf.concat([taken, (other_keys >= 0) & (tf.range(count) < free)], 0)  # [most + count]
    order = tf.argsort(tf.cast(~taken, tf.int32), stable=True)[:count]
    rows, weights = tf.gather(tf.concat([first, second], 0), order), tf.cast(tf.gather(taken, order), tf.float32)
    drawn, target = tf.gather(boxes, rows) * weights[:, None], tf.gather(nearest, rows)
    is_object = (order < most) & (weights > 0)
    classes = tf.where(is_object, tf.cast(tf.gather(labels, target), tf.int32), 0)
    targets = encode(tf.gather(truths, target), drawn, means, stds)
    return Regions(drawn, classes, tf.where(is_object[:, None], targets, 0.0), weights)


def roi_pool(
    features: tf.Tensor,
    rois: tf.Tensor,
    images: tf.Tensor,
    stride: float,
    size: int,
    first: float | None = None,
) -> tf.Tensor:
    """RoI max pooling on bilinear samples: each region becomes size x size cells.

    A region is cut into size x size equal bins, and a bin is the maximum over four samples, at 1/4 and 3/4 of its
    height and width. A sample is the bilinear mean of the four cells around it; cell (i, j) of the map stands at pixels
    (first + i * stride, first + j * stride) of the image, and beyond the outermost cells their values go on.

    Girshick's pooling rounds the region to whole cells, cuts these into bins that may overlap by a cell, and takes the
    maximum over all cells of a bin: it is not smooth in the box, misplaces it by up to half a stride, and sees every
    cell, where this one may pass over some if a region is more than 2 * size cells long. The samples are those of RoI
    align (He et al. 2017), which takes their mean.

    The samples are products with matrices of interpolation weights, rows first. tf.image.crop_and_resize would do the
    same, but its gradient drops summands when several threads write to one cell, so no training would repeat itself.

    Args:
      features: [B, h, w, c].
      rois: float32 [R, 4] in pixels of the images; one without area pools one point.
      images: int [R]: the image of each, below B.
      stride: pixels between two cells.
      size: cells a side of the result.
      first: pixel at which the first cell's centre stands; None: stride / 2.

    Returns:
      [R, size, size, c]; differentiable in the features alone.
    """
    batch, height, width, channels = tf.unstack(tf.shape(features))
    channels = features.shape[-1] or channels
    steps = (tf.range(2 * size, dtype=tf.float32) + 0.5) / (2 * size)
    corners, extent = rois[:, None, :2], (rois[:, 2:] - rois[:, :2])[:, None]
    pixels = corners + steps[:, None] * extent  # [R, 2 size, 2]
    cells = tf.stop_gradient((pixels - (stride / 2 if first is None else first)) / stride)
    of_rows, of_columns = (
        tf.cast(_interpolation(cells[..., axis], n), features.dtype) for axis, n in ((0, height), (1, width))
    )
    own = tf.one_hot(images, batch, dtype=features.dtype)[:, None, :, None]
    of_rows = tf.reshape(own * of_rows[:, :, None], [-1, batch * height])  # [R * 2 size, B * h]
    rows = tf.reshape(of_rows @ tf.reshape(features, [batch * height, -1]), [-1, 2 * size, width, channels])
    samples = of_columns[:, None] @ rows  # [R, 2 size, 2 size, c]
    return tf.nn.max_pool2d(samples, 2, 2, "VALID")


def _interpolation(positions: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Weights of `cells` cells in linear interpolation at positions [..., n]: [..., n, cells]; ends go on."""
    positions = tf.clip_by_value(positions, 0.0, tf.cast(cells - 1, tf.float32))
    return tf.nn.relu(1 - tf.abs(positions[..., None] - tf.range(tf.cast(cells, tf.float32))))


class Found(NamedTuple):
    """Detections in one image, from the highest score: fields as in `experiments.voc.metrics.Detections`."""

    boxes: tf.Tensor
    labels: tf.Tensor
    scores: tf.Tensor


def detections(
    scores: tf.Tensor, boxes: tf.Tensor, threshold: float = 0.05, limit: int = 100, overlap: float = 0.3
) -> Found:
    """Non-maximum suppression within each class, then the highest scores of all classes.

    Args:
      scores: float32 [R, classes + 1], background first.
      boxes: float32 [R, classes, 4] in pixels.
      threshold: only scores above it count.
      limit: most detections of the image, of all classes together.
      overlap: a box whose IoU with one of a higher score of its class is above it is dropped (0.3: release).

    Returns:
      `Found` of n <= limit detections: float32 [n, 4], int32 [n] from 0 (no background), float32 [n].
    """
    found = tf.image.combined_non_max_suppression(
        boxes[None],
        scores[None, :, 1:],
        max_output_size_per_class=limit,
        max_total_size=limit,
        iou_threshold=overlap,
        score_threshold=threshold,
        clip_boxes=False,
    )
    count = found.valid_detections[0]
    parts = (found.nmsed_boxes, tf.cast(found.nmsed_classes, tf.int32), found.nmsed_scores)
    return Found(*(part[0, :count] for part in parts))
