"""Detections in test images, how good they are, and pictures of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc import drawing, metrics
from experiments.voc.annotations import VocSet
from experiments.voc.boxes import detections
from experiments.voc.detection import DetectionHead, score_proposals
from experiments.voc.metrics import Detections
from experiments.voc.protocols import DetectionProtocol
from experiments.voc.regions import scale_to, scaled_view
from lts.progress import Progress

SHOWN = 6  # images in the picture
SHOWN_SCORE = 0.5  # least score of a detection in the picture


def detector(trunk: Callable, head: DetectionHead, protocol: DetectionProtocol, layer: Any) -> Callable:
    """The function of one image that finds objects.

    Args:
      trunk: [1, H, W, 3] in [-1, 1] to the map [1, h, w, c].
      head: on that map.
      protocol: scale, and what counts as found.
      layer: whose map it is, `LoadedModel.geometry["conv_5"]`.

    Returns:
      (image uint8 [h, w, 3], proposals float32 [n, 4]) to `boxes.Found`, in pixels of the image.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, 4], tf.float32)])
    def find(image, proposals):
        view, factors = scaled_view(image, protocol.test_side, protocol.longest, layer)
        height, width = tf.unstack(tf.cast(scale_to(*tf.unstack(tf.shape(image)[:2]), *sizes), tf.float32))
        scores, boxes = score_proposals(head, trunk(view[None]), proposals * factors, height, width)
        found = detections(scores, boxes, protocol.threshold, protocol.detections, protocol.suppression)
        return found._replace(boxes=found.boxes / factors)

    sizes = (protocol.test_side, protocol.longest)
    return find


def detect(find: Callable, voc: VocSet, proposals: Sequence[np.ndarray], title: str) -> tuple[Detections, ...]:
    """What a `detector` finds in each of the images.

    Raises:
      DataError: an image that cannot be decoded.
    """
    everything = []
    with Progress(title, voc.num_examples) as progress:
        for index, boxes in enumerate(proposals):
            found = find(voc.read_image(index), boxes)
            everything.append(Detections(*(part.numpy() for part in found)))
            progress.advance(1)
    return tuple(everything)


def picture(voc: VocSet, found: Sequence[Detections], count: int = SHOWN) -> np.ndarray:
    """Some images with what there is in them on the left, and what was found with a good score on the right.

    Args:
      voc: the test images.
      found: in each of them.
      count: images, spread over the split.

    Returns:
      uint8 [h, w, 3].
    """
    rows = []
    for index in np.unique(np.linspace(0, voc.num_examples - 1, count).round().astype(int)):
        image, truth, each = voc.read_image(index), voc.objects[index], found[index]
        good = each.scores >= SHOWN_SCORE
        rows.append(
            [
                drawing.draw_boxes(image, truth.boxes, truth.labels, voc.class_names, difficult=truth.difficult),
                drawing.draw_boxes(image, each.boxes[good], each.labels[good], voc.class_names, each.scores[good]),
            ]
        )
    return drawing.montage(rows, ("what is there", f"what was found, score at least {SHOWN_SCORE:g}"))
