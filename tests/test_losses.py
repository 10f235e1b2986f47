"""Losses against NumPy and constants worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from tests.fixtures import oracles


def images(seed: int) -> np.ndarray:
    """float32 [2, 4, 4, 3] in [-1, 1]."""
    return np.random.RandomState(seed).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)


def test_reconstruction():
    """A sum for the mean, a mean over images of sums, the weight."""
    wanted = 30 * np.mean((images(0).astype(float) - images(1)) ** 2)
    np.testing.assert_allclose(losses.reconstruction(images(0), images(1)), wanted, rtol=1e-6)
    np.testing.assert_allclose(losses.reconstruction(images(0), images(1), 3.0), wanted / 10, rtol=1e-6)


def test_masked_reconstruction():
    """The denominator: 3 x the number of marked pixels, not of all, not without the 3 (BUILD_NOTES trap 2)."""
    pixels = (np.random.RandomState(2).uniform(size=(2, 4, 4, 1)) < 0.4).astype(np.float32)
    squares = (images(0).astype(float) - images(1)) ** 2
    wanted = 30 * np.sum(squares * pixels) / (3 * pixels.sum())
    np.testing.assert_allclose(losses.masked_reconstruction(images(0), images(1), pixels), wanted, rtol=1e-6)


def test_masked_reconstruction_is_over_the_batch():
    """A mean of the images' means: an image that is dropped everywhere only leaves the sum."""
    pixels = np.ones((2, 4, 4, 1), np.float32)
    pixels[0] = 0
    wanted = losses.reconstruction(images(0)[1:], images(1)[1:])
    np.testing.assert_allclose(losses.masked_reconstruction(images(0), images(1), pixels), wanted, rtol=1e-6)


def test_nothing_kept_gives_zero_and_a_finite_gradient():
    """0 / 0 (BUILD_NOTES trap 2)."""
    decoded = tf.constant(images(0))
    with tf.GradientTape() as tape:
        tape.watch(decoded)
        loss = losses.masked_reconstruction(decoded, images(1), np.zeros((2, 4, 4, 1), np.float32))
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, decoded), np.zeros_like(images(0)))


def test_everything_kept_is_the_plain_reconstruction():
    """Two weights that differ between the stages."""
    pixels = np.ones((2, 4, 4, 1), np.float32)
    ours = losses.masked_reconstruction(images(0), images(1), pixels)
    np.testing.assert_allclose(ours, losses.reconstruction(images(0), images(1)), rtol=1e-6)


def test_adversarial_losses():
    """Fails if classes are exchanged, a half is left out, or a sum is taken for the mean."""
    real_logits, fake_logits = np.random.RandomState(0).standard_normal((2, 5, 2)).astype(np.float32)

    def cross_entropy(real_label, fake_label):
        real = oracles.softmax_cross_entropy(real_logits, real_label)
        return (real + oracles.softmax_cross_entropy(fake_logits, fake_label)) / 2

    np.testing.assert_allclose(losses.real_fake(real_logits, fake_logits), cross_entropy(1, 0), rtol=1e-6)
    np.testing.assert_allclose(losses.confusion(real_logits, fake_logits), cross_entropy(0, 1), rtol=1e-6)
    wanted = oracles.softmax_cross_entropy(fake_logits, 1)
    np.testing.assert_allclose(losses.adversarial(fake_logits), wanted, rtol=1e-6)


def test_real_is_class_1():
    """Fails if the classes are exchanged, or a large logit overflows."""
    sure_real = np.array([[-500.0, 500.0]], np.float32)
    assert float(losses.adversarial(sure_real)) == 0
    assert float(losses.real_fake(sure_real, sure_real)) == 1000 / 2


def test_mask_prediction():
    """The weight, a sum over cells, labels exchanged."""
    rs = np.random.RandomState(0)
    logits, keep = rs.standard_normal((3, 6, 6)).astype(np.float32), (rs.uniform(size=(3, 6, 6)) < 0.3).astype(float)
    wanted = 0.1 * oracles.sigmoid_cross_entropy(logits, keep)
    np.testing.assert_allclose(losses.mask_prediction(logits, keep), wanted, rtol=1e-6)
    assert float(losses.mask_prediction(np.full((1, 2, 2), 1e4), np.ones((1, 2, 2)))) == 0


def test_l2():
    """The half left out, a mean for the sum."""
    weights = [np.array([1.0, 2.0], np.float32), np.array([[3.0]], np.float32)]
    np.testing.assert_allclose(losses.l2(weights), 5e-5 * 14 / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.l2(weights, 2.0), 14, rtol=1e-6)


def test_bfloat16_inputs_are_summed_in_float32():
    """A loss in bfloat16: 8 bits for a mean over ten thousands of numbers."""
    low = [tf.cast(images(seed), tf.bfloat16) for seed in (0, 1)]
    loss = losses.reconstruction(*low)
    assert loss.dtype == tf.float32
    wide = [tf.cast(x, tf.float32) for x in low]
    np.testing.assert_allclose(loss, losses.reconstruction(*wide), rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.reconstruction(np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 1))),
        lambda: losses.masked_reconstruction(np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 3))),
        lambda: losses.masked_reconstruction(np.zeros((2, 4, 4, 3)), np.zeros((1, 4, 4, 3)), np.zeros((2, 4, 4, 1))),
        lambda: losses.adversarial(np.zeros((4, 1))),
        lambda: losses.mask_prediction(np.zeros((2, 6, 6)), np.zeros((2, 6, 6, 1))),
    ],
    ids=["reconstruction", "pixels", "batch", "logits", "mask"],
)
def test_shapes_that_do_not_fit(call):
    """Shapes that broadcast to a wrong loss."""
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        call()
