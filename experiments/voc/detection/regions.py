"""Training examples and test views of Fast R-CNN."""

from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc.data.dataset import VocSet
from experiments.voc.detection.boxes import Regions, sample_rois
from experiments.voc.metrics import box_iou
from experiments.voc.protocols import DetectionProtocol
from lts import data

DIFFICULT_IOU = 0.5  # proposals over difficult objects are neither object nor background in training (ours)


def scale_to(height: tf.Tensor, width: tf.Tensor, side: tf.Tensor, longest: int) -> tf.Tensor:
    """Return the size of an image scaled to a shorter side of `side`.

    The scale is smaller where the longer side would exceed `longest`.

    Returns:
      int32 [2], (height, width), at least 1.
    """
    size = tf.cast(tf.stack([height, width]), tf.float32)
    scale = tf.minimum(tf.cast(side, tf.float32) / tf.reduce_min(size), longest / tf.reduce_max(size))
    return tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)


def scaled_view(image: tf.Tensor, side: tf.Tensor, longest: int, layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Scale an image, and pad it with grey at the bottom and right.

    Args:
      image: uint8 [h, w, 3].
      side: pixels of the shorter side, see `scale_to`.
      longest: largest longer side, see `scale_to`.
      layer: layer of the pooled map, a value of `LoadedModel.geometry`.

    Returns:
      float32 [H, W, 3] in [-1, 1], padding 0; and float32 [4], the factors from boxes of the image to the view's.
    """
    before = tf.shape(image)[:2]
    size = scale_to(before[0], before[1], side, longest)
    pixels = tf.image.resize(tf.cast(image, tf.float32), size, antialias=True)
    # NB: with "SAME" padding the position of a cell depends on the side modulo the stride, so sides are whole strides.
    missing = tf.maximum(size, layer.smallest)
    missing += -missing % layer.stride - size
    signed = tf.pad(data.as_signed(pixels), [[0, missing[0]], [0, missing[1]], [0, 0]])
    return tf.ensure_shape(signed, [None, None, 3]), tf.tile(tf.cast(size / before, tf.float32), [2])


def flip_boxes(boxes: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Mirror boxes [n, 4] of an image left-right."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    return tf.stack([ymin, width - xmax, ymax, width - xmin], -1)


class Candidates:
    """Proposals and true boxes of the training images, for `tf.data`.

    Args:
      voc: training images; an image without objects gives only background.
      proposals: float32 [n, 4] of each image.
    """

    def __init__(self, voc: VocSet, proposals: tuple[np.ndarray, ...]):
        kept = []
        truths = []
        labels = []
        for boxes, objects in zip(proposals, voc.objects, strict=True):
            easy = ~objects.difficult
            kept.append(_without_difficult(boxes, objects.boxes[objects.difficult], objects.boxes[easy]))
            # A row of zeros, so that no image has an empty list.
            truths.append(np.concatenate([objects.boxes[easy], np.zeros([1, 4])]))
            labels.append(np.append(1 + objects.labels[easy], 0))
        self._proposals = _ragged(kept)
        self._truths = _ragged(truths)
        self._labels = _ragged(labels)

    def of(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return proposals [P, 4], true boxes [T, 4] (the last a row of zeros) and labels int32 [T] of an image."""
        labels = tf.cast(self._labels[index], tf.int32)
        return self._proposals[index], self._truths[index], labels


def _without_difficult(boxes: np.ndarray, difficult: np.ndarray, easy: np.ndarray) -> np.ndarray:
    """Return the proposals that cover no difficult object, or also an easy one."""
    on_difficult = box_iou(boxes, difficult).max(axis=1, initial=0) >= DIFFICULT_IOU
    on_easy = box_iou(boxes, easy).max(axis=1, initial=0) >= DIFFICULT_IOU
    return boxes[~on_difficult | on_easy]


def _ragged(rows: list[np.ndarray]) -> tf.RaggedTensor:
    """Return rows as float32 [N, (n), ...]."""
    values = np.concatenate(rows).astype(np.float32)
    return tf.RaggedTensor.from_row_lengths(values, [len(row) for row in rows])


def training_example(
    image: tf.Tensor,
    candidates: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    seed: tf.Tensor,
    protocol: DetectionProtocol,
    layer: Any,
) -> tuple[tf.Tensor, Regions]:
    """Return one image of a step with its regions.

    The image is at one of several scales and mirrored with probability 1/2 (Girshick 2015).

    Args:
      image: uint8 [h, w, 3].
      candidates: result of `Candidates.of`, in pixels of `image`.
      seed: int [2]; the same seed gives the same example.
      protocol: scales and settings of the regions.
      layer: layer of the pooled map.

    Returns:
      float32 [H, W, 3] in [-1, 1], sides multiples of the layer's stride; and the regions in its pixels.
    """
    proposals, truths, labels = candidates
    draws = tf.random.stateless_uniform([2], seed)
    sides = tf.constant(protocol.sides)
    side = sides[tf.minimum(tf.cast(draws[0] * len(protocol.sides), tf.int32), len(protocol.sides) - 1)]
    mirrored = draws[1] < 0.5
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    width = tf.cast(tf.shape(image)[1], tf.float32)
    proposals = tf.cond(mirrored, lambda: flip_boxes(proposals, width), lambda: proposals)
    truths = tf.cond(mirrored, lambda: flip_boxes(truths, width), lambda: truths)
    view, factors = scaled_view(image, side, protocol.longest, layer)
    regions = sample_rois(
        proposals * factors,
        truths * factors,
        labels,
        tf.random.experimental.stateless_fold_in(seed, 1),
        count=protocol.regions // protocol.batch_size,
        positive_share=protocol.positive_share,
        positive_iou=protocol.positive_iou,
        negative_iou=protocol.negative_iou,
    )
    return view, regions
