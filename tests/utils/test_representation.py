"""Measures of features against the sentences that define them, pair by pair."""

import numpy as np
import pytest

from lts.utils import representation


def unit(features) -> list:
    """Return the features, each divided by its length."""
    return [row / np.linalg.norm(row) for row in features]


def voted(features, labels, index: int, neighbours: int) -> int:
    """Return the label that the nearest other images give to an image."""
    rows = unit(features)
    others = [other for other in range(len(rows)) if other != index]
    others.sort(key=lambda other: -rows[index] @ rows[other])
    votes = dict.fromkeys(labels.tolist(), 0.0)
    for other in others[:neighbours]:
        votes[int(labels[other])] += np.exp(rows[index] @ rows[other] / 0.07)
    return max(votes, key=votes.get)


@pytest.mark.parametrize(("images", "channels"), [(40, 6), (9, 20), (2, 3)])
def test_measures_are_those_of_the_definitions(images, channels, monkeypatch):
    """Fails if an image votes for itself, a pair counts twice or is lost between blocks, or lengths matter."""
    monkeypatch.setattr(representation, "BLOCK", 7)
    generator = np.random.default_rng(images)
    features = generator.normal(size=(images, channels)) * generator.uniform(0.1, 10, (images, 1)) + 0.3
    views = features + generator.normal(size=features.shape)
    labels = 10 * generator.integers(0, 3, images) + 3  # not 0 to n
    for neighbours in (1, 5, 500):
        correct = [voted(features, labels, index, neighbours) == labels[index] for index in range(images)]
        assert representation.knn_accuracy(features, labels, neighbours) == np.mean(correct)

    singular_values = np.linalg.svd(features, compute_uv=False)
    shares = singular_values / singular_values.sum()
    rank = np.exp(-sum(share * np.log(share) for share in shares))
    assert representation.effective_rank(features) == pytest.approx(rank, rel=1e-6)

    pairs = zip(unit(features), unit(views), strict=True)
    distances = [np.sum((first - second) ** 2) for first, second in pairs]
    assert representation.alignment(features, views) == pytest.approx(np.mean(distances))

    potentials = []
    for index, first in enumerate(unit(features)):
        potentials += [np.exp(-2 * np.sum((first - second) ** 2)) for second in unit(features)[:index]]
    assert representation.uniformity(features) == pytest.approx(np.log(np.mean(potentials)), rel=1e-5)


def test_neighbours_and_similar_pairs_are_those_of_all_pairs(monkeypatch):
    """Fails if an image is its own neighbour, or if a pair counts twice or is lost between blocks."""
    monkeypatch.setattr(representation, "BLOCK", 7)
    features = np.random.default_rng(0).normal(size=(20, 4))
    features[13] = 2 * features[3] + 0.001
    features[17] = 1.1 * features[5] + 0.01
    rows = unit(features)
    shown = np.array([19, 3, 0, 13, 5, 6, 7, 8, 9])
    numbers, similarities = representation.nearest(features, shown, 5)
    for row, found, values in zip(shown, numbers, similarities, strict=True):
        others = sorted((other for other in range(20) if other != row), key=lambda other: -rows[row] @ rows[other])
        assert found.tolist() == others[:5]
        np.testing.assert_allclose(values, [rows[row] @ rows[other] for other in others[:5]], atol=1e-6)

    expected = []
    for second in range(20):
        expected += [(rows[first] @ rows[second], first, second) for first in range(second)]
    expected = sorted(pair for pair in expected if pair[0] >= 0.6)[::-1]
    assert 3 < len(expected) < 100
    pairs, similarities, total = representation.similar_pairs(features, 0.6, 100)
    assert pairs.tolist() == [[first, second] for _, first, second in expected]
    np.testing.assert_allclose(similarities, [similarity for similarity, _, _ in expected], atol=1e-6)
    assert total == len(expected)
    fewer, _, total = representation.similar_pairs(features, 0.6, 3)
    assert fewer.tolist() == pairs[:3].tolist()
    assert total == len(expected)


def test_extremes():
    """Fails if collapsed, dead or perfect features do not get the documented ends of the ranges."""
    equal = np.ones([6, 4], np.float32)
    dead = np.zeros([6, 4], np.float32)
    for collapsed in (equal, dead):
        assert representation.effective_rank(collapsed) == pytest.approx(1, abs=1e-5)
        assert representation.uniformity(collapsed) == pytest.approx(0, abs=1e-5)
        assert representation.alignment(collapsed, collapsed) == 0
    assert representation.effective_rank(np.eye(6, 4)) == pytest.approx(4)
    assert representation.alignment(equal, -equal) == pytest.approx(4)
    assert representation.uniformity(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8)
    assert representation.knn_accuracy(np.repeat(np.eye(3), 4, axis=0), np.repeat([0, 1, 2], 4), 3) == 1.0
