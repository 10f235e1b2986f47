"""The encoder's layers, as export names them."""

import numpy as np
import pytest
import tensorflow as tf

from lts.config import AutoencoderConfig
from lts.networks.autoencoder import Encoder
from lts.networks.geometry import encoder_geometry


@pytest.mark.parametrize("depth", [2, 5, 6])
def test_every_encoder_layer_is_an_endpoint(depth):
    """Fails if layers beyond the backbone's five are dropped, or a layer's geometry is another layer's."""
    config = AutoencoderConfig(encoder_filters=tuple(range(4, 4 + depth)))
    encoder = Encoder(config)
    encoder.build((None, 64, 64, 3))
    images = tf.random.stateless_uniform([2, 64, 64, 3], [1, 2])
    endpoints = encoder.endpoints(images)
    assert list(endpoints) == [f"conv_{number}" for number in range(1, depth + 1)]
    np.testing.assert_array_equal(endpoints[f"conv_{depth}"], encoder(images))
    assert list(encoder.endpoints(images, last="conv_2")) == ["conv_1", "conv_2"]

    geometry = encoder_geometry(config)
    assert [layer.name for layer in geometry] == list(endpoints)
    for layer, features in zip(geometry, endpoints.values(), strict=True):
        assert features.shape == (2, layer.cells(64), layer.cells(64), layer.channels)
    assert sum(layer.parameters for layer in geometry) == sum(int(tf.size(v)) for v in encoder.trainable_variables)
