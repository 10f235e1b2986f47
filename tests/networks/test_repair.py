"""The repair network's gate."""

import numpy as np
import pytest
import tensorflow as tf

from lts.config import AutoencoderConfig
from lts.networks.autoencoder import Decoder
from lts.networks.repair import RepairLayer, RepairNetwork
from tests.fixtures import oracles

CONFIG = AutoencoderConfig(encoder_filters=(4, 6, 8))
RS = np.random.RandomState(0)
KEEP_MASK = (RS.uniform(size=(2, 3, 3, 1)) < 0.5).astype(np.float32)
FEATURES = RS.standard_normal((2, 3, 3, 8)).astype(np.float32)


@pytest.fixture
def layer():
    """A repair layer of 8 filters."""
    layer = RepairLayer(8)
    layer.build(FEATURES.shape)
    return layer


@pytest.fixture
def networks():
    """A decoder and its repair network."""
    decoder = Decoder(CONFIG)
    network = RepairNetwork(CONFIG)
    decoder.build((None, None, None, 8))
    network.build((None, None, None, 8))
    return decoder, network


@pytest.mark.parametrize("training", [False, True])
def test_gate(layer, training):
    """Fails if kept cells change, or dropped ones do not."""
    repaired = layer(tf.constant(FEATURES), tf.constant(KEEP_MASK), training=training).numpy()
    kept = KEEP_MASK[..., 0] == 1
    np.testing.assert_array_equal(repaired[kept], FEATURES[kept])
    assert np.all(np.abs(repaired - FEATURES)[~kept].max(-1) > 1e-3)


def test_layer_against_oracle(layer):
    """Fails if the mask is not the last channel.

    Also for an activation too many, or convolutions in another order.
    """
    layer.conv_2.bias.assign(np.arange(8) / 8)
    joined = np.concatenate([FEATURES, KEEP_MASK], -1)
    hidden = oracles.leaky(oracles.conv2d(joined, layer.conv_1.kernel.numpy()) / np.sqrt(1 + 1e-3))
    residual = oracles.conv2d(hidden, layer.conv_2.kernel.numpy()) + np.arange(8) / 8
    repaired = layer(tf.constant(FEATURES), tf.constant(KEEP_MASK))
    np.testing.assert_allclose(repaired, FEATURES + (1 - KEEP_MASK) * residual, rtol=1e-4, atol=1e-4)


def test_nothing_dropped_is_the_decoder(networks):
    """Fails if a repair layer lacks its gate."""
    decoder, network = networks
    repaired = network(tf.constant(FEATURES), tf.ones([2, 3, 3, 1]), decoder=decoder)
    np.testing.assert_array_equal(repaired, decoder(tf.constant(FEATURES)))


def test_pixels_far_from_dropped_cells(networks):
    """Fails if the mask is resized in another way than the features."""
    decoder, network = networks
    features = tf.constant(np.random.RandomState(0).standard_normal((1, 8, 8, 8)).astype(np.float32))
    keep_mask = np.ones((1, 8, 8, 1), np.float32)
    keep_mask[:, :2, :2] = 0
    repaired = network(features, tf.constant(keep_mask), decoder=decoder)
    difference = np.abs(repaired - decoder(features)).max(-1)[0]
    assert difference[:8, :8].min() > 0
    assert difference[16:].max() == difference[:, 16:].max() == 0
