"""The discriminator against oracles and the release's sizes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lts.config import preset
from lts.networks.autoencoder import Decoder, Encoder
from lts.networks.backbones import AlexNet
from lts.networks.discriminator import BackboneClassifier, Discriminator
from lts.networks.geometry import alexnet_geometry
from lts.networks.repair import RepairNetwork
from tests.fixtures import oracles

TINY = preset("tiny", backbone_norm="lrn").discriminator
RELEASE = preset("release")


def images(batch: int = 2, size: int = 48) -> tf.Tensor:
    """Return images in [-1, 1]."""
    return tf.constant(np.random.RandomState(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("network", "shape", "count"),
    [
        (Encoder(RELEASE.autoencoder), (None, 96, 96, 3), 699_168),
        (Decoder(RELEASE.autoencoder), (None, 6, 6, 512), 1_568_547),
        (RepairNetwork(RELEASE.autoencoder), (None, 6, 6, 512), 6_297_216),
        (AlexNet(RELEASE.discriminator), (None, 96, 96, 3), 2_334_080),
        (Discriminator(RELEASE.discriminator), (None, 96, 96, 3), 40_097_411),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_parameter_counts_of_the_release(network, shape, count):
    """Fails if a network has other parameters than the release's."""
    network.build(shape)
    assert sum(int(np.prod(variable.shape)) for variable in network.trainable_variables) == count


def test_docstring_shapes_of_the_backbone():
    """Fails if the shapes of the docstring are wrong."""
    endpoints = AlexNet(RELEASE.discriminator)(images(1, 96))
    sizes = {name: tuple(value.shape[1:]) for name, value in endpoints.items()}
    assert sizes == {
        "conv_1": (24, 24, 96),
        "conv_2": (12, 12, 256),
        "conv_3": (6, 6, 384),
        "conv_4": (6, 6, 384),
        "conv_5": (6, 6, 256),
    }


@pytest.mark.parametrize("last", ["conv_1", "conv_3"])
def test_backbone_stops_at_a_layer(last):
    """Fails if later layers are still run."""
    assert list(AlexNet(TINY)(images(), last=last))[-1] == last


def test_first_layers_against_oracle():
    """Fails for another input scale or padding, or LRN before the pool.

    BUILD_NOTES traps 9 and 10.
    """
    backbone = AlexNet(TINY)
    endpoints = backbone(images())
    conv_1, conv_2 = backbone.convs[:2]
    scaled = (np.asarray(images(), np.float64) + 1) * 127.5 - np.array([123.68, 116.78, 103.94])
    first = np.maximum(oracles.conv2d(scaled, conv_1.kernel.numpy(), 2) + 0.1, 0)
    np.testing.assert_allclose(endpoints["conv_1"], first, rtol=1e-4, atol=1e-3)
    pooled = oracles.local_response_norm(oracles.max_pool(first))
    halves = np.split(pooled, 2, axis=-1)
    kernels = [block.kernel.numpy() for block in conv_2.blocks]
    second = np.concatenate([oracles.conv2d(x, kernel) for x, kernel in zip(halves, kernels, strict=True)], -1)
    np.testing.assert_allclose(endpoints["conv_2"], np.maximum(second + 0.1, 0), rtol=1e-3, atol=1e-3)


def test_batch_norms_of_the_release():
    """Fails if the discriminator's batch norm gets a gamma (BUILD_NOTES trap 7)."""
    network = Discriminator(TINY)
    network.build((None, 48, 48, 3))
    assert not [v.path for v in network.variables if v.name == "gamma"]
    betas = [v.path.split("/", 1)[1] for v in network.variables if v.name == "beta"]
    assert betas == [
        "trunk/conv_5/conv_0/batch_norm/beta",
        "trunk/conv_5/conv_1/batch_norm/beta",
        "fc_1/batch_norm/beta",
    ]
    for variable in network.variables:
        if variable.name == "bias":
            np.testing.assert_array_equal(variable.numpy(), np.full(variable.shape, 0.1, np.float32))


