"""Stage 1: losses, what a step changes, losses that are not finite."""

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from tests.fixtures.models import autoencoder, images, moved, snapshot

GRAPH = pytest.param(True, id="graph", marks=pytest.mark.slow)  # the quick set has `fit`, and the GAN's step
EAGER = pytest.param(False, id="eager")


def test_losses():
    """Fails if a term, its weight or a decayed weight is missing."""
    model = autoencoder(reconstruction_weight=7.0, weight_decay=0.1)
    terms = model.compute_losses(images(), training=False)
    squared_error = float(losses.reconstruction(model(images()), images(), 1.0))
    np.testing.assert_allclose(terms["reconstruction"], 7 * squared_error, rtol=1e-5)
    decayed = [v for v in model.trainable_variables if v.name == "kernel"] + [model.decoder.to_image.bias]
    assert {id(v) for v in decayed} == {id(v) for v in model.decayed_weights()}
    total = sum(np.sum(np.square(v.numpy().astype(float))) for v in decayed)
    np.testing.assert_allclose(terms["l2"], 0.1 * total / 2, rtol=1e-5)
    np.testing.assert_allclose(terms["loss"], terms["reconstruction"] + terms["l2"], rtol=1e-6)


@pytest.mark.parametrize("graph", [EAGER, GRAPH])
def test_everything_moves(graph):
    """Fails for a layer without a gradient, or statistics that stay."""
    model = autoencoder()
    before = snapshot(model)
    step = tf.function(model.train_step) if graph else model.train_step
    step(images())
    assert moved(model, before) == set(before)
    assert int(model.optimizer.iterations) == 1


def test_evaluation_moves_nothing():
    """Fails if statistics learn from test images."""
    model = autoencoder()
    before = snapshot(model)
    logs = model.test_step(images())
    assert not moved(model, before)
    np.testing.assert_allclose(logs["loss"], model.compute_losses(images(), training=False)["loss"], rtol=1e-6)


def test_fit():
    """Fails if `fit` does not train, or epochs share their means."""
    model = autoencoder(learning_rate=3e-3)
    data = tf.data.Dataset.from_tensors(images()).repeat(5)
    history = model.fit(data, epochs=2, verbose=0).history
    assert history["reconstruction"][1] < history["reconstruction"][0]
    last = [float(value) for value in model.metrics[0].result().values()]
    np.testing.assert_allclose(last[0], history["loss"][1], rtol=1e-6)
    assert float(model.metrics[0].sums[-1]) == 5  # steps since the last reset


@pytest.mark.parametrize("graph", [EAGER, GRAPH])
def test_loss_that_is_not_finite(graph):
    """Fails if a step with NaN changes a weight, or names no term."""
    model = autoencoder()
    before = {v.path: v.numpy().copy() for v in model.trainable_variables}
    step = tf.function(model.train_step) if graph else model.train_step
    bad = tf.tensor_scatter_nd_update(images(), [[0, 0, 0, 0]], [float("nan")])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"'(loss|reconstruction)' is not finite"):
        step(bad)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])
    assert int(model.optimizer.iterations) == 0


def test_bfloat16_agrees():
    """Fails for bfloat16 losses or weights, or losses further off than its 8 bits."""
    low = autoencoder("mixed_bfloat16")
    inputs = images(8)
    ours = low.compute_losses(tf.cast(inputs, tf.bfloat16))
    theirs = autoencoder().compute_losses(inputs)
    for name, value in ours.items():
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, theirs[name], rtol=0.01, err_msg=name)
    low.train_step(inputs)
    assert {variable.dtype for variable in low.variables} == {"float32"}


def test_pictures():
    """Fails for rows outside [-1, 1], or of other sizes."""
    rows = autoencoder().pictures(images())
    assert set(rows) == {"image", "reconstruction"}
    for row in rows.values():
        assert row.shape == (4, 32, 32, 3)
        assert float(tf.reduce_max(tf.abs(row))) <= 1
