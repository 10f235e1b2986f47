"""The export: what goes in comes out again, for any batch, height and width."""

import json

import numpy as np
import pytest
import tensorflow as tf

from lts import saved_model
from lts.config import preset
from lts.networks.discriminator import Discriminator
from lts.saved_model import ExportError

DESCRIPTION = {"image_size": 48, "test_crop": 0.85, "weights": "random"}


@pytest.fixture(scope="module", params=["lrn", "batch_norm"])
def pair(request, tmp_path_factory):
    """A discriminator and its loaded export."""
    tf.random.set_seed(1)
    config = preset("tiny", trunk_norm=request.param, trunk_widths="8,8,8,8,8", fc_width=16)
    discriminator = Discriminator(config.discriminator, config.mask_grid)
    discriminator.build((None, 48, 48, 3))
    path = tmp_path_factory.mktemp("export") / "features"
    saved_model.export(discriminator, path, DESCRIPTION)
    return discriminator, saved_model.load(path)


def _images(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_outputs_are_the_networks(pair):
    """Scaling inside the export equals the training pipeline's, batch norm is in inference mode."""
    discriminator, model = pair
    images = _images(3, 48, 48)
    out, expected = model(images), discriminator(images / np.float32(127.5) - 1)
    for layer in model.layers:
        np.testing.assert_allclose(out[layer], expected[layer], rtol=1e-4, atol=1e-4 * np.abs(expected[layer]).max())
    np.testing.assert_allclose(out["probability"], tf.nn.softmax(expected["logits"])[:, 0], atol=1e-5)
    np.testing.assert_allclose(out["mask"], tf.sigmoid(expected["mask_logits"]), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 48, 48), (2, 96, 64), (3, 7, 9), (1, 1, 1)])
def test_any_batch_height_and_width(pair, shape):
    """Grids follow the image; smaller ones than in training still get an answer."""
    out = pair[1](_images(*shape))
    height, width = (-(-side // 8) for side in shape[1:])
    assert out["conv_5"].shape == (shape[0], height, width, 8)
    assert out["mask"].shape == (shape[0], height, width)
    assert out["probability"].shape == (shape[0],)
    assert np.isfinite(out["probability"]).all()


def test_one_image_does_not_depend_on_its_batch(pair):
    images = _images(4, 48, 48)
    np.testing.assert_allclose(pair[1](images)["conv_5"][2:3], pair[1](images[2:3])["conv_5"], atol=1e-5)


def test_description_and_fingerprint(pair, tmp_path):
    """Two exports of the same weights have one fingerprint, other weights another."""
    discriminator, model = pair
    assert (model.image_size, model.test_crop) == (48, 0.85)
    saved_model.export(discriminator, tmp_path / "again", DESCRIPTION)
    assert saved_model.load(tmp_path / "again").fingerprint == model.fingerprint
    discriminator.fc_2.bias.assign_add([1.0, 0.0])
    saved_model.export(discriminator, tmp_path / "again", DESCRIPTION)
    discriminator.fc_2.bias.assign_add([-1.0, 0.0])
    assert saved_model.load(tmp_path / "again").fingerprint != model.fingerprint


def test_what_is_no_export_is_refused(pair, tmp_path):
    with pytest.raises(ExportError, match=r"no saved_model\.pb"):
        saved_model.load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    (tmp_path / "config.json").write_text(json.dumps(DESCRIPTION))
    with pytest.raises(ExportError, match="cannot be loaded"):
        saved_model.load(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match="is not an export"):
        saved_model.export(pair[0], tmp_path / "mine", DESCRIPTION)
    assert (tmp_path / "mine" / "thesis.txt").exists()
