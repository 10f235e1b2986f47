"""Intervals against committed results, against manual computation, and on simulated test sets."""

import json
import pathlib

import numpy as np
import pytest

from lts.utils import statistics

NAN = float("nan")
RESULTS = pathlib.Path(__file__).parents[2] / "experiments" / "results"
BOOTSTRAP = {"resamples": 10000, "confidence": 0.95, "seed": 1}


def read_layers(name: str) -> tuple[dict, dict]:
    """Return the protocol and the layers of a committed results file."""
    results = json.loads((RESULTS / name).read_text())
    return results, results["model"]["layers"]


def test_bootstrap_of_committed_accuracies():
    """Fails if a committed interval over test images can no longer be computed again to the last digit."""
    results, layers = read_layers("small_imagenette128.json")
    protocol = results["protocol"]
    images = results["dataset"]["test_images"]
    for record in layers.values():
        correct = np.arange(images) < round(record["accuracy"] * images)
        interval = statistics.mean_interval(
            correct, resamples=protocol["resamples"], confidence=protocol["confidence"], seed=protocol["seed"]
        )
        assert list(interval) == record["interval"]


def test_student_of_committed_draws():
    """Fails if a committed interval over draws can no longer be computed again."""
    results, layers = read_layers("small_imagenette128_few_shot.json")
    for shares in layers.values():
        for record in shares.values():
            interval = statistics.student_interval(record["accuracies"], results["protocol"]["confidence"])
            assert interval == pytest.approx(record["interval"], abs=1e-14)


def test_mean_interval_is_the_normal_one_for_many_images():
    """Fails if the interval depends on the order of the images or is not 1.96 standard errors wide."""
    values = np.arange(2000) < 1400  # 70 % of 2,000: standard error 1.025 %
    low, high = statistics.mean_interval(values, **BOOTSTRAP)
    assert low == pytest.approx(0.7 - 1.96 * 0.010247, abs=1e-3)
    assert high == pytest.approx(0.7 + 1.96 * 0.010247, abs=1e-3)
    assert statistics.mean_interval(values[::-1], **BOOTSTRAP) == (low, high)


def test_mean_interval_covers_the_truth():
    """Fails if intervals of 95 % contain the truth in other than about 95 % of simulated test sets."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        low, high = statistics.mean_interval(generator.random(400) < 0.6, resamples=1000, confidence=0.95, seed=1)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_student_interval_covers_the_truth():
    """Fails if intervals over five draws contain the truth in other than about 95 % of simulations."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        low, high = statistics.student_interval(generator.normal(0.6, 0.03, 5), 0.95)
        covered += low <= 0.6 <= high
    assert 0.93 <= covered / 1000 <= 0.97


def test_student_interval_of_equal_values():
    """Fails if equal values give nan."""
    assert statistics.student_interval([0.5, 0.5, 0.5], 0.95) == (0.5, 0.5)


def test_paired_difference_is_narrower_than_two_accuracies():
    """Fails if the difference is not taken image by image."""
    model = (np.arange(1000) % 10 < 7).astype(float)
    baseline = model * (np.arange(1000) % 50 > 0)  # wrong on 20 more images
    mean, difference = statistics.paired_difference(model, [baseline, baseline])
    np.testing.assert_array_equal(mean, baseline)
    low, high = statistics.mean_interval(difference, **BOOTSTRAP)
    assert 0 < low < 0.02 < high < 0.04


def test_bootstrap_repeats_and_pairs():
    """Fails if two models with the same seed get other resamples, or two seeds the same."""
    values = np.random.default_rng(0).normal(size=[50, 3])

    def figures(times):
        return times @ values / times.sum()

    first = statistics.bootstrap(figures, 50, resamples=20, seed=5)
    assert first.shape == (20, 3)
    assert np.ptp(first, axis=0).min() > 0
    np.testing.assert_array_equal(first, statistics.bootstrap(figures, 50, resamples=20, seed=5))
    assert (statistics.bootstrap(figures, 50, resamples=20, seed=6) != first).any()


def test_percentile_interval_by_hand():
    """Fails if an interval is not moved around its centre, or a nan is counted.

    Values 0 to 100 have the mean 50, and 90 % of them are in 5 to 95. Around 40 that is -5 to 85.
    """
    values = np.arange(101.0)
    np.testing.assert_allclose(statistics.percentile_interval(values, 0.9), [5, 95])
    np.testing.assert_allclose(statistics.percentile_interval(values, 0.9, 40.0), [-5, 85])
    columns = np.stack([values, np.where(values < 100, NAN, values), np.full(101, NAN)], axis=1)
    expected = [[-5, 85], [7, 7], [NAN, NAN]]
    np.testing.assert_allclose(statistics.percentile_interval(columns, 0.9, [40, 7, NAN]), expected)
