"""Losses against NumPy and worked constants."""

import numpy as np
import pytest
import tensorflow as tf

from lts import losses
from tests.fixtures import oracles

DECODED, IMAGES = (np.random.RandomState(seed).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32) for seed in (0, 1))
ALL_PIXELS = np.ones((2, 4, 4, 1), np.float32)


def test_reconstruction():
    """Fails for a sum, or a weight that is not applied."""
    wanted = 30 * np.mean((DECODED.astype(float) - IMAGES) ** 2)
    np.testing.assert_allclose(losses.reconstruction(DECODED, IMAGES), wanted, rtol=1e-6)
    np.testing.assert_allclose(losses.reconstruction(DECODED, IMAGES, 3.0), wanted / 10, rtol=1e-6)


def test_masked_reconstruction():
    """Fails unless it divides by 3 x marked pixels (BUILD_NOTES trap 2)."""
    pixel_mask = (np.random.RandomState(2).uniform(size=(2, 4, 4, 1)) < 0.4).astype(np.float32)
    squares = (DECODED.astype(float) - IMAGES) ** 2
    wanted = 30 * np.sum(squares * pixel_mask) / (3 * pixel_mask.sum())
    np.testing.assert_allclose(losses.masked_reconstruction(DECODED, IMAGES, pixel_mask), wanted, rtol=1e-6)


def test_masked_reconstruction_is_over_the_batch():
    """Fails for a mean of the images' means."""
    pixel_mask = ALL_PIXELS.copy()
    pixel_mask[0] = 0
    wanted = losses.reconstruction(DECODED[1:], IMAGES[1:])
    np.testing.assert_allclose(losses.masked_reconstruction(DECODED, IMAGES, pixel_mask), wanted, rtol=1e-6)


def test_nothing_kept():
    """Fails for 0 / 0 in loss or gradient (BUILD_NOTES trap 2)."""
    decoded = tf.constant(DECODED)
    with tf.GradientTape() as tape:
        tape.watch(decoded)
        loss = losses.masked_reconstruction(decoded, IMAGES, 0 * ALL_PIXELS)
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, decoded), np.zeros_like(DECODED))


def test_everything_kept():
    """Fails if the stages weigh the reconstruction differently."""
    ours = losses.masked_reconstruction(DECODED, IMAGES, ALL_PIXELS)
    np.testing.assert_allclose(ours, losses.reconstruction(DECODED, IMAGES), rtol=1e-6)


def test_adversarial_losses():
    """Fails if classes are exchanged, or a half is missing."""
    real_logits, fake_logits = np.random.RandomState(0).standard_normal((2, 5, 2)).astype(np.float32)

    def cross_entropy(real_label, fake_label):
        real = oracles.softmax_cross_entropy(real_logits, real_label)
        return (real + oracles.softmax_cross_entropy(fake_logits, fake_label)) / 2

    np.testing.assert_allclose(losses.real_fake(real_logits, fake_logits), cross_entropy(1, 0), rtol=1e-6)
    np.testing.assert_allclose(losses.confusion(real_logits, fake_logits), cross_entropy(0, 1), rtol=1e-6)
    wanted = oracles.softmax_cross_entropy(fake_logits, 1)
    np.testing.assert_allclose(losses.adversarial(fake_logits), wanted, rtol=1e-6)


def test_real_is_class_1():
    """Fails for exchanged classes, or overflow of large logits."""
    sure_real = np.array([[-500.0, 500.0]], np.float32)
    assert float(losses.adversarial(sure_real)) == 0
    assert float(losses.real_fake(sure_real, sure_real)) == 1000 / 2


def test_mask_prediction():
    """Fails for a sum over cells, exchanged labels, another weight."""
    rs = np.random.RandomState(0)
    logits = rs.standard_normal((3, 6, 6)).astype(np.float32)
    keep_mask = (rs.uniform(size=(3, 6, 6)) < 0.3).astype(float)
    wanted = 0.1 * oracles.sigmoid_cross_entropy(logits, keep_mask)
    np.testing.assert_allclose(losses.mask_prediction(logits, keep_mask), wanted, rtol=1e-6)
    assert float(losses.mask_prediction(np.full((1, 2, 2), 1e4), np.ones((1, 2, 2)))) == 0


def test_l2():
    """Fails without the half, or for a mean."""
    weights = [np.array([1.0, 2.0], np.float32), np.array([[3.0]], np.float32)]
    np.testing.assert_allclose(losses.l2(weights), 5e-5 * 14 / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.l2(weights, 2.0), 14, rtol=1e-6)


def test_bfloat16_inputs():
    """Fails if bfloat16 inputs are summed in bfloat16."""
    low = [tf.cast(x, tf.bfloat16) for x in (DECODED, IMAGES)]
    loss = losses.reconstruction(*low)
    assert loss.dtype == tf.float32
    wide = [tf.cast(x, tf.float32) for x in low]
    np.testing.assert_allclose(loss, losses.reconstruction(*wide), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (losses.reconstruction, [(2, 4, 4, 3), (2, 4, 4, 1)]),
        (losses.masked_reconstruction, [(2, 4, 4, 3), (2, 4, 4, 3), (2, 4, 4, 3)]),
        (losses.masked_reconstruction, [(2, 4, 4, 3), (1, 4, 4, 3), (2, 4, 4, 1)]),
        (losses.adversarial, [(4, 1)]),
        (losses.mask_prediction, [(2, 6, 6), (2, 6, 6, 1)]),
    ],
    ids=["reconstruction", "pixels", "batch", "logits", "mask"],
)
def test_shapes_that_do_not_fit(loss, shapes):
    """Fails if shapes broadcast to a wrong loss."""
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        loss(*(np.zeros(shape) for shape in shapes))
