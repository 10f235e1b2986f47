"""Hand-worked cases of the metrics, and what must hold for any scores."""

import numpy as np
import pytest

from experiments.voc.metrics import (
    FALSE_ALARM,
    HIT,
    IGNORED,
    Detections,
    Truths,
    box_iou,
    class_iou,
    classification_ap,
    confusion_matrix,
    detection_ap,
    match,
    mean_iou,
)
from tests.fixtures.scenes import random_detections

NAN = float("nan")


# Classification


def test_classification_by_hand():
    scores = [[0.9, 0.1, 0.3], [0.8, 0.6, 0.2], [0.7, 0.7, 0.1]]
    labels = [[1, -1, 0], [0, 1, 0], [1, 0, 0]]
    result = classification_ap(scores, labels, "area")
    # Class 0: 1 at recall 1/2, 2/3 at 1. Class 1: images 2 (no), 1 (yes); image 0 is skipped. Class 2: none.
    np.testing.assert_allclose(result.per_class, [(1 + 2 / 3) / 2, 1 / 2, NAN])
    assert result.mean == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert result.images == 3


def test_invalid_labels():
    """Fails if labels other than 1, 0 and -1 or of another shape are accepted."""
    with pytest.raises(ValueError, match="1, 0 or -1"):
        classification_ap(np.zeros([1, 2]), [[2, 0]], "area")
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2, 1\)"):
        classification_ap(np.zeros([1, 2]), np.zeros([2, 1]), "area")


# Detection

BOX = [10.0, 10.0, 20.0, 20.0]


def test_iou_by_hand():
    boxes = [BOX, [10, 10, 20, 15], [15, 15, 25, 25], [20, 10, 30, 20], [5, 5, 5, 9]]
    # All of 100 pixels; half; 25 of 175; only touching; no area.
    np.testing.assert_allclose(box_iou([BOX], boxes), [[1, 1 / 2, 25 / 175, 0, 0]])
    assert box_iou([[5, 5, 5, 9]], [[5, 5, 5, 9]]) == 0


def test_iou_of_inclusive_pixels():
    """Pixels 1..10 and 6..15, as VOC names them: 10 wide each, 5 shared; as half-open boxes [0, 10) and [5, 15)."""
    assert box_iou([[0, 0, 1, 10]], [[0, 5, 1, 15]]) == pytest.approx(5 / 15)


def found(*rows) -> Detections:
    """Of (score, box) or (score, box, class)."""
    return Detections(
        np.array([row[1] for row in rows], float).reshape(-1, 4),
        np.array([row[2] if len(row) > 2 else 0 for row in rows], int),
        np.array([row[0] for row in rows], float),
    )


def there(*rows) -> Truths:
    """Of (box, difficult) or (box, difficult, class)."""
    return Truths(
        np.array([row[0] for row in rows], float).reshape(-1, 4),
        np.array([row[2] if len(row) > 2 else 0 for row in rows], int),
        np.array([row[1] for row in rows], bool),
    )


HALF = [10.0, 10.0, 20.0, 15.0]  # IoU with BOX: 1/2
LESS = [10.0, 10.0, 20.0, 14.9]


def test_the_threshold_itself_is_enough():
    assert match(found((0.9, HALF)), there((BOX, 0))).tolist() == [HIT]
    assert match(found((0.9, LESS)), there((BOX, 0))).tolist() == [FALSE_ALARM]
    assert match(found((0.9, HALF)), there((BOX, 0)), iou=0.6).tolist() == [FALSE_ALARM]


def test_the_highest_score_takes_the_box():
    """Though the other fits better, and whatever the order; of equal scores the first."""
    assert match(found((0.8, BOX), (0.9, HALF)), there((BOX, 0))).tolist() == [FALSE_ALARM, HIT]
    assert match(found((0.8, BOX), (0.8, HALF)), there((BOX, 0))).tolist() == [HIT, FALSE_ALARM]


def test_what_finds_a_difficult_box_is_ignored():
    """Each time; it is neither a hit nor a duplicate."""
    assert match(found((0.9, BOX), (0.8, HALF), (0.7, LESS)), there((BOX, 1))).tolist() == [
        IGNORED,
        IGNORED,
        FALSE_ALARM,
    ]


def test_the_largest_overlap_decides_even_if_that_box_is_taken():
    """The second detection covers [10, 15) of the second box enough, but the first box more."""
    second = [10.0, 12.0, 20.0, 22.0]
    middle = [10.0, 10.5, 20.0, 20.5]  # IoU with BOX 95/105, with the second 85/115
    assert box_iou([middle], [second]) > 0.5
    assert match(found((0.9, BOX), (0.8, middle)), there((BOX, 0), (second, 0))).tolist() == [HIT, FALSE_ALARM]
    assert match(found((0.9, middle)), there((BOX, 1), (second, 0))).tolist() == [IGNORED]


def test_classes_do_not_match_each_other():
    assert match(found((0.9, BOX, 1)), there((BOX, 0, 0))).tolist() == [FALSE_ALARM]
    both = there((BOX, 0, 0), (BOX, 0, 1))
    assert match(found((0.9, BOX, 1), (0.8, BOX, 0)), both).tolist() == [HIT, HIT]


def test_an_image_without_boxes_or_detections():
    assert match(found((0.9, BOX)), there()).tolist() == [FALSE_ALARM]
    assert match(found(), there((BOX, 0))).tolist() == []
    assert match(found(), there()).tolist() == []


