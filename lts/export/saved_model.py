"""The exported discriminator: a SavedModel that needs nothing but TensorFlow.

Signatures, each also an attribute of what `tf.saved_model.load` returns. Images are RGB of any batch, height and width
from a smallest size on; smaller ones and empty batches are errors. Scaling and mean subtraction are inside.

    serving_default  images uint8 [B, H, W, 3] -> conv_1..conv_5 float32 [B, h, w, channels], activations of the backbone,
                     and conv_1_pooled..conv_5_pooled [B, channels], their means over the map
    conv_1..conv_5   the same for one layer: nothing behind it is computed
    spot             images uint8 [B, H, W, 3] of at least the training size -> probability [B] that the image was
                     repaired, artifact_map [B, h, w] of each cell of conv_5's grid, artifact_map_image [B, H, W]
    train            images float32 [B, H, W, 3] in [0, 255] -> as serving_default with batch norm in training mode,
                     whose moving averages move; differentiable

`trainable_variables` are the backbone's. `config.json` beside it says what it is, `README.md` is its model card, and
`backbone.npz` holds the backbone's weights by name.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts.config import Config
from lts.export import formats as export_formats
from lts.export import model_card, pooling
from lts.export.feature_extractor import FeatureExtractor
from lts.networks.autoencoder import batch_norm_options
from lts.networks.geometry import LayerGeometry, geometry
from lts.networks.variables import variables_by_path
from lts.utils import files
from lts.utils.errors import UserError, first_line

WEIGHTS = "backbone.npz"


class ExportError(UserError):
    """A folder that is no export of this project, or one that cannot be read."""


class InputError(UserError):
    """Images, a layer or a pooling that an exported model does not take."""


def export(
    network: keras.Model,
    output: str | os.PathLike,
    description: dict[str, Any],
    formats: Sequence[str] = (),
    backbone: keras.Model | None = None,
) -> None:
    """Writes a network as a SavedModel with its description, whole or not at all.

    Args:
      network: a built `Discriminator`, or without the signature `spot` a `BackboneClassifier` or an `Encoder`, in float32.
      output: folder to write; an export that is there is replaced.
      description: JSON-ready; goes to `config.json`. Holds at least "image_size", "test_crop" and "config", a
        configuration as `Config.to_dict` writes it. "network" is "backbone", or "encoder" for an `Encoder`. "spot": False
        leaves that signature out: there are no heads that were trained for it.
      formats: further ones beside the SavedModel, see `lts.export.formats`.
      backbone: of the features; None: the network's own.

    Raises:
      OutputError: `output` exists and is not an export.
      FormatError: a format that is not known, or a package that it needs is not installed.
    """
    output = pathlib.Path(output)
    export_formats.check(formats)
    files.check_replaceable(output, "saved_model.pb")
    archive = keras.export.ExportArchive()
    backbone = backbone or getattr(network, "backbone", network)
    archive.track(backbone)  # whose variables become `trainable_variables`
    if description.get("spot", True):
        known = {id(variable) for variable in backbone.variables}
        archive.add_variable_collection("spot_variables", [v for v in network.variables if id(v) not in known])
        archive.add_endpoint("spot", _spot(network, description["image_size"]))
    smallest = {layer.name: layer.smallest for layer in _geometry(description)}
    for name, endpoint in _endpoints(getattr(backbone, "endpoints", backbone), smallest).items():
        archive.add_endpoint(name, endpoint)
    weights = {path: keras.ops.convert_to_numpy(v) for path, v in variables_by_path(backbone).items()}
    with files.atomic_write(output) as beside:
        archive.write_out(str(beside), verbose=False)
        files.write_json(beside / "config.json", description)
        np.savez(beside / WEIGHTS, **weights)
        export_formats.convert(beside, formats)
        files.write_text(beside / model_card.NAME, model_card.card(description, name=output.name))


def _geometry(description: dict[str, Any]) -> list[LayerGeometry]:
    """The layers of an export."""
    return geometry(Config.from_dict(description["config"]), description.get("network", "backbone"))


def _endpoints(backbone: Any, smallest: dict[str, int]) -> dict[str, Any]:
    """The signatures of features by name: traced functions of images.

    Args:
      backbone: (images in [-1, 1], training, last) to a dict of maps.
      smallest: pixels a side that each layer needs, first layer first.
    """
    takes = {dtype: [tf.TensorSpec([None, None, None, 3], dtype, "images")] for dtype in (tf.uint8, tf.float32)}
    layers = tuple(smallest)

    def features(images, names: Sequence[str], training: bool = False) -> dict:
        with tf.control_dependencies([_check_size(images, smallest[names[-1]])]):
            signed = tf.cast(images, tf.float32) / 127.5 - 1
        maps = backbone(signed, training=training, last=names[-1])
        pooled = {f"{name}_pooled": tf.reduce_mean(maps[name], [1, 2]) for name in names}
        return {**{name: maps[name] for name in names}, **pooled}

    def of_layer(name: str):
        return tf.function(lambda images: features(images, [name]), input_signature=takes[tf.uint8])

    return {
        "serving_default": tf.function(lambda images: features(images, layers), input_signature=takes[tf.uint8]),
        **{name: of_layer(name) for name in layers},
        "train": tf.function(lambda images: features(images, layers, training=True), input_signature=takes[tf.float32]),
    }


def _spot(discriminator: keras.Model, image_size: int) -> Any:
    """The signature `spot`."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def spot(images):
        with tf.control_dependencies([_check_size(images, image_size)]):
            out = discriminator(tf.cast(images, tf.float32) / 127.5 - 1, training=False)
        dropped = tf.sigmoid(-out["mask_logits"])
        enlarged = tf.image.resize(tf.expand_dims(dropped, -1), tf.shape(images)[1:3])[..., 0]
        return {
            "probability": tf.nn.softmax(out["logits"])[:, 0],
            "artifact_map": dropped,
            "artifact_map_image": enlarged,
        }

    return spot


