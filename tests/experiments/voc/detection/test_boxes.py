"""Boxes, minibatches of regions and suppression against slow NumPy versions and hand-worked cases."""

import math

import numpy as np
import pytest
import tensorflow as tf

from experiments.voc import metrics
from experiments.voc.detection.boxes import Regions, clip_to, decode, detections, encode, iou, sample_rois


def random_boxes(random, count: int, side: float = 100.0) -> np.ndarray:
    """With an area, inside an image of `side` pixels a side."""
    return np.sort(random.uniform(0, side, [count, 2, 2]), axis=1).reshape(count, 4).astype(np.float32)


# Overlaps, targets


@pytest.mark.parametrize("seed", range(5))
def test_iou(seed):
    random = np.random.default_rng(seed)
    first, second = random_boxes(random, 12), random_boxes(random, 7)
    first[0], second[0], second[1] = 0, 0, first[3]
    result = iou(tf.constant(first), tf.constant(second)).numpy()
    np.testing.assert_allclose(result, metrics.box_iou(first, second), atol=1e-6)
    assert result[0].max() == 0
    assert result[3, 1] == pytest.approx(1)


def test_encode_by_hand():
    """A reference of 20 x 10 around (20, 15); a box of 40 x 5 around (25, 14)."""
    reference = tf.constant([[10.0, 10.0, 30.0, 20.0]])
    box = tf.constant([[5.0, 11.5, 45.0, 16.5]])
    expected = np.array([[5 / 20, -1 / 10, math.log(2), math.log(1 / 2)]])
    np.testing.assert_allclose(encode(box, reference), expected / [0.1, 0.1, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_decode_inverts_encode(seed):
    random = np.random.default_rng(seed)
    boxes, references = (np.add(random_boxes(random, 30), [0, 0, 5, 5]) for _ in range(2))
    boxes, references = tf.constant(boxes, tf.float32), tf.constant(references, tf.float32)
    np.testing.assert_allclose(decode(encode(boxes, references), references), boxes, atol=1e-3)
    np.testing.assert_allclose(decode(tf.zeros([30, 4]), references), references, atol=1e-4)


def test_decode_broadcasts_and_does_not_overflow():
    references = tf.constant([[0.0, 0.0, 16.0, 32.0], [0.0, 0.0, 0.0, 0.0]])
    targets = tf.constant(np.full([2, 3, 4], 1e4, np.float32) * [[[0], [1], [-1]]], tf.float32)
    boxes = decode(targets, references[:, None]).numpy()
    assert boxes.shape == (2, 3, 4)
    assert np.isfinite(boxes).all()
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 16, 32], atol=1e-5)
    assert boxes[0, 1, 2] - boxes[0, 1, 0] == pytest.approx(1000, rel=1e-4)  # 16 pixels, 62.5 times
    np.testing.assert_allclose(boxes[0, 2, :2], boxes[0, 2, 2:])  # shrunk to nothing
    assert np.isfinite(encode(references, references[::-1])).all()


def test_clip_to():
    boxes = tf.constant([[-5.0, 3.0, 8.0, 70.0], [50.0, 60.0, 60.0, 70.0], [1.0, 2.0, 3.0, 4.0]])
    expected = [[0, 3, 8, 60], [40, 60, 40, 60], [1, 2, 3, 4]]
    assert clip_to(boxes, 40, 60).numpy().tolist() == expected
    assert tf.function(clip_to)(boxes, tf.constant(40), tf.constant(60)).numpy().tolist() == expected


# Minibatches of regions


