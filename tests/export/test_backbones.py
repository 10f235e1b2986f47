"""Exports of other backbones than AlexNet."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import lts
from lts.config import preset
from lts.export import saved_model
from lts.training.train import build_model
from tests.fixtures.exports import add_noise

CONFIGS = {
    "resnet18": preset("tiny", backbone="resnet18", resnet_width=0.1, conv_1_kernel=3, conv_1_stride=1, fc_units=16),
    "keras": preset("tiny", backbone="tests.fixtures.backbones:branches", fc_units=16),
}
PLAIN = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
np.savez(sys.argv[3], **model.signatures["serving_default"](images=tf.constant(images)))
"""


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request, tmp_path_factory):
    """An export, and the discriminator that it was made of."""
    config = CONFIGS[request.param]
    discriminator = build_model(config, "gan").discriminator
    add_noise(discriminator.variables)
    folder = tmp_path_factory.mktemp(request.param) / "features"
    description = {"image_size": 48, "test_crop": 0.85, "weights": "trained", "config": config.to_dict()}
    saved_model.export(discriminator, folder, description)
    return folder, discriminator


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Two uint8 images."""
    return np.random.default_rng(0).integers(0, 256, [2, 48, 48, 3], np.uint8)


def test_layers(exported, images):
    """Fails if signatures, geometry or values are not the backbone's."""
    folder, discriminator = exported
    model = lts.load(folder)
    backbone = discriminator.backbone
    assert model.layers == backbone.layer_names
    assert list(model.geometry.values()) == backbone.geometry()
    maps = backbone(tf.cast(images, tf.float32) / 127.5 - 1)
    for name in model.layers:
        np.testing.assert_allclose(model.features(images, name), maps[name], rtol=1e-4, atol=1e-4)
    assert model.default_layer == model.layers[-1]


def test_loads_in_plain_tensorflow(exported, images, tmp_path):
    """Fails if the export needs this package or the user's module."""
    folder, _ = exported
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", PLAIN, str(folder), str(tmp_path / "images.npy"), str(tmp_path / "maps.npz")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = lts.load(folder)(images)
    with np.load(tmp_path / "maps.npz") as maps:
        for name in outputs:
            np.testing.assert_allclose(maps[name], outputs[name], rtol=1e-5, atol=1e-5)


def test_keras_model(exported, images, tmp_path, monkeypatch):
    """Fails if the Keras model has other values, or needs the user's function."""
    folder, _ = exported
    monkeypatch.setitem(sys.modules, "tests.fixtures.backbones", None)  # cannot be imported
    model = lts.load(folder)
    for layer in model.layers:
        features = model.keras_model(layer)(images)
        np.testing.assert_allclose(features, model.features(images, layer), rtol=1e-4, atol=1e-4)
    whole = keras.Sequential([keras.Input((48, 48, 3)), model.keras_model(), keras.layers.GlobalAveragePooling2D()])
    whole.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), whole(images), rtol=1e-5, atol=1e-5)


def test_model_card(exported):
    """Fails if the card describes AlexNet, or advises a layer that was measured on AlexNet."""
    folder, discriminator = exported
    card = " ".join((folder / "README.md").read_text().split())
    assert "AlexNet" not in card
    assert "Take `conv_3`" not in card
    for layer in discriminator.backbone.geometry():
        assert f"| {layer.name} | {layer.cells(48)} x {layer.cells(48)} x {layer.channels} |" in card
