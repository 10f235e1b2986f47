"""Rankings computed manually, and scikit-learn as the oracle."""

import numpy as np
import pytest
from sklearn import metrics

from lts.utils.ranking import RULES, Ranking
from lts.utils.statistics import bootstrap, percentile_interval

NAN = float("nan")

# Above 0.5: one dropped cell and one kept cell. The second dropped cell is missed.
MAP = np.array([[[0.9, 0.6], [0.2, 0.1]]])
DROPPED = np.array([[[True, False], [True, False]]])


def average_precision(scores, positive, rule: str) -> float:
    return Ranking(scores, positive).counts().average_precision(rule)


def test_iou_by_hand():
    """Fails if the score at the threshold is not retrieved, or IoU is not intersection over union."""
    counts = Ranking(MAP, DROPPED).counts()
    iou = counts.iou()
    assert counts.base_rate == 0.5
    assert counts.at(0.5, iou) == pytest.approx(1 / 3)  # retrieved {1, 2}, dropped {1, 3}: one of three
    assert counts.at(0.7, iou) == pytest.approx(1 / 2)
    assert counts.at(0.2, iou) == pytest.approx(2 / 3)
    assert counts.at(0.95, iou) == 0
    assert counts.at(0, iou) == 0.5
    assert counts.thresholds[iou.argmax()] == 0.2


def test_auroc_by_hand():
    """Fails if AUROC is not the share of pairs in the right order: here three of four."""
    counts = Ranking(MAP, DROPPED).counts()
    assert counts.auroc == pytest.approx(3 / 4)
    assert Ranking(np.full(10, 0.3), np.arange(10) < 4).counts().auroc == 0.5


def test_average_precision_by_hand():
    """Fails if a rule changes.

    Hits at ranks 1, 3 and 5: precision 1 at recall 1/3, 2/3 at 2/3, 3/5 at 1. Eleven points: recall 0 to 0.3 gives 1
    (4 points), 0.4 to 0.6 gives 2/3 (3 points), 0.7 to 1 gives 3/5 (4 points).
    """
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    positive = [1, 0, 1, 0, 1]
    for rule in ("area", "step"):
        assert average_precision(scores, positive, rule) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(scores, positive, "11-point") == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)


def test_positives_without_entry_are_missed():
    """Fails if recall counts the entries alone: four positives, three retrieved, recall ends at 3/4."""
    counts = Ranking([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 1], np.zeros(5, int), [4]).counts()
    assert counts.average_precision("area") == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # Recall 0 to 0.2: 1; 0.3 to 0.5: 2/3; 0.6 and 0.7: 3/5; 0.8 to 1: 0.
    assert counts.average_precision("11-point") == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11)
    precision, recall = counts.precision_recall()
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4])


def test_precision_is_interpolated():
    """Fails without interpolation: a miss before two hits gives 0, 1/2, 2/3, of which the greatest counts."""
    for rule in ("11-point", "area"):
        assert average_precision([3, 2, 1], [0, 1, 1], rule) == pytest.approx(2 / 3)
    assert average_precision([3, 2, 1], [0, 1, 1], "step") == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("hits", range(11))
def test_recall_steps_are_exact(hits):
    """Fails if k of ten positives do not reach recall 0, 0.1, ..., k/10 to the digit: k + 1 points of precision 1."""
    counts = Ranking(np.arange(hits), np.ones(hits), np.zeros(hits, int), [10]).counts()
    assert counts.average_precision("11-point") == pytest.approx((hits + 1) / 11 if hits else 0)
    assert counts.average_precision("area") == pytest.approx(hits / 10)


@pytest.mark.parametrize("rule", RULES)
def test_equal_scores_enter_together(rule):
    """Fails if the order of equal scores has an influence."""
    for positive in ([1, 0, 0, 0], [0, 0, 0, 1]):
        assert average_precision(np.full(4, 0.5), positive, rule) == 1 / 4
    # Threshold 0.9: 1 of 2; 0.5: 2 of 4.
    assert average_precision([0.9, 0.9, 0.5, 0.5], [1, 0, 0, 1], rule) == 1 / 2