def _check_size(images: tf.Tensor, smallest: int) -> tf.Operation:
    """Stops the graph at anything but images: a signature called by name lets every shape pass."""
    shape = tf.shape(images)
    batch, height, width, channels, beyond = tf.unstack(tf.concat([shape, tf.zeros([5], tf.int32)], 0)[:5])
    right = (batch > 0) & (tf.minimum(height, width) >= smallest) & (channels == 3) & (beyond == 0)
    wanted = f"images must be [batch, height, width, 3], at least one, of at least {smallest} pixels a side. Received:"
    return tf.debugging.Assert(right, [wanted, shape], summarize=5)


class LoadedModel:
    """An export, ready to be called.

    Attributes:
      path: folder it was loaded from.
      layers: names of the feature layers, first to last.
      description: what `config.json` says.
      image_size: pixels a side it was trained at.
      test_crop: central crop of its test preprocessing, fraction of each side.
      config: the `Config` it was trained with.
      geometry: `LayerGeometry` by name of layer: where it looks.
      fingerprint: hex digest of the weights.
      module: what `tf.saved_model.load` returns.

    Example:
      >>> model = lts.load("runs/features")
      >>> model.features(images, layer="conv_5", pool="avg")  # uint8 [8, 96, 96, 3] -> float32 [8, 256]
    """

    def __init__(self, path: pathlib.Path, module: Any, description: dict[str, Any]):
        self.path, self.description, self.module = path, description, module
        self.image_size, self.test_crop = description["image_size"], description["test_crop"]
        self.config = Config.from_dict(description["config"])
        self.geometry = {layer.name: layer for layer in _geometry(description)}
        self._smallest = {name: layer.smallest for name, layer in self.geometry.items()}
        self.layers = tuple(self._smallest)
        missing = [name for name in ("serving_default", *self.layers, "train") if name not in module.signatures]
        if missing:
            raise ValueError(f"it has no signature {missing[0]!r}: export it again with this version")
        self.fingerprint = _fingerprint(path)

    def __call__(self, images) -> dict[str, tf.Tensor]:
        """All maps and their means (`serving_default`) of uint8 images [B, H, W, 3]."""
        return self.module.signatures["serving_default"](images=_checked(images, self._smallest[self.layers[-1]]))

    def features(self, images, layer: str | Sequence[str] = "conv_5", pool: str = "none") -> Any:
        """Activations of one layer, behind which nothing is computed, or of several. Works inside a tf.function.

        Args:
          images: uint8 [B, H, W, 3], RGB.
          layer: a name of `layers`, or a sequence of names.
          pool: "none", "avg", "max", or "grid:N" for averages over N x N areas.

        Returns:
          float32 [B, h, w, channels], [B, channels] for avg and max, [B, N, N, channels] for a grid; of several layers
          a dict by name.

        Raises:
          InputError: another dtype, rank, size, number of channels, or layer.
          PoolError: another pooling.
        """
        names = [layer] if isinstance(layer, str) else list(layer)
        unknown = [name for name in names if name not in self.layers]
        if unknown or not names:
            raise InputError(f"layer must be of {', '.join(self.layers)}. Received: layer={layer!r}")
        pooling.check(pool)
        deepest = max(names, key=self.layers.index)
        signature = self.module.signatures[deepest if len(set(names)) == 1 else "serving_default"]
        out = signature(images=_checked(images, self._smallest[deepest]))
        pooled = {name: pooling.pool(out[name], pool) for name in names}
        return pooled[layer] if isinstance(layer, str) else pooled

    def spot(self, images) -> dict[str, tf.Tensor]:
        """Which images, and where, look repaired. Works inside a tf.function.

        Args:
          images: uint8 [B, H, W, 3], RGB, of at least `image_size` pixels a side.

        Returns:
          Dict of float32 in [0, 1]: `probability` [B] that an image was repaired; `artifact_map` [B, h, w], that a cell
          was dropped; `artifact_map_image` [B, H, W], the same between the cells' centres.

        Raises:
          InputError: another dtype, rank, size or number of channels.
          ExportError: the export has no trained heads.
        """
        if "spot" not in self.module.signatures:
            raise ExportError(f"{self.path} has features alone: its checkpoint had no heads that spot artifacts")
        return self.module.signatures["spot"](images=_checked(images, self.image_size))

    def keras_model(self, layer: str = "conv_5", dtype: str | None = None) -> FeatureExtractor:
        """The backbone up to `layer` as a new Keras model with these weights, for fine-tuning with `fit`.

        Args:
          layer: a name of `layers`.
          dtype: "float32" or "mixed_bfloat16", of the activations; None: Keras' own policy.

        Returns:
          A model of uint8 or float images [B, H, W, 3] in [0, 255] to the layer's map [B, h, w, channels].

        Raises:
          InputError: another layer.
          ExportError: an export of another network than a backbone, or weights that cannot be read.
        """
        if self.description.get("network", "backbone") != "backbone":
            raise ExportError(f"{self.path} is an exported {self.description['network']}: only a backbone is rebuilt")
        if layer not in self.layers:
            raise InputError(f"layer must be of {', '.join(self.layers)}. Received: layer={layer!r}")
        options = batch_norm_options(self.config.autoencoder)
        model = FeatureExtractor(self.config.discriminator, layer, dtype=dtype, **options)
        model.build((None, self.image_size, self.image_size, 3))
        try:
            with np.load(self.path / WEIGHTS) as weights:
                for path, variable in variables_by_path(model.backbone).items():
                    variable.assign(weights[path])
        except Exception as error:  # NumPy and zipfile raise nearly anything on a damaged file
            raise ExportError(
                f"{self.path / WEIGHTS} cannot be read: {first_line(error)}; export the run again"
            ) from None
        return model


