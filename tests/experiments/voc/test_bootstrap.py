"""Weights of images, resamples and intervals of all three metrics."""

import numpy as np
import pytest

from experiments.voc.metrics import RULES, bootstrap, class_iou, class_mean, classification_ap, detection_ap, interval
from tests.fixtures.scenes import random_detections

NAN = float("nan")


def repeated(rows, times):
    return [row for row, count in zip(rows, times, strict=True) for _ in range(count)]


@pytest.mark.parametrize("rule", RULES)
def test_weights_are_repetitions(rule):
    """An image with weight 2 counts as if it were there twice, one with weight 0 as if it were not."""
    random = np.random.default_rng(3)
    times = random.integers(0, 3, size=30)
    scores, labels = random.normal(size=[30, 4]), random.integers(-1, 2, size=[30, 4])
    result = classification_ap(scores, labels, rule)
    again = classification_ap(np.repeat(scores, times, axis=0), np.repeat(labels, times, axis=0), rule)
    np.testing.assert_allclose(result.weighted(times), again.per_class)
    detections, truths = random_detections(random, 30, 3)
    result = detection_ap(detections, truths, 3, rule)
    again = detection_ap(repeated(detections, times), repeated(truths, times), 3, rule)
    np.testing.assert_allclose(result.weighted(times), again.per_class)
    np.testing.assert_allclose(result.weighted(np.ones(30, int)), result.per_class)


def test_class_mean_leaves_out_what_is_not_there():
    np.testing.assert_array_equal(class_mean(np.array([[1, NAN, 3], [NAN, NAN, NAN]])), [2, NAN])


def test_bootstrap_repeats_and_pairs():
    """The same seed draws the same images, so a model's difference to itself is none."""
    random = np.random.default_rng(0)
    labels = (random.random([50, 3]) < 0.3).astype(int)
    result = classification_ap(random.normal(size=[50, 3]) + labels, labels, "area")
    first, second = (bootstrap(result.weighted, result.images, resamples=20, seed=5) for _ in range(2))
    assert first.shape == (20, 3)
    assert np.ptp(first, axis=0).min() > 0
    assert np.abs(interval(first - second, np.zeros(3))).max() == 0
    assert (bootstrap(result.weighted, result.images, resamples=20, seed=6) != first).any()
    low, high = interval(class_mean(first), result.mean)
    assert low < result.mean < high
    assert interval(first, result.per_class).shape == (3, 2)


def test_interval_by_hand():
    """Values 0 to 100 have the mean 50, and 90 % of them lie in 5 to 95: around an estimate of 40 that is -5 to 85."""
    values = np.arange(101.0)
    np.testing.assert_allclose(interval(values, 40.0, confidence=0.9), [-5, 85])
    columns = np.stack([values, np.where(values < 100, NAN, values), np.full(101, NAN)], axis=1)
    expected = [[-5, 85], [7, 7], [NAN, NAN]]
    np.testing.assert_allclose(interval(columns, [40, 7, NAN], confidence=0.9), expected)


def test_bootstrap_of_confusions():
    """Images without any error or with nothing else: mean IoU of a resample follows from how often each was drawn."""
    confusions = np.array([[[4, 0], [0, 4]], [[0, 4], [4, 0]]])
    drawn = []

    def figures(times):
        drawn.append(times)
        return class_iou(np.tensordot(times, confusions, 1))

    values = bootstrap(figures, 2, resamples=50)
    right = np.array(drawn)[:, 0]
    np.testing.assert_allclose(values, np.tile((right / (right + 2 * (2 - right)))[:, None], 2))
    assert set(right) == {0, 1, 2}


def test_intervals_hold_the_truth():
    """At chance, where unmoved intervals hold it least: the expected mean AP of such test sets, and what they say."""

    def draw(seed):
        random = np.random.default_rng(seed)
        labels = (random.random([200, 20]) < 0.1).astype(int)
        return classification_ap(random.normal(size=[200, 20]), labels, "area")

    truth = np.mean([draw(seed).mean for seed in range(1000, 1100)])
    held, unmoved = [], []
    for seed in range(30):
        result = draw(seed)
        values = class_mean(bootstrap(result.weighted, result.images, resamples=40, seed=seed))
        for estimate, holds in ((result.mean, held), (values.mean(), unmoved)):
            low, high = interval(values, estimate)
            holds.append(low <= truth <= high)
    assert np.mean(held) >= 0.85
    assert np.mean(unmoved) < np.mean(held)
