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

SHOWN_SCORE = 0.3  # smallest score of a detection in the pictures
TITLES = ("truth", f"detections with score {SHOWN_SCORE:g} or more")


def detector(features: Callable, head: DetectionHead, protocol: DetectionProtocol, layer: Any) -> Callable:
    """Return the function that detects objects in one image.

    Args:
      features: map of images [1, H, W, 3] in [-1, 1] to the feature map [1, h, w, c].
      head: head on that map.
      protocol: scale, and thresholds of detections.
      layer: layer of the map, a value of `LoadedModel.geometry`.

    Returns:
      A map of (image uint8 [h, w, 3], proposals float32 [n, 4]) to `boxes.DetectionTensors`, in pixels of the image.
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
    """Return the detections in the images `numbers`; `proposals` are those of all images."""
    detected = []
    with Progress(title, len(numbers)) as progress:
        for number in numbers:
            tensors = find(images.read(number), proposals[number])
            detected.append(Detections(*(tensor.numpy() for tensor in tensors)))
            progress.advance(1)
    return tuple(detected)


def picture(images: Images, numbers: Sequence[int], detected: Sequence[Detections]) -> np.ndarray:
    """Draw images with true boxes on the left and good detections on the right.

    Args:
      images: test images.
      numbers: indices of the images to draw.
      detected: detections in each of these.

    Returns:
      uint8 [h, w, 3].
    """
    names = images.set.class_names
    panels = []
    for number, found in zip(numbers, detected, strict=True):
        pixels = images.read(number).numpy()
        truth = images.set.objects[number]
        good = found.scores >= SHOWN_SCORE
        panels.append(drawing.draw_boxes(pixels, truth.boxes, truth.labels, names, difficult=truth.difficult))
        panels.append(drawing.draw_boxes(pixels, found.boxes[good], found.labels[good], names, found.scores[good]))
    return montage(panels, len(TITLES), drawing.GAP, TITLES)
