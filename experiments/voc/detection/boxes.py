"""Boxes for Fast R-CNN (Girshick 2015).

Overlaps, regression targets, minibatches of regions, pooling and suppression. A box is float32 [ymin, xmin, ymax, xmax]
in pixels, half-open, so its width is xmax - xmin; Girshick's release counts whole pixels and adds 1. Class 0 is the
background in training and classes are counted from 1; `detections` counts them from 0, as `experiments.voc.metrics`
does. Everything works in tf.function and tf.data with fixed shapes; rows of zeros are padding.
"""

import math
from typing import NamedTuple

import tensorflow as tf
from keras.utils import bounding_boxes

STDS = (0.1, 0.1, 0.2, 0.2)  # of (dy, dx, dlog h, dlog w), in common use since Faster R-CNN
LARGEST_GROWTH = math.log(1000 / 16)  # largest logarithm of a side's growth in `decode` (Detectron)


def sides(boxes: tf.Tensor) -> tf.Tensor:
    """Return height and width, [..., 4] to [..., 2]; 0 where the corners are in the wrong order."""
    return tf.nn.relu(boxes[..., 2:] - boxes[..., :2])


def iou(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Return the intersection over union of boxes [n, 4] and [m, 4], [n, m]; 0 without an area."""
    return bounding_boxes.compute_iou(first, second, "yxyx")


def encode(boxes: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Return the regression targets of boxes.

    Source: Girshick et al. 2014, appendix C. dy and dx are distances of the centres in sides of the reference, dlog h
    and dlog w logarithms of the ratio of the sides. They are divided by `STDS`: Girshick (2015) gives each target unit
    variance. Padding gives finite numbers.

    Args:
      boxes: [n, 4].
      references: [n, 4].

    Returns:
      [n, 4]: (dy, dx, dlog h, dlog w), normalised.
    """
    return bounding_boxes.encode_box_to_deltas(references, boxes, "yxyx", "yxyx", variance=STDS)


def decode(targets: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
    """Return the boxes of regression targets, the inverse of `encode`.

    Args:
      targets: [n, 4] or [n, classes, 4], normalised.
      references: [n, 4], or [n, 1, 4] for all classes.

    Returns:
      Boxes with the shape of `targets`. No side grows by more than exp(`LARGEST_GROWTH`) = 62.5.
    """
    # NB: without the limit the exponential of an untrained head overflows.
    limits = [math.inf, math.inf, LARGEST_GROWTH / STDS[2], LARGEST_GROWTH / STDS[3]]
    targets = tf.minimum(targets, tf.constant(limits, targets.dtype))
    return bounding_boxes.decode_deltas_to_boxes(references, targets, "yxyx", "yxyx", variance=STDS)


def clip_to(boxes: tf.Tensor, height: tf.Tensor | float, width: tf.Tensor | float) -> tf.Tensor:
    """Clip boxes [..., 4] to an image; a box outside keeps no area.

    `clip_to_image_size` of Keras takes dictionaries with labels, and removes boxes without area.
    """
    ends = tf.cast(tf.stack([height, width, height, width]), boxes.dtype)
    return tf.clip_by_value(boxes, tf.zeros_like(ends), ends)


class Regions(NamedTuple):
    """Minibatch of regions of one image.

    Attributes:
      boxes: float32 [R, 4], positives first, then background, then padding.
      classes: int32 [R], 0 for background and padding.
      targets: float32 [R, 4], normalised; 0 where the class is 0.
      weights: float32 [R], 1, and 0 for padding. The regression loss covers classes above 0.
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
) -> Regions:
    """Draw the regions of interest of one image for a step.

    Source: Girshick 2015, section 2.3. Candidates are the proposals and the true boxes.

    - Positives, at most `positive_share` of `count`, are drawn from candidates whose IoU with a true box is at least
      `positive_iou`. They take its class and regress to it (the first of equals).
    - The rest is background. It is drawn from IoU in [negative_iou, positive_iou), the hard negatives, and where these
      are too few from the easy ones below (ours; the release takes fewer regions).
    - Where both kinds are too few, the rest is padding with weight 0. Without true boxes everything is background.

    Args:
      proposals: float32 [P, 4]; rows without area are padding.
      truths: float32 [T, 4], T at least 1; rows without area are padding.
      labels: int [T], from 1.
      seed: int [2]; the same seed draws the same regions.
      count: number of regions R; 64 for each of two images (paper).
      positive_share: largest fraction of positives (paper).
      positive_iou: smallest IoU of a positive (paper).
      negative_iou: smallest IoU of a hard negative (paper).

    Returns:
      `Regions`, shuffled within each kind.
    """
    # `count` rows of padding, so that there are at least `count` candidates.
    boxes = tf.concat([truths, proposals, tf.zeros([count, 4])], 0)
    exists = tf.reduce_min(sides(boxes), -1) > 0
    overlaps = iou(boxes, truths)  # [candidates, T]; 0 with padding
    overlap = tf.reduce_max(overlaps, -1)
    nearest = tf.argmax(overlaps, -1)

    # The candidates with the largest keys are drawn. Keys are random in [0, 1), hard negatives get 1 more, and
    # candidates of the other kind get -1.
    random = tf.random.stateless_uniform(tf.shape(overlap), seed)
    is_positive = exists & (overlap >= positive_iou)
    is_negative = exists & (overlap < positive_iou)
    negative_keys = tf.where(overlap >= negative_iou, 1 + random, random)
    most_positives = round(positive_share * count)
    positive_keys, positive_rows = tf.math.top_k(tf.where(is_positive, random, -1.0), most_positives)
    negative_keys, negative_rows = tf.math.top_k(tf.where(is_negative, negative_keys, -1.0), count)

    # Take all drawn positives, then negatives up to `count`, then padding.
    positive_taken = positive_keys >= 0
    free = count - tf.reduce_sum(tf.cast(positive_taken, tf.int32))
    negative_taken = (negative_keys >= 0) & (tf.range(count) < free)
    taken = tf.concat([positive_taken, negative_taken], 0)  # [most_positives + count]
    order = tf.argsort(tf.cast(~taken, tf.int32), stable=True)[:count]
    weights = tf.cast(tf.gather(taken, order), tf.float32)
    rows = tf.gather(tf.concat([positive_rows, negative_rows], 0), order)
    regions = tf.gather(boxes, rows) * weights[:, None]

    truth_of_region = tf.gather(nearest, rows)
    is_object = (order < most_positives) & (weights > 0)
    classes = tf.where(is_object, tf.cast(tf.gather(labels, truth_of_region), tf.int32), 0)
    targets = encode(tf.gather(truths, truth_of_region), regions)
    targets = tf.where(is_object[:, None], targets, 0.0)
    return Regions(regions, classes, targets, weights)


def roi_pool(
    features: tf.Tensor,
    rois: tf.Tensor,
    images: tf.Tensor,
    stride: float,
    size: int,
    first: float | None = None,
) -> tf.Tensor:
    """Pool regions by the maximum over bilinear samples.

    A region is divided into size x size equal bins. A bin is the maximum over four samples, at 1/4 and 3/4 of its
    height and width. A sample is the bilinear mean of the four cells around it. Cell (i, j) of the map is at pixels
    (first + i * stride, first + j * stride) of the image; beyond the outermost cells their values continue.

    Girshick's pooling rounds the region to whole cells and takes the maximum over all cells of a bin. It is not smooth
    in the box and displaces it by up to half a stride, but it sees every cell; this one may skip some if a region is
    more than 2 * size cells long. The samples are those of RoI align (He et al. 2017), which takes their mean.

    Args:
      features: [B, h, w, c].
      rois: float32 [R, 4] in pixels of the images; one without area pools one point.
      images: int [R], index of the image of each region.
      stride: pixels between two cells.
      size: cells per side of the result.
      first: centre of the first cell in pixels; None: stride / 2.

    Returns:
      [R, size, size, c]; differentiable in the features only.
    """
    batch, height, width, channels = tf.unstack(tf.shape(features))
    channels = features.shape[-1] or channels
    if first is None:
        first = stride / 2

    # Positions of the samples in cells, [R, 2 * size, 2].
    fractions = (tf.range(2 * size, dtype=tf.float32) + 0.5) / (2 * size)
    extent = rois[:, None, 2:] - rois[:, None, :2]
    pixels = rois[:, None, :2] + fractions[:, None] * extent
    positions = tf.stop_gradient((pixels - first) / stride)
    row_weights = tf.cast(_interpolation(positions[..., 0], height), features.dtype)
    column_weights = tf.cast(_interpolation(positions[..., 1], width), features.dtype)

    # NB: the samples are products with interpolation weights, rows first. `tf.image.crop_and_resize` would do the same,
    # but its gradient loses summands on CPUs when threads write to one cell (TensorFlow issue 42033), so training would
    # not be reproducible. 128 regions of two 15 x 20 x 256 maps, forward and backward: 69 ms here, 117 ms there.
    image_of_region = tf.one_hot(images, batch, dtype=features.dtype)[:, None, :, None]
    row_weights = tf.reshape(image_of_region * row_weights[:, :, None], [-1, batch * height])  # [R * 2 size, B * h]
    rows = row_weights @ tf.reshape(features, [batch * height, -1])
    rows = tf.reshape(rows, [-1, 2 * size, width, channels])
    samples = column_weights[:, None] @ rows  # [R, 2 size, 2 size, c]
    return tf.nn.max_pool2d(samples, 2, 2, "VALID")


def _interpolation(positions: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Return the weights of linear interpolation between cells, [..., n] to [..., n, cells]."""
    positions = tf.clip_by_value(positions, 0.0, tf.cast(cells - 1, tf.float32))
    return tf.nn.relu(1 - tf.abs(positions[..., None] - tf.range(tf.cast(cells, tf.float32))))


class DetectionTensors(NamedTuple):
    """Detections in one image, highest score first; fields of `experiments.voc.metrics.Detections`."""

    boxes: tf.Tensor
    labels: tf.Tensor
    scores: tf.Tensor


def detections(
    scores: tf.Tensor, boxes: tf.Tensor, threshold: float = 0.05, limit: int = 100, overlap: float = 0.3
) -> DetectionTensors:
    """Suppress non-maxima within each class and keep the highest scores of all classes.

    Args:
      scores: float32 [R, classes + 1], background first.
      boxes: float32 [R, classes, 4] in pixels.
      threshold: scores must be above it.
      limit: largest number of detections in the image, over all classes.
      overlap: IoU above which the detection with the lower score of a class is dropped (0.3: release).

    Returns:
      n <= limit detections: float32 [n, 4], int32 [n] from 0 (no background), float32 [n].
    """
    suppressed = tf.image.combined_non_max_suppression(
        boxes[None],
        scores[None, :, 1:],
        max_output_size_per_class=limit,
        max_total_size=limit,
        iou_threshold=overlap,
        score_threshold=threshold,
        clip_boxes=False,
    )
    count = suppressed.valid_detections[0]
    return DetectionTensors(
        boxes=suppressed.nmsed_boxes[0, :count],
        labels=tf.cast(suppressed.nmsed_classes[0, :count], tf.int32),
        scores=suppressed.nmsed_scores[0, :count],
    )
