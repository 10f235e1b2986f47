"""Building blocks against NumPy oracles."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from lts.networks import layers
from tests.fixtures import oracles, rounding


def normal(*shape, seed: int = 0) -> np.ndarray:
    """Return float32 normal numbers."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_local_response_norm(channels):
    """Fails for another window at the ends, factor or power (BUILD_NOTES trap 9)."""
    x = 100 * normal(2, 3, 4, channels)
    ours = layers.local_response_norm(tf.constant(x))
    tolerance = 16 * rounding.EPSILON  # at most 5 squares, their sum, two roots and two products
    np.testing.assert_allclose(ours, oracles.local_response_norm(x), rtol=tolerance)
    np.testing.assert_allclose(ours, tf.nn.local_response_normalization(x, 2, 1.0, 2e-5, 0.75), rtol=tolerance)


def test_local_response_norm_gradient():
    """Fails if the gradient is not TensorFlow's own."""

    def builtin(x):
        return tf.nn.local_response_normalization(x, 2, 1.0, 2e-5, 0.75)

    x = tf.constant(100 * normal(2, 3, 4, 8))
    weights = normal(2, 3, 4, 8, seed=1)
    gradients = []
    for function in (layers.local_response_norm, builtin):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(function(x) * weights)
        gradients.append(tape.gradient(y, x))
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_local_response_norm_in_float16():
    """Fails if squares that float16 cannot hold make features or gradients zero."""
    x = tf.constant([[[[300.0, -1000.0, 2.0, 60.0]]]])
    results = []
    for dtype in (tf.float32, tf.float16):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layers.local_response_norm(tf.cast(x, dtype))
        assert y.dtype == dtype
        results.append((tf.cast(y, tf.float32), tape.gradient(y, x)))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=2e-3)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6)])
def test_upsample_bilinear(size):
    """Fails for half-pixel centres, or the wrong end repeated (BUILD_NOTES trap 6)."""
    x = normal(2, *size, 3)
    ours = layers.upsample_bilinear(tf.constant(x))
    np.testing.assert_allclose(ours, oracles.legacy_bilinear(x), rtol=1e-6, atol=1e-6)
    legacy = tf.raw_ops.ResizeBilinear(images=x, size=[2 * size[0], 2 * size[1]], align_corners=False)
    np.testing.assert_allclose(ours, legacy, rtol=1e-6, atol=1e-6)


def test_upsample_bilinear_is_not_image_resize():
    """Fails if it equals `tf.image.resize` (BUILD_NOTES trap 6)."""
    x = normal(1, 4, 4, 1)
    assert np.abs(layers.upsample_bilinear(tf.constant(x)) - tf.image.resize(x, [8, 8])).max() > 0.1


def test_upsample_nearest():
    """Fails if cells are interleaved instead of repeated."""
    x = normal(2, 3, 4, 1)
    np.testing.assert_array_equal(layers.upsample_nearest(x, 4), x.repeat(4, axis=1).repeat(4, axis=2))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [7, 12])
def test_max_pool(size, padding):
    """Fails if the odd pixel of the padding goes first (BUILD_NOTES trap 10)."""
    x = normal(2, size, size, 3)
    np.testing.assert_array_equal(layers.max_pool(tf.constant(x), padding), oracles.max_pool(x, padding))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, "SAME"), (2, 2, "SAME"), (11, 4, "SAME"), (3, 2, "VALID")]
)
def test_conv_block(kernel, stride, padding):
    """Fails for another padding, order of bias and activation, or leak."""
    x = normal(2, 16, 16, 3)
    block = layers.ConvBlock(5, kernel, stride, padding, activation="leaky_relu")
    block.build(x.shape)
    block.bias.assign(normal(5))
    y = block(tf.constant(x))
    wanted = oracles.leaky(oracles.conv2d(x, block.kernel.numpy(), stride, padding) + normal(5))
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


def test_grouped_conv_block():
    """Fails if groups take other channels, or outputs are joined in another order."""
    x = normal(2, 5, 5, 6)
    block = layers.GroupedConvBlock(4, 3, groups=2)
    y = block(tf.constant(x))
    parts = [oracles.conv2d(x[..., 3 * i : 3 * i + 3], part.kernel.numpy()) for i, part in enumerate(block.blocks)]
    np.testing.assert_allclose(y, np.concatenate(parts, -1), rtol=1e-4, atol=1e-5)
    assert [part.kernel.shape for part in block.blocks] == [(3, 3, 3, 2)] * 2


@pytest.mark.parametrize(("argument", "value"), [("norm", "layer"), ("activation", "gelu")])
def test_conv_block_names_wrong_arguments(argument, value):
    """Fails if a misspelt option is taken for the default."""
    with pytest.raises(ValueError, match=f"{argument}='{value}'"):
        layers.ConvBlock(4, 3, **{argument: value})