def test_without_positives_there_is_no_average_precision():
    """Fails if a class without positives counts as 0."""
    assert np.isnan(average_precision([0.1, 0.2], [0, 0], "area"))
    assert np.isnan(average_precision([], [], "11-point"))


def test_invalid_arguments():
    """Fails if a nan, an unknown rule, or labels of one kind give a figure."""
    with pytest.raises(ValueError, match=r"11-point.*Received: rule='101-point'"):
        average_precision([1], [1], "101-point")
    with pytest.raises(ValueError, match="Received: 1 nan of 2"):
        Ranking([1, NAN], [1, 0])
    with pytest.raises(ValueError, match="4 of 4"):
        Ranking(np.arange(4), np.ones(4)).counts().roc()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(20))
def test_average_precision_of_any_ranking(seed, rule):
    """Fails if order or scale of the scores matter, a perfect ranking is not 1, or more hits above harm."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=40).round(seed % 3)
    positive = random.random(40) < 0.3
    positive[0] = True
    shuffled = random.permutation(40)
    value = average_precision(scores, positive, rule)
    assert 0 < value <= 1
    assert average_precision(scores[shuffled], positive[shuffled], rule) == value
    assert average_precision(np.exp(3 * scores), positive, rule) == value
    assert average_precision(positive + 0.1 * np.tanh(scores), positive, rule) == pytest.approx(1, abs=1e-15)
    assert average_precision(scores + 0.5 * positive, positive, rule) >= value


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_scikit_learn(digits, weighted):
    """Fails if a figure differs from scikit-learn's, with ties, without, and with weights."""
    random = np.random.default_rng(digits)
    labels = random.random(500) < 0.7
    scores = np.round(random.normal(size=500) + labels, digits)
    weights = random.integers(0, 4, 500) if weighted else None
    counts = Ranking(scores, labels).counts(weights)
    assert counts.auroc == pytest.approx(metrics.roc_auc_score(labels, scores, sample_weight=weights))
    expected = metrics.average_precision_score(labels, scores, sample_weight=weights)
    assert counts.average_precision("step") == pytest.approx(expected)
    for threshold in (-1.0, 0.5, 1.5):
        expected = metrics.jaccard_score(labels, scores >= threshold, sample_weight=weights)
        assert counts.at(threshold, counts.iou()) == pytest.approx(expected)
    alarms, hits, _ = metrics.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    assert metrics.auc(*counts.roc()) == pytest.approx(metrics.auc(alarms, hits))


def test_an_image_is_drawn_with_all_its_cells():
    """Fails if cells are resampled instead of images: a hundred copies of each cell must not narrow the interval."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    scores = random.normal(size=60) + labels
    intervals = []
    for copies in (1, 100):
        images = np.repeat(np.arange(60), copies)
        ranking = Ranking(scores[images], labels[images], images)
        values = bootstrap(lambda times, ranking=ranking: ranking.counts(times).auroc, 60, resamples=200, seed=1)
        intervals.append(percentile_interval(values, 0.95))
    np.testing.assert_allclose(*intervals)
    low, high = intervals[0]
    assert low < Ranking(scores, labels).counts().auroc < high


@pytest.mark.parametrize("digits", [1, 2, 9])
def test_interpolated_rules_agree_with_scikit_learns_curve(digits):
    """Fails if the VOC rules differ from those computed on scikit-learn's curve.

    Its curve ends with precision 1 at recall 0, a point that no threshold has.
    """
    random = np.random.default_rng(digits)
    positive = random.random(300) < 0.2
    scores = np.round(random.normal(size=300) + positive, digits)
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    precision = precision[:-1]
    recall = recall[:-1]
    points = [max(precision[recall >= step / 10 - 1e-9]) for step in range(11)]
    steps = [max(precision[recall >= (step + 0.5) / positive.sum()]) for step in range(positive.sum())]
    assert average_precision(scores, positive, "11-point") == pytest.approx(np.mean(points))
    assert average_precision(scores, positive, "area") == pytest.approx(np.mean(steps))
    assert average_precision(scores, positive, "area") > metrics.average_precision_score(positive, scores)
