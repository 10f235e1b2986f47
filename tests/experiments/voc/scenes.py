"""Made-up images of boxes, and what was found in them."""

import numpy as np

from experiments.voc.metrics import Detections, Truths


def random_detections(random, images: int, classes: int) -> tuple[list[Detections], list[Truths]]:
    """Crowded images: boxes overlap, detections are moved copies of them, every fifth box is difficult."""
    detections, truths = [], []
    for _ in range(images):
        corner, size = random.uniform(0, 30, [6, 2]), random.uniform(8, 20, [6, 2])
        boxes, labels = np.concatenate([corner, corner + size], 1), random.integers(classes, size=6)
        truths.append(Truths(boxes, labels, random.random(6) < 0.2))
        rows = random.integers(6, size=15)
        moved = boxes[rows] + random.normal(size=[15, 4]) * 1.5
        other = np.where(random.random(15) < 0.8, labels[rows], random.integers(classes, size=15))
        detections.append(Detections(moved, other, random.random(15)))
    return detections, truths