@pytest.mark.parametrize("scale", [True, False])
def test_batch_norm_in_training(scale):
    """Fails if biased and unbiased variance are exchanged (BUILD_NOTES trap 7)."""
    x = 3 * normal(2, 2, 1, 4) + 1  # N = 4: biased and unbiased differ by a third
    layer = layers.BatchNorm(scale=scale)
    layer.build(x.shape)
    layer.beta.assign(normal(4))
    gamma = np.ones(4)
    if scale:
        gamma = 1 + 0.1 * normal(4, seed=1)
        layer.gamma.assign(gamma)
    assert len(layer.trainable_variables) == 1 + scale
    y = layer(tf.constant(x), training=True)
    mean = x.mean((0, 1, 2))
    variance = x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3) * gamma + normal(4), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.025 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.975 + 0.025 * variance * 4 / 3, rtol=1e-5)


@pytest.mark.parametrize("norm", ["scale", "shift"])
def test_folded_batch_norm_equals_unfolded(norm):
    """Fails if folding forgets a statistic, or inference moves one."""
    x = normal(2, 6, 6, 3)
    block = layers.ConvBlock(4, 3, norm=norm, activation="leaky_relu")
    block.build(x.shape)
    for index, variable in enumerate(block.variables[1:]):
        variable.assign(1 + 0.3 * np.abs(normal(4, seed=index)))
    before = [variable.numpy() for variable in block.variables]
    folded = block(tf.constant(x))
    batch_norm = block.batch_norm
    kernel = block.kernel.numpy()
    unfolded = oracles.leaky(batch_norm(tf.constant(oracles.conv2d(x, kernel), tf.float32)).numpy())
    np.testing.assert_allclose(folded, unfolded, rtol=1e-4, atol=1e-5)
    gamma = batch_norm.gamma.numpy() if norm == "scale" else 1.0
    scale = gamma / np.sqrt(batch_norm.moving_variance.numpy() + 1e-3)
    plain = (oracles.conv2d(x, kernel) - batch_norm.moving_mean.numpy()) * scale + batch_norm.beta.numpy()
    np.testing.assert_allclose(folded, oracles.leaky(plain), rtol=1e-4, atol=1e-5)
    for variable, value in zip(block.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_scaled_truncated_normal():
    """Fails for Keras' correction, another fan or cut (BUILD_NOTES trap 8)."""
    shape = (3, 3, 64, 192)  # 110592 numbers: the sd is known to 0.2 %
    values = np.asarray(layers.ScaledTruncatedNormal()(shape))
    sd = np.sqrt(1.3 * 2 / (9 * (64 + 192) / 2))
    cut = 0.87962566  # sd of a standard normal cut at 2
    assert np.abs(values).max() <= 2 * sd
    assert np.abs(values).max() > 1.99 * sd
    np.testing.assert_allclose(values.std(), cut * sd, rtol=7e-3)
    np.testing.assert_allclose(values.mean(), 0, atol=4 * cut * sd / np.sqrt(values.size))


def test_scaled_truncated_normal_draws_each_kernel_anew():
    """Fails if all kernels of a network share a seed."""
    initializer = layers.ScaledTruncatedNormal()
    assert not np.array_equal(initializer((2, 2, 4, 4)), initializer((2, 2, 4, 4)))


def test_grouped_glorot():
    """Fails for the range of the whole layer, or other biases (BUILD_NOTES trap 8)."""
    block = layers.GroupedConvBlock(64, 3, 2, kernel_initializer="glorot_uniform", bias_value=0.1)
    block.build((None, 6, 6, 96))
    limit = np.sqrt(6 / (9 * (48 + 32)))
    for part in block.blocks:
        kernel = part.kernel.numpy()
        assert limit * 0.999 < np.abs(kernel).max() <= limit
        np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)
        np.testing.assert_array_equal(part.bias.numpy(), np.full(32, 0.1, np.float32))
    first, second = (part.kernel.numpy() for part in block.blocks)
    assert not np.array_equal(first, second)


def test_initializer_round_trip():
    """Fails if a block gets another initialiser from its config."""
    block = layers.ConvBlock(4, 3, kernel_initializer="glorot_uniform")
    again = layers.ConvBlock.from_config(block.get_config())
    assert isinstance(again.kernel_initializer, keras.initializers.GlorotUniform)
    assert isinstance(layers.ConvBlock(4, 3).kernel_initializer, layers.ScaledTruncatedNormal)


@pytest.fixture(scope="module")
def two_replicas() -> dict:
    """Return the output of tests/fixtures/network_replicas.py."""
    command = [sys.executable, "-m", "tests.fixtures.network_replicas"]
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("statistics", ["global", "per_replica"])
def test_batch_norm_of_two_replicas(two_replicas, statistics):
    """Fails unless statistics are the global batch's, or each half's (release)."""
    images = np.random.RandomState(0).normal(3, 2, (6, 4, 4, 5)).astype(np.float32)
    parts = [images] if statistics == "global" else np.split(images, 2)
    normal = [(p - p.mean((0, 1, 2))) / np.sqrt(p.var((0, 1, 2)) + 1e-3) for p in parts]
    mean = np.mean([p.mean((0, 1, 2)) for p in parts], axis=0)
    variance = np.mean([p.var((0, 1, 2), ddof=1) for p in parts], axis=0)
    replicas = two_replicas[statistics]
    np.testing.assert_allclose(replicas["outputs"], np.concatenate(normal), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(replicas["mean"], 0.025 * mean, rtol=1e-5)
    np.testing.assert_allclose(replicas["variance"], 0.975 + 0.025 * variance, rtol=1e-5)
