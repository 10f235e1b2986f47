"""Every backbone keeps the contract that its users rely on."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from lts.config import ConfigError, preset
from lts.networks.backbones import build_backbone, check_grid
from lts.networks.discriminator import BackboneClassifier, Discriminator
from lts.networks.layers import RELEASE_BATCH_NORM
from lts.networks.variables import variables_by_path
from lts.training.train import build_model
from tests.fixtures import extensions

NARROW = {"backbone_filters": "8,8,8,8,8", "fc_units": "16"}
CONFIGS = {
    "alexnet": preset("tiny", **NARROW),
    "resnet18": preset("tiny", backbone="resnet18", resnet_width=0.1, conv_1_kernel=3, conv_1_stride=1, fc_units=16),
    "keras": preset("tiny", backbone="tests.fixtures.backbones:branches", fc_units=16),
}
SIZE = 48


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    """Configuration of preset `tiny` with another backbone."""
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def backbone(config):
    """The backbone, built."""
    network = build_backbone(config.discriminator)
    network.build((None, SIZE, SIZE, 3))
    return network


def random_images(size: int = SIZE) -> tf.Tensor:
    """Return two images in [-1, 1]."""
    return tf.random.stateless_uniform([2, size, size, 3], [1, 2], -1, 1)


def test_geometry(backbone):
    """Fails if cells, channels or parameters are not the network's."""
    geometry = backbone.geometry()
    assert tuple(layer.name for layer in geometry) == backbone.layer_names
    for size in (SIZE, SIZE + 1, 63):
        maps = backbone(random_images(size))
        assert list(maps) == list(backbone.layer_names)
        for layer in geometry:
            cells = layer.cells(size)
            assert maps[layer.name].shape == (2, cells, cells, layer.channels)
    for layer, group in zip(geometry, backbone.groups, strict=True):
        variables = [variable for keras_layer in group for variable in keras_layer.trainable_variables]
        assert layer.parameters == sum(int(np.prod(variable.shape)) for variable in variables)
    assert sum(layer.parameters for layer in geometry) == backbone.count_params() - sum(
        int(np.prod(variable.shape)) for variable in backbone.non_trainable_variables
    )


