"""Hand-worked cases, and scikit-learn as the oracle where there are many scores."""

import numpy as np
import pytest
from sklearn import metrics

from lts.spotting.curves import Ranking, intervals

# Found above 0.5: one dropped cell and one that was kept; a third, dropped one is missed.
MAP = np.array([[[0.9, 0.6], [0.2, 0.1]]])
DROPPED = np.array([[[True, False], [True, False]]])


def test_iou_by_hand():
    counts = Ranking(MAP, DROPPED).counts()
    assert counts.base_rate == 0.5
    assert counts.iou_at(0.5) == pytest.approx(1 / 3)  # found {1, 2}, there {1, 3}: one of three
    assert counts.iou_at(0.7) == pytest.approx(1 / 2)
    assert counts.iou_at(0.2) == pytest.approx(2 / 3)  # a score that equals the threshold is found
    assert counts.iou_at(0.95) == 0
    assert counts.iou_at(0) == 0.5
    assert counts.thresholds[counts.iou().argmax()] == 0.2


def test_average_precision_and_auroc_by_hand():
    counts = Ranking(MAP, DROPPED).counts()
    assert counts.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert counts.auroc == pytest.approx(3 / 4)  # of four pairs one is in the wrong order


def test_equal_scores_count_half():
    counts = Ranking(np.full(10, 0.3), np.arange(10) < 4).counts()
    assert counts.auroc == 0.5
    assert counts.average_precision == pytest.approx(0.4)
    assert counts.iou_at(0.3) == pytest.approx(0.4)


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize("weighted", [False, True])
def test_as_scikit_learn(digits, weighted):
    """With ties, without, and with weights."""
    random = np.random.default_rng(digits)
    labels = random.random(500) < 0.7
    scores = np.round(random.normal(size=500) + labels, digits)
    weights = random.integers(0, 4, 500) if weighted else None
    counts = Ranking(scores, labels).counts(weights)
    assert counts.auroc == pytest.approx(metrics.roc_auc_score(labels, scores, sample_weight=weights))
    expected = metrics.average_precision_score(labels, scores, sample_weight=weights)
    assert counts.average_precision == pytest.approx(expected)
    for threshold in (-1.0, 0.5, 1.5):
        expected = metrics.jaccard_score(labels, scores >= threshold, sample_weight=weights)
        assert counts.iou_at(threshold) == pytest.approx(expected)
    alarms, hits, _ = metrics.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    assert metrics.auc(*counts.roc()) == pytest.approx(metrics.auc(alarms, hits))


def test_one_kind_of_label_is_refused():
    with pytest.raises(ValueError, match="4 of 4"):
        Ranking(np.arange(4), np.ones(4))


def test_the_interval_draws_images_not_cells():
    """A hundred copies of each image's cell say nothing more than one: the interval stays."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    scores = random.normal(size=60) + labels
    ends = {}
    for copies in (1, 100):
        ranking = Ranking(np.tile(scores[:, None], copies), np.tile(labels[:, None], copies))
        images = np.tile(np.arange(60)[:, None], copies)
        ends[copies] = intervals(ranking, images, {"auroc": lambda counts: counts.auroc}, resamples=200)["auroc"]
    np.testing.assert_allclose(ends[1], ends[100])
    low, high = ends[1]
    assert low < Ranking(scores, labels).counts().auroc < high


def test_the_interval_is_that_of_the_seed():
    scores = np.random.default_rng(0).normal(size=50)
    ranking, images = Ranking(scores, scores > 0.3), np.arange(50)

    def ends(seed):
        return intervals(ranking, images, {"rate": lambda counts: counts.base_rate}, resamples=50, seed=seed)

    assert ends(1) == ends(1)
    assert ends(1) != ends(2)
