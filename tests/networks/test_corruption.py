"""Corruption of the features against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from lts.networks.corruption import damage_features, draw_keep_mask
from tests.fixtures import oracles

RS = np.random.RandomState(0)
FEATURES = RS.standard_normal((2, 5, 5, 3)).astype(np.float32)
KEEP_MASK = (RS.uniform(size=(2, 5, 5, 1)) < 0.5).astype(np.float32)  # both values at border and centre


def test_average():
    """Fails for averages of damaged features, or over missing cells.

    BUILD_NOTES trap 1; kept cells are not rescaled.
    """
    damaged = damage_features(tf.constant(FEATURES), KEEP_MASK)
    wanted = FEATURES * KEEP_MASK + (1 - KEEP_MASK) * oracles.average(FEATURES)
    kept = KEEP_MASK[..., 0] == 1
    np.testing.assert_allclose(damaged, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(damaged.numpy()[kept], FEATURES[kept])


def test_zero():
    """Fails if the ablation fills dropped cells with anything."""
    damaged = damage_features(tf.constant(FEATURES), KEEP_MASK, "zero")
    np.testing.assert_array_equal(damaged, FEATURES * KEEP_MASK)


def test_unknown_fill():
    """Fails if a misspelt fill is taken for the default."""
    with pytest.raises(ValueError, match="fill='mean'"):
        damage_features(tf.zeros([1, 2, 2, 1]), tf.zeros([1, 2, 2, 1]), "mean")


def test_dtype():
    """Fails if a float32 mask makes bfloat16 features float32."""
    assert damage_features(tf.zeros([1, 2, 2, 1], tf.bfloat16), tf.zeros([1, 2, 2, 1])).dtype == tf.bfloat16


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_keep_probability(probability):
    """Fails if it is the probability to drop (BUILD_NOTES trap 1)."""
    uniform = np.random.RandomState(0).uniform(size=(100, 30, 30, 1)).astype(np.float32)
    keep_mask = draw_keep_mask(uniform, probability).numpy()
    assert set(np.unique(keep_mask)) == {0.0, 1.0}
    np.testing.assert_allclose(keep_mask.mean(), probability, atol=0.006)  # 4 sd of 90,000 cells
    np.testing.assert_array_equal(keep_mask, uniform >= np.float32(1) - np.float32(probability))


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_keep_probability_at_the_ends(probability):
    """Fails if a cell is dropped at 1 or kept at 0."""
    uniform = np.linspace(0, 1, 1000, endpoint=False, dtype=np.float32)
    np.testing.assert_array_equal(draw_keep_mask(uniform, probability), np.full(1000, probability))
