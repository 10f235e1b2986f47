"""The metrics against implementations of others: pycocotools, mapcalc, scikit-learn.

None of them has all of VOC's rules. pycocotools (COCO) lets a detection take another box than the one it overlaps most,
so it is compared where true boxes do not overlap: there at most one of them can reach an IoU of 0.5. mapcalc has VOC's
matching and boxes in inclusive pixels (with + 1), but one image, no difficult boxes and no sorting; images are laid
next to each other for it.
"""

import contextlib
import io

import mapcalc
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou as coco_iou
from sklearn import metrics as sklearn_metrics

from experiments.voc.metrics import (
    RULES,
    Detections,
    Truths,
    box_iou,
    classification_ap,
    confusion_matrix,
    detection_ap,
    mean_iou,
)


class VOCeval(COCOeval):
    """Difficult boxes are a "crowd", which any number of detections may find, but with the IoU of other boxes."""

    def computeIoU(self, image, category):
        truths, found = self._gts[image, category], self._dts[image, category]
        if not truths or not found:
            return []
        found = [found[row] for row in np.argsort([-each["score"] for each in found], kind="stable")]
        return coco_iou([each["bbox"] for each in found], [each["bbox"] for each in truths], [0] * len(truths))


def sized(box) -> list[float]:
    """x, y, width, height."""
    return [float(value) for value in (box[1], box[0], box[3] - box[1], box[2] - box[0])]


def coco_ap(detections, truths, classes: int, rule: str) -> list[float]:
    """Per class; nan without positives."""
    boxes, found = [], []
    for image, (there, seen) in enumerate(zip(truths, detections, strict=True)):
        for box, label, difficult in zip(*there, strict=True):
            one = {"id": len(boxes) + 1, "image_id": image, "category_id": int(label), "bbox": sized(box)}
            boxes.append(one | {"iscrowd": int(difficult), "area": one["bbox"][2] * one["bbox"][3]})
        for box, label, score in zip(*seen, strict=True):
            found.append({"image_id": image, "category_id": int(label), "bbox": sized(box), "score": float(score)})
    values = []
    for label in range(classes):
        positives = sum(each["category_id"] == label and not each["iscrowd"] for each in boxes)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "images": [{"id": image} for image in range(len(truths))],
                "categories": [{"id": each} for each in range(classes)],
                "annotations": boxes,
                "info": {},
            }
            truth.createIndex()
            run = VOCeval(truth, truth.loadRes(found), "bbox")
            run.params.catIds, run.params.iouThrs, run.params.maxDets = [label], np.array([0.5]), [10000]
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            # "area" is the mean over the steps of recall; 1e-9 lets 3 of 10 reach 0.3, whatever their last bits.
            steps = np.arange(11) / 10 - 1e-9 if rule == "11-point" else (np.arange(positives) + 0.5) / positives
            run.params.recThrs = steps
            run.evaluate()
            run.accumulate()
        values.append(float(run.eval["precision"].mean()) if positives else float("nan"))
    return values


def scene(random, images: int, classes: int, overlapping: bool) -> tuple[list[Detections], list[Truths]]:
    """True boxes in cells of 50 pixels of their own, or anywhere, and detections of whole pixels around them.

    Without `overlapping` a tenth of the boxes is difficult, else none.
    """
    detections, truths = [], []
    for _ in range(images):
        size = random.integers(20, 41, [8, 2])
        cells = random.permutation(16)[:8]
        corner = np.stack([cells // 4, cells % 4], 1) * 50 + random.integers(0, 10, [8, 2])
        corner = random.integers(0, 60, [8, 2]) if overlapping else corner
        boxes, labels = np.concatenate([corner, corner + size], 1), random.integers(classes, size=8)
        truths.append(Truths(boxes, labels, (random.random(8) < 0.1) & (not overlapping)))
        rows = random.integers(8, size=20)
        moved = boxes[rows] + random.integers(-5, 6, [20, 4])
        other = np.where(random.random(20) < 0.8, labels[rows], random.integers(classes, size=20))
        detections.append(Detections(moved, other, random.random(20)))
    return detections, truths


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_detection_as_pycocotools(seed, rule):
    """With difficult boxes and duplicates; boxes apart."""
    detections, truths = scene(np.random.default_rng(seed), 12, 3, overlapping=False)
    result = detection_ap(detections, truths, 3, rule)
    assert sum(each.difficult.sum() for each in truths) > 3
    np.testing.assert_allclose(result.per_class, coco_ap(detections, truths, 3, rule), atol=1e-9)
    assert 0.1 < result.mean < 0.9


@pytest.mark.parametrize("seed", range(6))
def test_detection_as_mapcalc(seed):
    """With overlapping boxes and duplicates; none difficult. Its boxes name their last pixel, and it adds 1."""
    detections, truths = scene(np.random.default_rng(seed), 12, 3, overlapping=True)

    def laid_out(which):
        moved = [each.boxes + 1000 * image for image, each in enumerate(which)]
        boxes = np.concatenate(moved)[:, [1, 0, 3, 2]] - [0, 0, 1, 1]
        return {"boxes": boxes.tolist(), "labels": np.concatenate([each.labels for each in which]).tolist()}

    found = laid_out(detections)
    scores = np.concatenate([each.scores for each in detections])
    order = np.argsort(-scores)
    found = {name: [values[row] for row in order] for name, values in found.items()} | {"scores": scores[order]}
    expected = mapcalc.calculate_map(laid_out(truths), found, 0.5)
    assert detection_ap(detections, truths, 3, "area").mean == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_box_iou_as_pycocotools(seed):
    random = np.random.default_rng(seed)
    first, second = (np.sort(random.uniform(0, 50, [n, 2, 2]), axis=1).reshape(n, 4) for n in (7, 9))
    expected = coco_iou([sized(box) for box in first], [sized(box) for box in second], [0] * 9)
    np.testing.assert_allclose(box_iou(first, second), expected)


@pytest.mark.parametrize("rule", RULES)
def test_classification_as_pycocotools(rule):
    """Every image is one box, and every score a detection of all of it; ignored labels are difficult boxes."""
    random = np.random.default_rng(1)
    labels = random.choice([1, 0, 0, -1], size=[60, 3])
    scores = random.normal(size=labels.shape) + labels
    whole = np.array([0, 0, 10, 10])
    detections = [Detections(np.tile(whole, [3, 1]), np.arange(3), row) for row in scores]
    truths = []
    for row in labels:
        there = np.flatnonzero(row)
        truths.append(Truths(np.tile(whole, [len(there), 1]), there, row[there] < 0))
    result = classification_ap(scores, labels, rule)
    np.testing.assert_allclose(result.per_class, coco_ap(detections, truths, 3, rule), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_segmentation_as_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth = random.choice([0, 1, 2, 4, 255], size=[20, 30])
    prediction = np.where(random.random(truth.shape) < 0.5, truth % 255, random.choice([0, 1, 2, 5], size=truth.shape))
    kept = truth != 255
    confusion = confusion_matrix(truth, prediction, 7)
    score = mean_iou(confusion)
    pair = truth[kept], prediction[kept]
    assert confusion.tolist() == sklearn_metrics.confusion_matrix(*pair, labels=range(7)).tolist()
    present = np.union1d(*pair)
    expected = sklearn_metrics.jaccard_score(*pair, labels=present, average=None)
    np.testing.assert_allclose(score.per_class[present], expected)
    assert np.isnan(score.per_class[[3, 6]]).all()
    assert score.mean == pytest.approx(expected.mean())
    assert score.pixel_accuracy == pytest.approx(sklearn_metrics.accuracy_score(*pair))
