"""Pooling against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from lts.export import pooling


@pytest.mark.parametrize("kind", ["average", "max"])
@pytest.mark.parametrize(("size", "cells"), [((6, 6), 3), ((7, 5), 3), ((8, 8), 7), ((4, 4), 1), ((5, 5), 5)])
def test_adaptive_pool_against_numpy(kind, size, cells):
    maps = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    reduce = {"average": np.mean, "max": np.max}[kind]
    expected = np.empty([2, cells, cells, 3])
    for i in range(cells):
        for j in range(cells):
            top, left = i * size[0] // cells, j * size[1] // cells
            bottom, right = -(-(i + 1) * size[0] // cells), -(-(j + 1) * size[1] // cells)
            expected[:, i, j] = reduce(maps[:, top:bottom, left:right], axis=(1, 2))
    pooled = tf.function(pooling.adaptive_pool)(tf.constant(maps), cells, kind)
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
