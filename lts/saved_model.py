"""The exported discriminator: a SavedModel that needs nothing but TensorFlow.

The one signature, `serving_default`, takes `images`, uint8 [B, H, W, 3] RGB of
any batch, height and width, and returns float32

    conv_1..conv_5   [B, h, w, channels]  activations of the trunk
    probability      [B]                  that the image was repaired
    mask             [B, h, w]            probability that a cell was KEPT, on conv_5's grid

Scaling and mean subtraction are inside. `config.json` beside it says what it is.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

import keras
import tensorflow as tf

from lts import files
from lts.errors import UserError

LAYERS = ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")


class ExportError(UserError):
    """A folder that is no export of this project, or one that cannot be read."""


def export(discriminator: keras.Model, output: str | os.PathLike, description: dict[str, Any]) -> None:
    """Writes the discriminator as a SavedModel with its description, whole or not at all.

    Args:
      discriminator: a built `lts.networks.discriminator.Discriminator` in float32.
      output: folder to write; an export that is there is replaced.
      description: JSON-ready; goes to `config.json`. Holds at least "image_size" and "test_crop".

    Raises:
      ExportError: `output` exists and is not an export.
    """
    output = pathlib.Path(output)
    if output.exists() and not (output / "saved_model.pb").exists() and (output.is_file() or any(output.iterdir())):
        raise ExportError(f"{output} exists and is not an export: give another --output or remove it")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def serve(images):
        out = discriminator(tf.cast(images, tf.float32) / 127.5 - 1, training=False)
        endpoints = {name: out[name] for name in LAYERS}
        return {
            **endpoints,
            "probability": tf.nn.softmax(out["logits"])[:, 0],
            "mask": tf.sigmoid(out["mask_logits"]),
        }

    archive = keras.export.ExportArchive()
    archive.track(discriminator)
    archive.add_endpoint("serve", serve)
    with files.replacing(output) as beside:
        archive.write_out(str(beside), verbose=False)
        files.write_json(beside / "config.json", description)


class LoadedModel:
    """An export, ready to be called.

    Attributes:
      path: folder it was loaded from.
      layers: names of the feature layers, first to last.
      description: what `config.json` says.
      image_size: pixels a side it was trained at.
      test_crop: central crop of its test preprocessing, fraction of each side.
      fingerprint: hex digest of the weights.
    """

    def __init__(self, path: pathlib.Path, module: Any, description: dict[str, Any]):
        self.path, self.description, self.layers = path, description, LAYERS
        self.image_size, self.test_crop = description["image_size"], description["test_crop"]
        digest = hashlib.sha256()
        for part in sorted((path / "variables").glob("variables.data-*")):
            digest.update(part.read_bytes())
        self.fingerprint = digest.hexdigest()[:16]
        self._module = module
        self._serve = module.signatures["serving_default"]

    def __call__(self, images) -> dict[str, tf.Tensor]:
        """Outputs (see the module) of uint8 images [B, H, W, 3]; can be called inside a tf.function."""
        return self._serve(images=images)


def load(path: str | os.PathLike) -> LoadedModel:
    """Loads an export.

    Raises:
      ExportError: `path` is not an export of this project, or is damaged.
    """
    path = pathlib.Path(path)
    if not (path / "saved_model.pb").exists():
        raise ExportError(
            f"{path} is not an exported model: there is no saved_model.pb in it (lts.bin.export_features)"
        )
    try:
        description = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return LoadedModel(path, tf.saved_model.load(str(path)), description)
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{path} cannot be loaded as an exported model: {str(error).splitlines()[0]}") from None
