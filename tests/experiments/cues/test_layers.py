"""Probes of single layers on made-up features."""

import numpy as np
import pytest

from experiments.cues import layers
from experiments.probing.probe import ProbeError
from lts.spotting.evaluation import pair_ranking


def test_parts_hold_whole_groups():
    """Fails if an image is in two parts or in none, partners are torn apart, or a share is wrong."""
    fit, held_out, test = layers.divide(100, 2, (0.5, 0.2), seed=1)
    assert (len(fit), len(held_out), len(test)) == (40, 10, 50)
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, held_out, test])), np.arange(100))
    for part in (fit, held_out, test):
        assert set(part ^ 1) == set(part)
    assert all(len(part) for part in layers.divide(4, 1, (0.99, 0.99), seed=1))
    with pytest.raises(ProbeError, match=r"at least 8 images. Received: 6"):
        layers.divide(6, 2, (0.5, 0.2), seed=1)


def test_what_a_probe_finds():
    """Fails if a probe misses a shift of one dimension, or tells noise or identical versions apart."""
    generator = np.random.default_rng(0)
    parts = layers.divide(400, 1, (0.5, 0.2), seed=1)
    images = generator.normal(size=(400, 30)).astype(np.float32)
    noise = generator.normal(size=(2, 400, 30)).astype(np.float32)
    marked = noise.copy()
    marked[1, :, 7] += 4

    def auroc(features):
        (untouched, changed), chosen = layers.probe(features, parts)
        assert untouched.shape == (200,)
        assert chosen["dimensions"] == 30
        return pair_ranking(untouched, changed).counts().auroc

    assert auroc(marked) > 0.98
    assert auroc(marked[::-1]) > 0.98  # the sign does not matter
    assert auroc(noise) == pytest.approx(0.5, abs=0.07)
    assert auroc(np.stack([images, images])) == 0.5