def test_detection_by_hand():
    """Two images, two classes and a third that is not there.

    Class 0 has three positives and a difficult one. By score: 0.9 hit (image 0), 0.8 duplicate (image 0), 0.7 hit
    (image 1), 0.6 on the difficult one (ignored), 0.5 far off. Precision 1 at recall 1/3, 2/3 at 2/3; no more recall.
    Class 1 has one positive, found by 0.3 after a false alarm of 0.4: precision 1/2.
    """
    far = [50.0, 50.0, 60.0, 60.0]
    detections = [
        found((0.8, HALF), (0.9, BOX), (0.5, [80, 80, 90, 90]), (0.4, BOX, 1)),
        found((0.7, far), (0.6, BOX), (0.3, BOX, 1)),
    ]
    truths = [there((BOX, 0), (far, 0)), there((far, 0), (BOX, 1), (BOX, 0, 1))]
    area, points = (detection_ap(detections, truths, 3, rule) for rule in ("area", "11-point"))
    np.testing.assert_allclose(area.per_class, [(1 + 2 / 3) / 3, 1 / 2, NAN])
    # Class 0: recall 0 to 0.3: 1 (4 points); 0.4 to 0.6: 2/3 (3 points); 0.7 to 1: 0.
    np.testing.assert_allclose(points.per_class, [(4 + 2) / 11, 1 / 2, NAN])
    assert area.mean == pytest.approx((5 / 9 + 1 / 2) / 2)
    precision, recall = area.rankings[0].counts().precision_recall()
    np.testing.assert_allclose(area.rankings[0].thresholds, [0.9, 0.8, 0.7, 0.5])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 2 / 4])
    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_detection_of_nothing():
    result = detection_ap([found(), found()], [there((BOX, 0)), there()], 2, "11-point")
    np.testing.assert_allclose(result.per_class, [0, NAN])
    precision, recall = result.rankings[1].counts().precision_recall()
    assert len(precision) == len(recall) == 0


def test_detections_that_do_not_fit():
    with pytest.raises(ValueError, match="1 detections and 2 truths"):
        detection_ap([found()], [there(), there()], 1, "area")
    with pytest.raises(ValueError, match=r"detections must be in 0..1. Received: 2"):
        detection_ap([found((0.9, BOX, 2))], [there()], 2, "area")


@pytest.mark.parametrize("seed", range(20))
def test_matching_as_told_step_by_step(seed):
    """The loop that the development kit's text describes, box by box."""
    (detections,), (truths,) = random_detections(np.random.default_rng(seed), 1, 2)
    outcome, taken = {}, set()
    for row in np.argsort(-detections.scores):
        best, nearest = -1.0, None
        for number in range(len(truths.labels)):
            overlap = box_iou(detections.boxes[row : row + 1], truths.boxes[number : number + 1]).item()
            if truths.labels[number] == detections.labels[row] and overlap > best:
                best, nearest = overlap, number
        if best < 0.5:
            outcome[row] = FALSE_ALARM
        elif truths.difficult[nearest]:
            outcome[row] = IGNORED
        else:
            outcome[row] = FALSE_ALARM if nearest in taken else HIT
            taken.add(nearest)
    result = match(detections, truths)
    assert result.tolist() == [outcome[row] for row in range(15)]
    assert {HIT, FALSE_ALARM} <= set(result.tolist())


# Segmentation


def test_mean_iou_by_hand():
    truth = np.array([[0, 0, 1], [1, 2, 255]])
    prediction = np.array([[0, 1, 1], [1, 0, 3]])
    confusion = confusion_matrix(truth, prediction, 5)
    expected = np.zeros([5, 5], int)
    expected[0, 0], expected[0, 1], expected[1, 1], expected[2, 0] = 1, 1, 2, 1
    assert confusion.tolist() == expected.tolist()
    score = mean_iou(confusion)
    # 0: 1 shared, 2 there, 2 predicted; 1: 2 shared, 2 there, 3 predicted; 2: there, not found; 3 only where ignored.
    np.testing.assert_allclose(score.per_class, [1 / 3, 2 / 3, 0, NAN, NAN])
    assert score.mean == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert score.pixel_accuracy == pytest.approx(3 / 5)


def test_a_class_that_is_only_predicted_counts():
    score = mean_iou(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 3))
    np.testing.assert_allclose(score.per_class, [1 / 2, 0, NAN])
    assert score.mean == 1 / 4


def test_confusion_of_images_is_summed():
    """Of all pixels at once, in any dtype: 8-bit masks must not overflow."""
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 21, [2, 5, 30, 40]).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = 255
    parts = [confusion_matrix(*pair, 21) for pair in zip(truth, prediction, strict=True)]
    whole = confusion_matrix(truth, prediction, 21)
    assert np.sum(parts, axis=0).tolist() == whole.tolist()
    assert whole.sum() == (truth != 255).sum()
    np.testing.assert_array_equal(class_iou(np.stack(parts))[2], class_iou(parts[2]))


def test_everything_ignored():
    score = mean_iou(confusion_matrix(np.full(4, 255), np.zeros(4, int), 2))
    assert np.isnan([*score.per_class, score.mean, score.pixel_accuracy]).all()


def test_masks_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        confusion_matrix(np.zeros(2, int), np.zeros(3, int), 2)
    with pytest.raises(ValueError, match=r"prediction must be in 0..1. Received: 0..255"):
        confusion_matrix(np.zeros(2, int), np.array([0, 255]), 2)
    with pytest.raises(ValueError, match=r"truth must be in 0..1. Received: 0..2"):
        confusion_matrix(np.array([0, 2]), np.zeros(2, int), 2)
