"""Images at several scales with their regions: the examples that Fast R-CNN trains on, and its test views."""

from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc.data.dataset import VocSet
from experiments.voc.detection.boxes import Regions, sample_rois
from experiments.voc.metrics import box_iou
from experiments.voc.protocols import DetectionProtocol

DIFFICULT_IOU = 0.5  # proposals that cover a difficult object are neither learnt as objects nor as background (ours)


def scale_to(height: tf.Tensor, width: tf.Tensor, side: tf.Tensor, longest: int) -> tf.Tensor:
    """Size of an image whose shorter side is to be `side`, or whose longer one `longest` where that is smaller.

    Returns:
      int32 [2], (height, width), at least 1.
    """
    size = tf.cast(tf.stack([height, width]), tf.float32)
    scale = tf.minimum(tf.cast(side, tf.float32) / tf.reduce_min(size), longest / tf.reduce_max(size))
    return tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)


def scaled_view(image: tf.Tensor, side: tf.Tensor, longest: int, layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """An image at another scale (Girshick 2015), padded with grey at the bottom and right.

    The sides become multiples of the backbone's stride: for others TensorFlow's "SAME" padding puts the cells elsewhere.

    Args:
      image: uint8 [h, w, 3].
      side, longest: of `scale_to`.
      layer: that the regions are pooled of, `LoadedModel.geometry["conv_5"]`.

    Returns:
      float32 [H, W, 3] in [-1, 1], padding 0; and float32 [4], what (ymin, xmin, ymax, xmax) of the image are
      multiplied by to be those of the result.
    """
    before = tf.shape(image)[:2]
    size = scale_to(before[0], before[1], side, longest)
    pixels = tf.image.resize(tf.cast(image, tf.float32), size, antialias=True)
    missing = tf.maximum(size, layer.smallest)
    missing += -missing % layer.stride - size
    signed = tf.pad(pixels / 127.5 - 1, [[0, missing[0]], [0, missing[1]], [0, 0]])
    return tf.ensure_shape(signed, [None, None, 3]), tf.tile(tf.cast(size / before, tf.float32), [2])


def flip_boxes(boxes: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Boxes [n, 4] of an image of this width, when it is mirrored left-right."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    return tf.stack([ymin, width - xmax, ymax, width - xmin], -1)


class Candidates:
    """Proposals and true boxes of the training images, to be read inside `tf.data`.

    Args:
      voc: the training images. One without objects gives background alone.
      proposals: float32 [n, 4] of each image.
    """

    def __init__(self, voc: VocSet, proposals: tuple[np.ndarray, ...]):
        kept = [
            _without_difficult(boxes, found.boxes[found.difficult], found.boxes[~found.difficult])
            for boxes, found in zip(proposals, voc.objects, strict=True)
        ]
        easy = [(found.boxes[~found.difficult], 1 + found.labels[~found.difficult]) for found in voc.objects]
        self._proposals = _ragged(kept)
        self._truths = _ragged([np.concatenate([boxes, np.zeros([1, 4])]) for boxes, _ in easy])  # never empty
        self._labels = _ragged([np.append(labels, 0) for _, labels in easy])

    def of(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of image number `index`: proposals [P, 4], true boxes [T, 4], the last a row of zeros, labels int32 [T]."""
        labels = tf.cast(self._labels[index], tf.int32)
        return self._proposals[index], self._truths[index], labels


def _without_difficult(boxes: np.ndarray, difficult: np.ndarray, easy: np.ndarray) -> np.ndarray:
    """The proposals that cover no difficult object, or also one that is not."""
    over = box_iou(boxes, difficult).max(axis=1, initial=0) >= DIFFICULT_IOU
    return boxes[~over | (box_iou(boxes, easy).max(axis=1, initial=0) >= DIFFICULT_IOU)]


def _ragged(rows: list[np.ndarray]) -> tf.RaggedTensor:
    """[N, (n), ...] float32."""
    values = np.concatenate(rows).astype(np.float32)
    return tf.RaggedTensor.from_row_lengths(values, [len(row) for row in rows])


def training_example(
    image: tf.Tensor,
    candidates: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    seed: tf.Tensor,
    protocol: DetectionProtocol,
    layer: Any,
) -> tuple[tf.Tensor, Regions]:
    """One image of a step: at one of several scales, half of the time mirrored, with its regions (Girshick 2015).

    Args:
      image: uint8 [h, w, 3].
      candidates: of `Candidates.of`, in pixels of `image`.
      seed: int [2]; the same seed gives the same example.
      protocol: scales, and how regions are drawn.
      layer: that the regions are pooled of.

    Returns:
      float32 [H, W, 3] in [-1, 1], both sides multiples of the layer's stride; and the regions in its pixels.
    """
    proposals, truths, labels = candidates
    draws = tf.random.stateless_uniform([2], seed)
    sides = tf.constant(protocol.sides)
    side = sides[tf.minimum(tf.cast(draws[0] * len(protocol.sides), tf.int32), len(protocol.sides) - 1)]
    turned = draws[1] < 0.5
    image = tf.cond(turned, lambda: tf.reverse(image, [1]), lambda: image)
    width = tf.cast(tf.shape(image)[1], tf.float32)
    proposals = tf.cond(turned, lambda: flip_boxes(proposals, width), lambda: proposals)
    truths = tf.cond(turned, lambda: flip_boxes(truths, width), lambda: truths)
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