def test_geometry_by_hand():
    """Fails if explicit zeros, dilation, parallel paths or a global pool are counted otherwise."""
    early, middle, late = build_backbone(CONFIGS["keras"].discriminator).geometry()
    assert (early.name, early.stride, early.receptive_field) == ("early", 2, 3)
    assert (middle.name, middle.stride, middle.receptive_field) == ("middle", 4, 3 + 2 * 2 + 4 * 4)
    assert (late.name, late.stride, late.receptive_field) == ("late", 8, 3 + 2 * 2 + 4 * 4 + 4 * 4)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_receptive_field(name):
    """Fails if a pixel outside of the field moves a cell."""
    backbone = build_backbone(CONFIGS[name].discriminator)
    size = 160
    backbone.build((None, size, size, 3))
    image = tf.Variable(random_images(size)[:1])
    for layer in backbone.geometry():
        with tf.GradientTape() as tape:
            maps = backbone(image, last=layer.name)[layer.name]
            middle = tf.reduce_sum(maps[:, maps.shape[1] // 2, maps.shape[2] // 2])
        seen = np.flatnonzero(np.abs(tape.gradient(middle, image)).sum((0, 2, 3)))
        assert seen[-1] - seen[0] + 1 <= layer.receptive_field


def test_stops_at_a_layer(backbone):
    """Fails if `last` returns later layers, or other values."""
    first = backbone.layer_names[0]
    maps = backbone(random_images(), last=first)
    assert list(maps) == [first]
    np.testing.assert_allclose(maps[first], backbone(random_images())[first], rtol=1e-5, atol=1e-5)


def test_builds_up_to_a_layer(config, backbone):
    """Fails if later layers are built, or an unknown layer is accepted."""
    second = backbone.layer_names[1]
    shorter = build_backbone(config.discriminator, second)
    shorter.build((None, SIZE, SIZE, 3))
    assert shorter.layer_names == backbone.layer_names[:2]
    assert set(variables_by_path(shorter)) < set(variables_by_path(backbone))
    with pytest.raises(ValueError, match="unknown layer"):
        build_backbone(config.discriminator, "fc_8")


def test_frozen_layers(config):
    """Fails if a frozen layer moves, batch norm statistics included, or a later one stays."""
    network = BackboneClassifier(config.discriminator, config.mask_grid, frozen=2)
    network.build((None, SIZE, SIZE, 3))
    frozen = [variable for group in network.backbone.groups[:2] for layer in group for variable in layer.variables]
    before = [variable.numpy() for variable in network.backbone.variables]
    network(random_images(), training=True)
    assert not {id(v) for v in frozen} & {id(v) for v in network.trainable_variables}
    for variable, value in zip(network.backbone.variables, before, strict=True):
        if any(variable is other for other in frozen):
            np.testing.assert_array_equal(variable, value)
    later = [layer for group in network.backbone.groups[2:] for layer in group if layer.trainable_variables]
    assert all(layer.trainable for layer in later)


def test_paths_of_variables(config):
    """Fails if names depend on earlier models of the process: a checkpoint could not be read again."""
    paths = []
    for _ in range(2):
        network = Discriminator(config.discriminator, config.mask_grid)
        network.build((None, SIZE, SIZE, 3))
        paths.append(list(variables_by_path(network)))
    assert paths[0] == paths[1]


def test_round_trip_through_keras(config, backbone):
    """Fails if a backbone cannot be rebuilt from its configuration in JSON."""
    values = json.loads(json.dumps(keras.saving.serialize_keras_object(backbone)))
    again = keras.saving.deserialize_keras_object(values)
    if not again.built:
        again.build((None, SIZE, SIZE, 3))
    again.set_weights(backbone.get_weights())
    last = backbone.layer_names[-1]
    np.testing.assert_array_equal(again(random_images())[last], backbone(random_images())[last])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trains(config, precision):
    """Fails if a step leaves a weight of the backbone unchanged, or loses float32 weights."""
    model = build_model(config.replace(precision=precision, weight_decay=0.0), "gan")
    backbone = model.discriminator.backbone
    before = [variable.numpy() for variable in backbone.trainable_variables]
    model.train_step(random_images())
    moved = [not np.array_equal(v, old) for v, old in zip(backbone.trainable_variables, before, strict=True)]
    assert np.mean(moved) > 0.9  # a dead ReLU may stop a few
    assert {variable.dtype for variable in backbone.variables} <= {"float32", "int32", "uint32"}


def test_statistics_of_the_global_batch():
    """Fails if batch norms of a user's model ignore `--batch_norm`."""
    synchronized = {}
    for statistics in ("global", "per_replica"):
        bn_config = RELEASE_BATCH_NORM.__class__(statistics=statistics)
        network = build_backbone(CONFIGS["keras"].discriminator, bn_config=bn_config)
        norms = [layer for layer in network.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        synchronized[statistics] = {norm.synchronized for norm in norms}
    assert synchronized == {"global": {True}, "per_replica": {False}}


def test_example_of_the_guide(tmp_path, monkeypatch):
    """Fails if the module of lts/README.md is no backbone for presets `tiny` and `small`."""
    monkeypatch.syspath_prepend(str(extensions.write(tmp_path)))
    for name in ("tiny", "small"):
        config = preset(name, backbone="my_backbones:mobilenet")
        backbone = build_backbone(config.discriminator)
        check_grid(config, backbone)
        assert [(layer.name, layer.stride) for layer in backbone.geometry()] == [("stage_1", 4), ("stage_2", 8)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown backbone. Received: backbone='resnet'. Known: alexnet, resnet18, and module:function"),
        ("no_such_module:function", "cannot be imported .*no_such_module"),
        ("tests.fixtures.backbones:no_such_function", "cannot be imported .*no_such_function"),
        ("tests.fixtures.backbones:failing", "the function fails .no such weights.*backbones:failing"),
        ("tests.fixtures.backbones:list_of_maps", "must return a functional keras.Model whose output is a dictionary"),
        (
            "tests.fixtures.backbones:unregistered",
            r"cannot be rebuilt .*locate class 'Halve'\)\. Received: .*unregistered",
        ),
        (
            "tests.fixtures.backbones:python_lambda",
            r"cannot be rebuilt .*Python lambda\)\. Received: .*no Lambda layer",
        ),
        ("tests.fixtures.backbones:coarse", r"mask grid is 6x6 cells .*discriminator grid 24x24 cells .*image_size=48"),
    ],
)
def test_unfit_backbones(name, message):
    """Fails if a backbone that cannot work is found after training began, or the message names no cause."""
    with pytest.raises(ConfigError, match=message):
        build_model(preset("tiny", backbone=name), "gan")


def test_unfit_resnet():
    """Fails if the last map may have another number of cells than the mask."""
    with pytest.raises(ConfigError, match=r"mask grid is 6x6 cells .*discriminator grid 3x3 cells \(backbone resnet18"):
        build_model(preset("tiny", backbone="resnet18"), "gan")
