"""Pooling against NumPy, and the pass over the images."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.probing import features
from experiments.probing.probe import ProbeError


@pytest.mark.parametrize(
    ("shape", "cells"),
    [((24, 24, 96), 10), ((6, 6, 256), 6), ((6, 6, 384), 5), ((3, 5, 8), 3), ((1, 1, 20000), 1)],
)
def test_pooled_cells_comes_closest_to_9000(shape, cells):
    """Fails if a layer gets more or fewer values than in RotNet's release."""
    assert features.pooled_cells(*shape, 9000) == cells


def _model(images):
    """Return two layers: the pixels, and twice the pixels."""
    values = tf.cast(images, tf.float32)
    return {"one": values, "two": 2 * values}


def _batches(count, size=3):
    """Return images, and the same in batches."""
    images = np.arange(count * 4 * 4 * 3, dtype=np.uint8).reshape(count, 4, 4, 3)
    return images, tf.data.Dataset.from_tensor_slices(images).batch(size)


def test_extract_keeps_order_and_the_last_short_batch():
    """Fails if rows are exchanged or missing."""
    images, batches = _batches(7)
    extracted = features.extract(_model, batches, 7, ["one", "two"], dimensions=10**6)
    np.testing.assert_array_equal(extracted["one"], images.reshape(7, -1))
    np.testing.assert_array_equal(extracted["two"], 2.0 * extracted["one"])


@pytest.mark.parametrize("announced", [5, 9])
def test_extract_notices_another_number_of_images(announced):
    """Fails if rows without an image are evaluated."""
    _, batches = _batches(7)
    with pytest.raises(ProbeError, match=f"the number of images must be {announced}. Received: "):
        features.extract(_model, batches, announced, ["one"])


def test_extract_refuses_values_that_are_not_finite():
    """Fails if nan reaches a classifier."""
    _, batches = _batches(4)
    with pytest.raises(ProbeError, match="one has values that are not finite"):
        features.extract(lambda images: {"one": tf.cast(images, tf.float32) * np.nan}, batches, 4, ["one"])
