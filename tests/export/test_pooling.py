"""Pooling against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from lts.export import pooling

NUMPY = {"average": np.mean, "max": np.max}


def adaptive_oracle(maps: np.ndarray, cells: int, kind: str) -> np.ndarray:
    """Pool each bin by its definition, one after the other."""
    height, width = maps.shape[1:3]
    pooled = np.empty([len(maps), cells, cells, maps.shape[3]])
    for i in range(cells):
        for j in range(cells):
            rows = slice(i * height // cells, -(-(i + 1) * height // cells))
            columns = slice(j * width // cells, -(-(j + 1) * width // cells))
            pooled[:, i, j] = NUMPY[kind](maps[:, rows, columns], axis=(1, 2))
    return pooled


@pytest.mark.parametrize("kind", ["average", "max"])
@pytest.mark.parametrize(("size", "cells"), [((6, 6), 3), ((7, 5), 3), ((8, 8), 7), ((4, 4), 1), ((5, 5), 5)])
def test_adaptive_pool(kind, size, cells):
    """Fails if a bin covers other inputs than its definition says."""
    maps = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    pooled = tf.function(pooling.adaptive_pool)(tf.constant(maps), cells, kind)
    np.testing.assert_allclose(pooled, adaptive_oracle(maps, cells, kind), rtol=1e-5, atol=1e-6)


def test_pool():
    """Fails if a name of `--pool` means another pooling."""
    maps = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    expected = {
        "none": maps,
        "avg": maps.mean((1, 2)),
        "max": maps.max((1, 2)),
        "grid:2": adaptive_oracle(maps, 2, "average"),
        "grid:9": adaptive_oracle(maps, 9, "average"),  # more cells than inputs
    }
    for how, values in expected.items():
        np.testing.assert_allclose(pooling.pool(tf.constant(maps), how), values, rtol=1e-5, atol=1e-6)
