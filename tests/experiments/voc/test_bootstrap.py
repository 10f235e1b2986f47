"""Weights of images, resamples and intervals of all three metrics."""

import numpy as np
import pytest

from experiments.voc.metrics import RULES, class_iou, class_mean, classification_ap, detection_ap
from lts.utils.statistics import bootstrap, percentile_interval
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


def test_bootstrap_of_confusions():
    """Images without any error or with nothing else: mean IoU of a resample follows from how often each was drawn."""
    confusions = np.array([[[4, 0], [0, 4]], [[0, 4], [4, 0]]])
    drawn = []

    def figures(times):
        drawn.append(times)
        return class_iou(np.tensordot(times, confusions, 1))

    values = bootstrap(figures, 2, resamples=50, seed=1)
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
            low, high = percentile_interval(values, 0.95, estimate)
            holds.append(low <= truth <= high)
    assert np.mean(held) >= 0.85
    assert np.mean(unmoved) < np.mean(held)
