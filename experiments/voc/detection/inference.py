"""Detections in test images, and pictures of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc import drawing
from experiments.voc.data.images import Images
from experiments.voc.detection.boxes import detections
from experiments.voc.detection.fast_rcnn import DetectionHead, score_proposals
from experiments.voc.detection.regions import scale_to, scaled_view
from experiments.voc.metrics import Detections
from experiments.voc.protocols import DetectionProtocol
from lts.utils.progress import Progress
from lts.visualization.montage import montage

SHOWN_SCORE = 0.3  # least score of a detection in the pictures
TITLES = ("what is there", f"what was found, score at least {SHOWN_SCORE:g}")


def detector(features: Callable, head: DetectionHead, protocol: DetectionProtocol, layer: Any) -> Callable:
    """The function of one image that finds objects.

    Args:
      features: [1, H, W, 3] in [-1, 1] to the map [1, h, w, c].
      head: on that map.
      protocol: scale, and what counts as found.
      layer: whose map it is, `LoadedModel.geometry["conv_5"]`.

    Returns:
      (image uint8 [h, w, 3], proposals float32 [n, 4]) to `boxes.DetectionTensors`, in pixels of the image.
    """
    size = (protocol.test_side, protocol.longest)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, 4], tf.float32)])
    def find(image, proposals):
        view, factors = scaled_view(image, *size, layer)
        height, width = tf.unstack(scale_to(*tf.unstack(tf.shape(image)[:2]), *size))
        scores, boxes = score_proposals(head, features(view[None]), proposals * factors, height, width)
        found = detections(scores, boxes, protocol.threshold, protocol.detections, protocol.suppression)
        return found._replace(boxes=found.boxes / factors)

    return find


def detect(
    find: Callable, images: Images, proposals: Sequence[np.ndarray], numbers: Sequence[int], title: str
) -> tuple[Detections, ...]:
    """What a `detector` finds in the images of these numbers, of all whose proposals are given."""
    everything = []
    with Progress(title, len(numbers)) as progress:
        for number in numbers:
            found = find(images.read(number), proposals[number])
            everything.append(Detections(*(part.numpy() for part in found)))
            progress.advance(1)
    return tuple(everything)


def picture(images: Images, numbers: Sequence[int], found: Sequence[Detections]) -> np.ndarray:
    """Images with what there is in them on the left, and what was found with a good score on the right.

    Args:
      images: of the test.
      numbers: which of them.
      found: in each of those.

    Returns:
      uint8 [h, w, 3].
    """
    panels, names = [], images.set.class_names
    for number, each in zip(numbers, found, strict=True):
        pixels, truth = images.read(number).numpy(), images.set.objects[number]
        good = each.scores >= SHOWN_SCORE
        panels += [
            drawing.draw_boxes(pixels, truth.boxes, truth.labels, names, difficult=truth.difficult),
            drawing.draw_boxes(pixels, each.boxes[good], each.labels[good], names, each.scores[good]),
        ]
    return montage(panels, len(TITLES), drawing.GAP, TITLES)