def _fingerprint(path: pathlib.Path) -> str:
    """16 hex digits of all variables in a SavedModel, in no order: TensorFlow makes up their names at every export."""
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    values = [np.asarray(reader.get_tensor(name)) for name in names]
    digests = {hashlib.sha256(str(value.shape).encode() + value.tobytes()).digest() for value in values}
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def _checked(images: Any, smallest: int) -> tf.Tensor:
    """`images` as a tensor if they are what a signature takes, else `InputError` with what came and what is needed."""
    try:
        images = tf.convert_to_tensor(images)
    except (TypeError, ValueError) as error:
        raise InputError(f"images must be one array of uint8 [batch, height, width, 3]: {first_line(error)}") from None
    shape = images.shape
    if images.dtype == tf.uint8 and shape.rank == 4:
        batch, *sides, channels = shape  # None where unknown while tracing: the graph checks them
        if batch != 0 and channels in (3, None) and all(side is None or side >= smallest for side in sides):
            return images
    raise InputError(
        f"images must be uint8 [batch, height, width, 3] in 0..255, at least one image, of at least {smallest} pixels "
        f"a side. Received: {images.dtype.name} {shape}"
    )


def load(path: str | os.PathLike) -> LoadedModel:
    """Loads an export.

    Raises:
      ExportError: `path` is not an export of this project, or is damaged.
    """
    path = pathlib.Path(path)
    for name in ("saved_model.pb", "config.json"):
        if not (path / name).exists():
            raise ExportError(f"{path} is not an exported model: there is no {name} in it (lts.bin.export_features)")
    try:
        description = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return LoadedModel(path, tf.saved_model.load(str(path)), description)
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise ExportError(f"{path} cannot be loaded as an exported model: {first_line(error)}") from None