def scene(seed: int, proposals: int = 200, padding: int = 20):
    """Three true boxes and room for two more; proposals are moved copies, boxes anywhere, and padding."""
    random = np.random.default_rng(seed)
    truths = np.zeros([5, 4], np.float32)
    truths[:3] = [[10, 10, 50, 50], [20, 40, 80, 95], [60, 5, 95, 30]]
    labels = np.array([3, 1, 2, 0, 0])
    near = truths[random.integers(3, size=proposals // 2)] + random.normal(size=[proposals // 2, 4]) * 6
    rows = np.concatenate([near, random_boxes(random, proposals - len(near)), np.zeros([padding, 4])])
    return tf.constant(rows, tf.float32), tf.constant(truths), tf.constant(labels)


def kinds(regions: Regions, truths) -> tuple[np.ndarray, np.ndarray]:
    """Largest IoU of each region with a true box, and which it is."""
    overlaps = metrics.box_iou(regions.boxes.numpy(), truths.numpy())
    return overlaps.max(axis=1), overlaps.argmax(axis=1)


@pytest.mark.parametrize("seed", range(10))
def test_a_minibatch(seed):
    """What Fast R-CNN draws: 16 positives of 64 with class and targets of their box, 48 hard negatives."""
    proposals, truths, labels = scene(seed)
    regions = sample_rois(proposals, truths, labels, [seed, 1])
    assert [part.shape.as_list() for part in regions] == [[64, 4], [64], [64, 4], [64]]
    assert [part.dtype.name for part in regions] == ["float32", "int32", "float32", "float32"]
    overlap, nearest = kinds(regions, truths)
    classes = regions.classes.numpy()
    assert (regions.weights.numpy() == 1).all()
    assert (classes > 0).sum() == 16
    assert (classes[:16] == labels.numpy()[nearest[:16]]).all()
    assert overlap[:16].min() >= 0.5
    assert overlap[16:].min() >= 0.1
    assert overlap[16:].max() < 0.5
    candidates = {tuple(row) for row in np.concatenate([proposals, truths[:3]]).tolist()}
    drawn = [tuple(row) for row in regions.boxes.numpy().tolist()]
    assert set(drawn) <= candidates
    assert len(set(drawn)) == 64  # without replacement
    expected = encode(tf.gather(truths, nearest), regions.boxes).numpy() * (classes > 0)[:, None]
    np.testing.assert_allclose(regions.targets, expected, atol=1e-5)
    assert np.abs(regions.targets[16:]).max() == 0


def test_the_seed_decides():
    proposals, truths, labels = scene(0)
    first, again, other = (
        sample_rois(proposals, truths, labels, seed).boxes.numpy() for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert (first == again).all()
    assert (first != other).any()


def test_true_boxes_are_candidates():
    """Without any proposal they are the positives, and all else is padding."""
    _, truths, labels = scene(0)
    regions = sample_rois(tf.zeros([4, 4]), truths, labels, [0, 0], count=16)
    assert regions.weights.numpy().tolist() == [1] * 3 + [0] * 13
    assert sorted(regions.classes.numpy().tolist()) == [0] * 13 + [1, 2, 3]
    assert {tuple(row) for row in regions.boxes[:3].numpy()} == {tuple(row) for row in truths[:3].numpy()}
    assert np.abs(regions.boxes[3:]).max() == 0
    assert np.abs(regions.targets).max() == 0  # they are where they should be


def test_hard_negatives_come_first_then_easy_ones():
    """Two hard ones (IoU 0.2 and 0.4 with the box of 10 x 10), then five of ten easy ones."""
    truths, labels = tf.constant([[0.0, 0.0, 10.0, 10.0]]), tf.constant([1])
    hard = [[0.0, 0.0, 10.0, 2.0], [0.0, 0.0, 4.0, 10.0]]
    easy = [[50.0, 50.0, 60.0, 60.0 + i] for i in range(9)] + [[0.0, 0.0, 10.0, 0.9]]  # the last has IoU 0.09
    seen = set()
    for seed in range(20):
        regions = sample_rois(tf.constant(hard + easy), truths, labels, [seed, 0], count=8)
        rows = regions.boxes.numpy()
        assert rows[0].tolist() == [0, 0, 10, 10]
        assert sorted(rows[1:3].tolist()) == sorted(hard)
        assert regions.classes.numpy().tolist() == [1] + [0] * 7
        assert regions.weights.numpy().tolist() == [1] * 8
        seen |= {tuple(row) for row in rows[3:].tolist()}
    assert len(seen) == 10  # every easy one is drawn at some time


def test_thresholds_themselves():
    """IoU 0.5 is a positive where 0.5 is asked for, and IoU 0.25 a hard negative where 0.25 is."""
    truths, labels = tf.constant([[0.0, 0.0, 10.0, 8.0]]), tf.constant([7])
    half, quarter, easy = [0.0, 0.0, 10.0, 4.0], [0.0, 0.0, 10.0, 2.0], [50.0, 50.0, 60.0, 60.0]
    for seed in range(10):
        options = {"count": 3, "positive_share": 2 / 3, "negative_iou": 0.25}
        regions = sample_rois(tf.constant([easy, half, easy, quarter]), truths, labels, [seed, 0], **options)
        assert sorted(regions.boxes[:2].numpy().tolist()) == [half, truths[0].numpy().tolist()]
        assert regions.boxes[2].numpy().tolist() == quarter
        assert regions.classes.numpy().tolist() == [7, 7, 0]


def test_no_more_positives_than_their_share():
    """Where there is nothing else the rest is padding."""
    truths, labels = tf.constant([[0.0, 0.0, 10.0, 10.0]]), tf.constant([1])
    proposals = tf.constant([[0.0, 0.0, 10.0, 9.0 + i / 100] for i in range(50)])
    regions = sample_rois(proposals, truths, labels, [0, 0], count=16)
    assert regions.classes.numpy().tolist() == [1] * 4 + [0] * 12
    assert regions.weights.numpy().tolist() == [1] * 4 + [0] * 12
    assert sample_rois(proposals, truths, labels, [0, 0], count=16, positive_share=0.5).weights.numpy().sum() == 8


def test_an_image_without_true_boxes_is_background():
    proposals, truths, labels = scene(0)
    regions = sample_rois(proposals, tf.zeros_like(truths), tf.zeros_like(labels), [0, 0])
    assert regions.classes.numpy().max() == 0
    assert regions.weights.numpy().min() == 1
    assert np.ptp(regions.boxes, axis=0).min() > 0
    assert np.isfinite(regions.targets).all()


def test_minibatches_in_a_pipeline():
    """Fixed shapes inside tf.data, and the same draws as outside."""
    proposals, truths, labels = scene(0)
    seeds = tf.data.Dataset.from_tensor_slices(tf.constant([[0, 1], [0, 2]]))
    pipeline = seeds.map(lambda seed: sample_rois(proposals, truths, labels, seed, count=32)).batch(2)
    assert pipeline.element_spec.boxes.shape.as_list() == [None, 32, 4]
    (batch,) = list(pipeline)
    assert isinstance(batch, Regions)
    expected = sample_rois(proposals, truths, labels, [0, 2], count=32)
    for part, alone in zip(batch, expected, strict=True):
        np.testing.assert_allclose(part[1], alone, atol=1e-6)


# Suppression


def slow_detections(scores, boxes, threshold, limit, overlap):
    """Box by box."""
    found = []
    for label in range(boxes.shape[1]):
        kept = []
        for row in np.argsort(-scores[:, label + 1], kind="stable"):
            box = boxes[row, label]
            if scores[row, label + 1] > threshold and all(metrics.box_iou([box], [b]) <= overlap for b in kept):
                kept.append(box)
                found.append((scores[row, label + 1], label, box))
    return sorted(found, key=lambda each: -each[0])[:limit]


@pytest.mark.parametrize("limit", [5, 100])
@pytest.mark.parametrize("seed", range(5))
def test_detections(seed, limit):
    random = np.random.default_rng(seed)
    scores = random.random([40, 4]).astype(np.float32)
    boxes = random_boxes(random, 8)[random.integers(8, size=[40, 3])] + random.normal(size=[40, 3, 4]).astype(
        np.float32
    )
    found = detections(tf.constant(scores), tf.constant(boxes), threshold=0.4, limit=limit)
    expected = slow_detections(scores, boxes, 0.4, limit, 0.3)
    assert 5 <= len(expected) < 72
    np.testing.assert_array_equal(found.scores, [score for score, _, _ in expected])
    np.testing.assert_array_equal(found.labels, [label for _, label, _ in expected])
    np.testing.assert_allclose(found.boxes, [box for *_, box in expected], atol=1e-5)


def test_detections_by_hand():
    """Classes do not suppress each other, background gives nothing, and nothing is padded."""
    scores = tf.constant([[0.1, 0.9, 0.05], [0.1, 0.8, 0.7], [0.95, 0.03, 0.01]])
    box, moved, far = [0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0, 80.0], [200.0, 0.0, 300.0, 100.0]
    boxes = tf.constant([[box, box], [moved, moved], [far, far]])
    found = detections(scores, boxes)
    assert found.labels.numpy().tolist() == [0, 1]  # 0.8 falls to 0.9; 0.05 is not above the threshold
    assert found.boxes.numpy().tolist() == [box, moved]
    assert detections(scores, boxes, threshold=0.99).boxes.shape == (0, 4)
    assert tf.function(detections)(scores, boxes).scores.shape == (2,)
    assert len(detections(scores, boxes, overlap=0.85).scores) == 3


def test_detections_are_what_the_metrics_take():
    found = detections(tf.constant([[0.1, 0.9]]), tf.constant([[[0.0, 0.0, 10.0, 10.0]]]))
    seen = metrics.Detections(*(part.numpy() for part in found))
    truth = metrics.Truths(np.array([[0, 0, 10, 10]]), np.array([0]), np.array([False]))
    assert found._fields == seen._fields
    assert metrics.detection_ap([seen], [truth], 1, "area").mean == 1
