"""Damage of the features against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from lts.networks.corruption import damage_features, draw_keep_mask
from tests.fixtures import oracles


def features_and_mask(seed: int = 0):
    """[2, 5, 5, 3] features and a mask with kept and dropped cells at border and centre."""
    rs = np.random.RandomState(seed)
    keep = (rs.uniform(size=(2, 5, 5, 1)) < 0.5).astype(np.float32)
    return rs.standard_normal((2, 5, 5, 3)).astype(np.float32), keep


def test_average():
    """Border averages over 9 cells, average of damaged features, kept cells rescaled (BUILD_NOTES trap 1)."""
    features, keep = features_and_mask()
    ours = damage_features(tf.constant(features), keep)
    wanted = features * keep + (1 - keep) * oracles.average(features)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours.numpy()[keep[..., 0] == 1], features[keep[..., 0] == 1])


def test_zero():
    """The ablation's fill."""
    features, keep = features_and_mask()
    np.testing.assert_array_equal(damage_features(tf.constant(features), keep, "zero"), features * keep)


def test_unknown_fill_is_named():
    """A misspelt fill that is taken for the default."""
    with pytest.raises(ValueError, match="fill='mean'"):
        damage_features(tf.zeros([1, 2, 2, 1]), tf.zeros([1, 2, 2, 1]), "mean")


def test_dtype_stays():
    """A float32 mask that lifts bfloat16 features."""
    assert damage_features(tf.zeros([1, 2, 2, 1], tf.bfloat16), tf.zeros([1, 2, 2, 1])).dtype == tf.bfloat16


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_keep_probability(probability):
    """The probability to drop for the probability to keep (BUILD_NOTES trap 1)."""
    uniform = np.random.RandomState(0).uniform(size=(100, 30, 30, 1)).astype(np.float32)
    keep = draw_keep_mask(uniform, probability).numpy()
    assert set(np.unique(keep)) == {0.0, 1.0}
    np.testing.assert_allclose(keep.mean(), probability, atol=0.006)  # 4 sd of 90,000 cells
    np.testing.assert_array_equal(keep, uniform >= np.float32(1) - np.float32(probability))


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_keep_probability_at_the_ends(probability):
    """A cell that is dropped at 1 or kept at 0."""
    uniform = np.linspace(0, 1, 1000, endpoint=False, dtype=np.float32)
    np.testing.assert_array_equal(draw_keep_mask(uniform, probability), np.full(1000, probability))
