"""The repair network's gate."""

import numpy as np
import tensorflow as tf

from lts.config import AutoencoderConfig
from lts.networks.autoencoder import Decoder
from lts.networks.repair import RepairLayer, RepairNetwork
from tests.fixtures import oracles

CONFIG = AutoencoderConfig(encoder_filters=(4, 6, 8))


def inputs(seed: int = 0):
    """Damaged features [2, 3, 3, 8] and a mask with both values."""
    rs = np.random.RandomState(seed)
    keep = (rs.uniform(size=(2, 3, 3, 1)) < 0.5).astype(np.float32)
    return tf.constant(rs.standard_normal((2, 3, 3, 8)).astype(np.float32)), tf.constant(keep)


def test_gate():
    """A layer that acts on kept cells, or not on dropped ones."""
    x, keep = inputs()
    layer = RepairLayer(8)
    layer.build(x.shape)
    for training in (False, True):
        y = layer(x, keep, training=training).numpy()
        kept = keep.numpy()[..., 0] == 1
        np.testing.assert_array_equal(y[kept], x.numpy()[kept])
        assert np.all(np.abs(y - x.numpy())[~kept].max(-1) > 1e-3)


def test_layer_against_oracle():
    """The mask first instead of last among the channels, an activation too many, the order of the convolutions."""
    x, keep = inputs()
    layer = RepairLayer(8)
    layer.build(x.shape)
    layer.conv_2.bias.assign(np.arange(8) / 8)
    joined = np.concatenate([x, keep], -1)
    hidden = oracles.leaky(oracles.conv2d(joined, layer.conv_1.kernel.numpy()) / np.sqrt(1 + 1e-3))
    residual = oracles.conv2d(hidden, layer.conv_2.kernel.numpy()) + np.arange(8) / 8
    np.testing.assert_allclose(layer(x, keep), x + (1 - keep.numpy()) * residual, rtol=1e-4, atol=1e-4)


def test_nothing_dropped_is_the_decoder():
    """Repair somewhere without a gate: with every cell kept the network must be the decoder, to the bit."""
    x, _ = inputs()
    decoder, network = Decoder(CONFIG), RepairNetwork(CONFIG)
    decoder.build(x.shape)
    network.build(x.shape)
    keep = tf.ones([2, 3, 3, 1])
    np.testing.assert_array_equal(network(x, keep, decoder=decoder), decoder(x))


def test_kept_pixels_far_from_holes_stay():
    """A mask resized the wrong way: pixels whose decoder neighbourhood was kept everywhere are the decoder's."""
    x = tf.constant(np.random.RandomState(0).standard_normal((1, 8, 8, 8)).astype(np.float32))
    decoder, network = Decoder(CONFIG), RepairNetwork(CONFIG)
    decoder.build(x.shape)
    network.build(x.shape)
    keep = np.ones((1, 8, 8, 1), np.float32)
    keep[:, :2, :2] = 0
    difference = np.abs(network(x, tf.constant(keep), decoder=decoder) - decoder(x)).max(-1)[0]
    assert difference[:8, :8].min() > 0
    assert difference[16:].max() == difference[:, 16:].max() == 0
