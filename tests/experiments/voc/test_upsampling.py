"""Where cells lie: against impulses through TensorFlow's own layers; interpolation against NumPy's."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from experiments.voc import upsampling
from lts.config import preset
from lts.config.windows import Window
from lts.networks.geometry import alexnet_geometry


def centre_by_convolution(side, layers):
    """Mean position of the pixels under each cell of the middle: kernels of ones over the pixels' own numbers."""
    x = tf.range(side, dtype=tf.float64)[None, :, None]
    for layer in layers:
        kernel = tf.ones([layer.kernel, 1, 1], tf.float64) / layer.kernel
        padding = layer.padding
        if not isinstance(padding, str):
            x = tf.pad(x, [[0, 0], list(padding), [0, 0]])
            padding = "VALID"
        x = tf.nn.conv1d(x, kernel, layer.stride, padding)
    return x[0, :, 0].numpy()


@pytest.mark.parametrize("side", [96, 97, 98, 103, 128])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("name", ["small", "release"])
def test_centres_are_those_of_the_layers(side, padding, name):
    """Away from the edges, where padding is no part of a mean."""
    config = preset(name).discriminator
    config = dataclasses.replace(config, disc_padding=padding)
    windows = alexnet_geometry(config)[-1].windows
    layers = [window for window in windows if window.stride > 1]  # the others see beyond the edges of small images
    for depth in range(1, len(layers) + 1):
        found = upsampling.cells(side, layers[:depth])
        wanted = centre_by_convolution(side, layers[:depth])
        middle = len(wanted) // 2
        assert int(found.count) == len(wanted)
        assert float(found.centres()[middle]) == pytest.approx(wanted[middle], abs=1e-4)


@pytest.mark.parametrize("side", [96, 97, 103])
def test_centres_with_explicit_zeros(side):
    """Fails if the zeros of a `ZeroPadding2D` move cells, or are not counted."""
    windows = [
        Window(1, padding=(0, 1)),
        Window(3, 2, "VALID"),
        Window(1, padding=(3, 3)),
        Window(7, 2, "VALID"),
        Window(5),
    ]
    for depth in range(1, len(windows) + 1):
        found = upsampling.cells(side, windows[:depth])
        wanted = centre_by_convolution(side, windows[:depth])
        middle = len(wanted) // 2
        assert int(found.count) == len(wanted)
        assert float(found.centres()[middle]) == pytest.approx(wanted[middle], abs=1e-4)


def test_centres_by_hand():
    """Kernel 7 of stride 2 on 64 pixels, padded by 2 above: the first cell is centred on pixel 1; see the module."""
    backbone = alexnet_geometry(preset("small").discriminator)[-1].windows
    assert [float(upsampling.cells(64, backbone[:n]).first) for n in (0, 1, 2, 4)] == [0, 1, 3, 7]
    pool = upsampling.cells(64, [*backbone, Window(3, 2)])
    assert (float(pool.first), pool.stride, int(pool.count)) == (15, 16, 4)
    assert float(upsampling.cells(64, [*backbone, Window(3, 2), Window(6, 1)]).first) == 15 + 16 * 0.5  # an even kernel


def test_interpolation_is_numpys():
    random = np.random.default_rng(0)
    values = random.normal(size=[2, 4, 5, 3]).astype(np.float32)
    cells = upsampling.Cells(tf.constant(2.0), 4, tf.constant(5))
    columns = cells.places(tf.range(24, dtype=tf.float32))
    found = upsampling.interpolate(tf.constant(values), tf.constant([0.0, 1.25, 3.0]), columns).numpy()
    assert found.shape == (2, 3, 24, 3)
    for image, channel in np.ndindex(2, 3):
        rows = [values[image, 0], 0.75 * values[image, 1] + 0.25 * values[image, 2], values[image, 3]]
        for row, line in enumerate(rows):
            wanted = np.interp(np.arange(24), 2 + 4 * np.arange(5), line[:, channel])  # constant beyond the ends
            np.testing.assert_allclose(found[image, row, :, channel], wanted, atol=1e-6)