def test_dropout():
    """Fails if kept units are not scaled, or fc_1 is returned dropped."""
    network = Discriminator(TINY)
    plain = network(images())
    mask = np.random.RandomState(1).uniform(size=(2, 1, 1, TINY.fc_units)) < 0.5
    dropped = network(images(), dropout=mask.astype(np.float32))
    np.testing.assert_array_equal(plain["fc_1"], dropped["fc_1"])
    hidden = plain["fc_1"].numpy().astype(np.float64) * mask / 0.5
    wanted = oracles.conv2d(hidden, network.fc_2.kernel.numpy())[:, 0, 0] + 0.1
    np.testing.assert_allclose(dropped["logits"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize("head", ["linear", "pooled"])
def test_linear_heads_against_oracle(head, size):
    """Fails for cells in another order, or a sum for the mean."""
    network = BackboneClassifier(TINY, classes=5, head=head)
    out = network(images(2, size))
    kernel = network.fc_2.kernel.numpy().astype(np.float64)
    maps = out["conv_5"].numpy().astype(np.float64)
    assert "fc_1" not in out
    assert network.fc_1 is None
    if head == "pooled":
        wanted = maps.mean((1, 2)) @ kernel[0, 0]
    else:
        places = [(y, x) for y in range(maps.shape[1] - 5) for x in range(maps.shape[2] - 5)]
        wanted = np.mean([np.tensordot(maps[:, y : y + 6, x : x + 6], kernel, 3) for y, x in places], 0)
    np.testing.assert_allclose(out["logits"], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(network.fc_2.bias, np.zeros(5))
    assert 0.003 < kernel.std() < 0.0055  # truncated at two deviations of 0.005: 0.0044
    assert np.abs(kernel).max() <= 0.01


@pytest.mark.parametrize("frozen", range(6))
def test_frozen_layers(frozen):
    """Fails if a frozen layer moves, or a later one stays."""
    network = BackboneClassifier(preset("tiny").discriminator, frozen=frozen)
    network.build((None, 48, 48, 3))
    before = {variable.path: variable.numpy() for variable in network.variables}
    network(images(), training=True)
    moved = {v.path.split("/")[2] for v in network.backbone.variables if not np.array_equal(v, before[v.path])}
    trained = {v.path.split("/")[2] for v in network.backbone.trainable_variables}
    assert moved == trained == set(network.backbone.layer_names[frozen:])


@pytest.mark.parametrize("wrong", [{"head": "fc_3"}, {"frozen": 6}, {"frozen": -1}], ids=str)
def test_invalid_head(wrong):
    """Fails if an invalid head or number of layers is accepted."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BackboneClassifier(TINY, **wrong)


def test_mask_head_against_oracle():
    """Fails if it reads another layer, or orders cells differently."""
    network = Discriminator(TINY)
    out = network(images())
    wanted = oracles.conv2d(out["conv_5"], network.mask_head.kernel.numpy())[..., 0] + 0.1
    np.testing.assert_allclose(out["mask_logits"], wanted, rtol=1e-3, atol=1e-3)


def test_larger_images():
    """Fails if images above the training size are refused."""
    out = Discriminator(TINY)(images(2, 64))
    assert out["logits"].shape == (2, 2)
    assert out["mask_logits"].shape == (2, 8, 8)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("norm", ["lrn", "batch_norm"])
def test_geometry(padding, norm):
    """Fails if cells, smallest sizes or parameters are not the network's."""
    config = dataclasses.replace(TINY, disc_padding=padding, backbone_norm=norm)
    backbone = AlexNet(config)
    backbone.build((None, 64, 64, 3))
    for layer, conv in zip(alexnet_geometry(config), backbone.convs, strict=True):
        for size in {layer.smallest, layer.smallest + 1, 50, 63, 64}:
            cells = backbone(tf.zeros([1, size, size, 3]), last=layer.name)[layer.name].shape[1]
            assert cells == layer.cells(size)
        assert layer.parameters == sum(int(tf.size(v)) for v in conv.trainable_variables)


@pytest.mark.parametrize("norm", ["lrn", "batch_norm"])
def test_too_small_images(norm):
    """Fails if images too small for a layer give an empty map, or in a graph a map of another layer's size."""
    backbone = AlexNet(dataclasses.replace(TINY, disc_padding="VALID", backbone_norm=norm))
    backbone.build((None, 64, 64, 3))
    any_size = tf.function(lambda x, last: backbone(x, last=last))
    for layer in alexnet_geometry(backbone.config):
        error = rf"images must have at least {layer.smallest} pixels a side for {layer.name}\. Received: images\.shape="
        too_small = tf.zeros([1, layer.smallest, layer.smallest - 1, 3])
        unknown_size = any_size.get_concrete_function(tf.TensorSpec([1, None, None, 3]), layer.name)
        with pytest.raises(ValueError, match=error):
            backbone(too_small, last=layer.name)
        with pytest.raises(tf.errors.InvalidArgumentError, match=error):
            unknown_size(too_small)


def test_classifier_of_too_small_images():
    """Fails if a classifier returns logits of an empty map, which it would fill with zeros."""
    network = BackboneClassifier(dataclasses.replace(TINY, disc_padding="VALID"))
    with pytest.raises(ValueError, match="at least 19 pixels a side for conv_5"):
        network(tf.zeros([1, 18, 18, 3]))


def test_receptive_field():
    """Fails if a pixel outside the field moves a cell, or none at its edge."""
    config = dataclasses.replace(TINY, backbone_norm="batch_norm")
    backbone = AlexNet(config)
    size = 192
    backbone.build((None, size, size, 3))
    for variable in backbone.trainable_variables:
        variable.assign(tf.abs(variable))  # no ReLU that hides an edge
    layers = alexnet_geometry(config)
    image = tf.Variable(tf.random.stateless_uniform([1, size, size, 3], [1, 2]))
    for layer in layers:
        with tf.GradientTape() as tape:
            maps = backbone(image, last=layer.name)[layer.name]
            middle = tf.reduce_sum(maps[:, maps.shape[1] // 2, maps.shape[2] // 2])
        seen = np.flatnonzero(np.abs(tape.gradient(middle, image)).sum((0, 2, 3)))
        assert seen[-1] - seen[0] + 1 <= layer.receptive_field
        assert seen[-1] - seen[0] + 1 >= layer.receptive_field - 2 * layer.stride  # max-pools pick single cells
