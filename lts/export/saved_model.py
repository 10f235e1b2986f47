"""SavedModel of a feature network, written and loaded.

This project. `LoadedModel` documents the signatures. An export is a folder:

    saved_model.pb, variables/  the SavedModel; it needs nothing but TensorFlow
    config.json                 the description: settings, image size, origin of the weights
    README.md                   the model card
    backbone.npz                the weights of the feature layers by name
    backbone.json               the Keras configuration of a backbone of `--backbone=module:function`
    backbone.safetensors        backbone.npz in another format, see `lts.export.formats`
"""

import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts.config import Config
from lts.data import as_signed
from lts.export import formats as export_formats
from lts.export import model_card, pooling
from lts.export.choices import (
    CALIBRATED,
    EXPORT,
    NO_SPOT,
    ExportError,
    InputError,
    LayerError,
    check_formats,
    check_pool,
    default_layer,
    layer_geometry,
    local_folder,
    read_description,
)
from lts.export.feature_extractor import FeatureExtractor
from lts.networks.autoencoder import batch_norm_config
from lts.networks.variables import variables_by_path
from lts.utils import files, npz
from lts.utils.errors import FormatError, first_line
from lts.utils.json_files import read_json
from lts.utils.patterns import plain_path

# NumPy alone can read it: names such as conv_2/conv_0/kernel.
WEIGHTS = "backbone.npz"
# Keras configuration of a backbone that a user's function made.
ARCHITECTURE = "backbone.json"


def export(
    network: keras.Model,
    output: str | os.PathLike,
    description: dict[str, Any],
    formats: Sequence[str] = (),
    recalibrated: keras.Model | None = None,
    calibration: np.ndarray | None = None,
) -> None:
    """Write a network as a SavedModel.

    The folder is written atomically: an interrupted export leaves an existing one as it was.

    Args:
      network: a built `Discriminator`, `BackboneClassifier` or `Encoder` in float32. The last two have no signature
        `spot`.
      output: folder to write; an existing export is replaced.
      description: content of `config.json`. Required: "image_size", "test_crop" and "config" (`Config.to_dict`).
        Optional: "network", "backbone" or "encoder"; "spot", False where no trained heads exist; "classes", names
        where the discriminator has a head of labels; further entries are for the model card.
      formats: further formats, see `lts.export.formats`.
      recalibrated: network of all signatures but `spot`, with batch norm statistics of photographs; None: `network`.
      calibration: uint8 [images, height, width, 3], photographs for the format `tflite_int8`.

    Raises:
      OutputError: `output` exists and is not an export.
      FormatError: a format is unknown, its package is not installed, or it needs `calibration`.
    """
    output = pathlib.Path(output)
    check_formats(formats)
    if CALIBRATED in formats and calibration is None:
        raise FormatError(f"the format {CALIBRATED} needs images. Received: calibration=None.")
    EXPORT.check(output)
    recalibrated = network if recalibrated is None else recalibrated
    backbone: Any = getattr(recalibrated, "backbone", recalibrated)
    layers = backbone.geometry()
    description = {**description, "layers": [layer.to_dict() for layer in layers]}
    description["default_layer"] = default_layer(description)
    architecture = getattr(backbone, "architecture", None)  # of a Keras model
    archive: Any = keras.export.ExportArchive()
    # NB: `track` alone makes variables trainable in the SavedModel: only the features are meant to be fine-tuned.
    archive.track(backbone)
    # Heads and features are separate collections: `backbone` may have other statistics than the network's own.
    if description.get("spot", True):
        tracked = {id(variable) for variable in backbone.variables}
        heads = [variable for variable in network.variables if id(variable) not in tracked]
        archive.add_variable_collection("spot_variables", heads)
        archive.add_endpoint("spot", _spot_endpoint(network, description["image_size"]))
    if "classes" in description:
        archive.add_variable_collection("classify_variables", recalibrated.variables)
        archive.add_endpoint("classify", _classify_endpoint(recalibrated, description["image_size"]))
    smallest = {layer.name: layer.smallest for layer in layers}
    for name, endpoint in _feature_endpoints(backbone.endpoints, smallest).items():
        archive.add_endpoint(name, endpoint)
    weights: dict[str, Any] = {path: keras.ops.convert_to_numpy(v) for path, v in variables_by_path(backbone).items()}
    # Everything is written to a temporary folder, which then replaces `output`.
    with EXPORT.write(output) as folder:
        folder.mkdir()
        with plain_path(folder) as plain:
            archive.write_out(str(plain), verbose=False)
        files.write_json(folder / "config.json", description)
        np.savez(folder / WEIGHTS, **weights)
        if architecture is not None:
            files.write_json(folder / ARCHITECTURE, architecture)
        if "safetensors" in formats:
            export_formats.write_safetensors(folder, weights, _fingerprint(folder))
        export_formats.convert(folder, formats, calibration)
        files.write_text(folder / model_card.NAME, model_card.card(description, name=output.absolute().name))


def _feature_endpoints(backbone: Callable, smallest: dict[str, int]) -> dict[str, Callable]:
    """Return the traced feature signatures by name."""
    # `backbone` maps (images in [-1, 1], training, last) to maps by layer. `smallest` is each layer's least image side.
    layers = tuple(smallest)  # first to last

    def compute(images, names: Sequence[str], training: bool = False) -> dict:
        with tf.control_dependencies([_assert_images(images, smallest[names[-1]])]):
            signed = as_signed(images)
        maps = backbone(signed, training=training, last=names[-1])  # later layers are not built into the graph
        outputs = {name: maps[name] for name in names}
        for name in names:
            outputs[f"{name}_pooled"] = tf.reduce_mean(maps[name], [1, 2])
        return outputs

    def endpoint(names: Sequence[str], dtype: tf.DType = tf.uint8, training: bool = False) -> Callable:
        signature = [tf.TensorSpec([None, None, None, 3], dtype, "images")]
        return tf.function(lambda images: compute(images, names, training), input_signature=signature)

    endpoints = {"serving_default": endpoint(layers)}
    # TensorFlow computes all outputs of a signature: one per layer, so that a user of conv_2 does not wait for conv_5.
    for name in layers:
        endpoints[name] = endpoint([name])
    # Augmented images are rarely whole numbers.
    endpoints["train"] = endpoint(layers, tf.float32, training=True)
    return endpoints


def _spot_endpoint(discriminator: keras.Model, image_size: int) -> Callable:
    """Return the traced signature `spot`."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def spot(images):
        # NB: on images below the training size fc_1 would see zeros that it never saw in training.
        with tf.control_dependencies([_assert_images(images, image_size)]):
            outputs = discriminator(as_signed(images), training=False)
        # The mask head predicts kept cells. The map shows dropped ones: like `probability`, it is high where an image
        # looks repaired.
        artifact_map = tf.sigmoid(-outputs["mask_logits"])
        # NB: TFLite cannot convert `[..., tf.newaxis]`.
        enlarged = tf.image.resize(tf.expand_dims(artifact_map, -1), tf.shape(images)[1:3])
        return {
            "probability": tf.nn.softmax(outputs["logits"])[:, 0],  # class 0 is "repaired" (release)
            "artifact_map": artifact_map,
            "artifact_map_image": enlarged[..., 0],
        }

    return spot


def _classify_endpoint(discriminator: keras.Model, image_size: int) -> Callable:
    """Return the traced signature `classify`."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def classify(images):
        with tf.control_dependencies([_assert_images(images, image_size)]):
            outputs = discriminator(as_signed(images), training=False)
        return {"probabilities": tf.nn.softmax(outputs["labels_logits"])}

    return classify


def _assert_images(images: tf.Tensor, smallest: int) -> tf.Operation:
    """Return an operation that refuses wrong images."""
    # NB: TensorFlow does not check shapes when a signature is called by name. Without this operation grey images were
    # broadcast to RGB silently, and oneDNN aborted on images too small for "VALID" pooling.
    shape = tf.shape(images)
    # Five entries, padded with zeros, can be unstacked whatever the rank.
    padded = tf.concat([shape, tf.zeros([5], tf.int32)], 0)[:5]
    batch, height, width, channels, fifth = tf.unstack(padded)
    accepted = (batch > 0) & (tf.minimum(height, width) >= smallest) & (channels == 3) & (fifth == 0)
    message = f"images must be [batch, height, width, 3], at least one, of at least {smallest} pixels a side. Received:"
    return tf.debugging.Assert(accepted, [message, shape], summarize=5)


class LoadedModel:
    """Exported model with checked inputs.

    Every evaluation uses this class; `lts.load(path)` returns it. `module` is the SavedModel itself and can be loaded
    without this package. Its signatures, each also an attribute of `module`, take one input: `images`, RGB, of any
    batch, height and width from a smallest side on. Scaling and mean subtraction are inside. Smaller images and empty
    batches raise an error. All outputs are float32:

        serving_default  uint8 [B, H, W, 3] -> conv_1 to conv_5 [B, h, w, channels], activations of the layers, and
                         conv_1_pooled to conv_5_pooled [B, channels], their means over the map
        conv_1 to conv_5 uint8 [B, H, W, 3] -> the same of one layer; later layers are not computed
        spot             uint8 [B, H, W, 3], sides at least `image_size` -> probability [B] that the image was repaired,
                         artifact_map [B, h, w] that a cell was dropped, artifact_map_image [B, H, W]
        classify         uint8 [B, H, W, 3], sides at least `image_size` -> probabilities [B, classes]; only of a run
                         with `--labels_weight`
        train            float32 [B, H, W, 3] in [0, 255] -> as serving_default, differentiable, with batch norm in
                         training mode: its moving averages are updated

    `module.trainable_variables` are those of the feature layers.

    Shapes: uint8 images `[8, 96, 96, 3]` give conv_3 `[8, 6, 6, 384]` of preset `release`.

    Attributes:
      path: folder of the export.
      layers: names of the feature layers, first to last.
      default_layer: the layer to take first, see `lts.export.choices`.
      description: content of `config.json`.
      image_size: side of the training images in pixels.
      test_crop: central crop of the test view, fraction of each side.
      config: the `Config` of the training.
      geometry: `LayerGeometry` by layer: stride, receptive field, smallest image.
      fingerprint: 16 hex digits of the weights.
      module: result of `tf.saved_model.load`.

    Example:
      >>> import lts
      >>> import numpy as np
      >>> model = lts.load("runs/features")
      >>> images = np.zeros([8, model.image_size, model.image_size, 3], np.uint8)  # RGB
      >>> vectors = model.features(images, layer="conv_3", pool="avg")  # float32 [8, channels]
      >>> maps = model(images)["conv_5"]  # float32 [8, h, w, channels]
      >>> probability = model.spot(images)["probability"]  # float32 [8]
      >>> backbone = model.keras_model("conv_3")  # for fine-tuning with `fit`
    """

    def __init__(self, path: pathlib.Path, module: Any, description: dict[str, Any]):
        self.path = path
        self.module = module
        self.description = description
        self.image_size: int = description["image_size"]
        self.test_crop: float = description["test_crop"]
        self.config = Config.from_dict(description["config"])
        self.geometry = {layer.name: layer for layer in layer_geometry(description)}
        self.layers = tuple(self.geometry)
        self.default_layer = default_layer(description)
        # An export of an older version is reported here, not as a KeyError at the first call.
        for name in ("serving_default", *self.layers, "train"):
            if name not in module.signatures:
                raise ValueError(f"it has no signature {name!r}: export it again with this version")
        self.fingerprint = _fingerprint(path)

    def __call__(self, images: np.ndarray | tf.Tensor) -> dict[str, tf.Tensor]:
        """Return all maps and their means (`serving_default`).

        Args:
          images: uint8 [B, H, W, 3], RGB.

        Raises:
          InputError: images of another dtype, rank, size or number of channels.
        """
        smallest = self.geometry[self.layers[-1]].smallest
        return self.module.signatures["serving_default"](images=_check_images(images, smallest))

    def features(
        self, images: np.ndarray | tf.Tensor, layer: str | Sequence[str] | None = None, pool: str = "none"
    ) -> Any:
        """Return activations of one layer or of several.

        Layers after the last requested one are not computed if one layer is requested. Works inside a tf.function.

        Args:
          images: uint8 [B, H, W, 3], RGB.
          layer: a name of `layers`, or a sequence of names; None: the last one, as for `keras_model`.
          pool: "none", "avg", "max", or "grid:N" for averages over N x N areas.

        Returns:
          float32 [B, h, w, channels]; [B, channels] for avg and max; [B, N, N, channels] for a grid. Of several layers
          a dict by name.

        Raises:
          InputError: images of another dtype, rank, size or number of channels.
          LayerError, PoolError: an unknown layer or pooling.
        """
        layer = self.layers[-1] if layer is None else layer
        names = [layer] if isinstance(layer, str) else list(layer)
        if not names or not set(names) <= set(self.layers):
            raise LayerError(f"layer must be of {', '.join(self.layers)}. Received: layer={layer!r}")
        check_pool(pool)
        deepest = max(names, key=self.layers.index)
        # The signature of one layer does not compute later ones; several layers come from one pass.
        signature = self.module.signatures[deepest if len(set(names)) == 1 else "serving_default"]
        outputs = signature(images=_check_images(images, self.geometry[deepest].smallest))
        pooled = {name: pooling.pool(outputs[name], pool) for name in names}
        return pooled[layer] if isinstance(layer, str) else pooled

    def spot(self, images: np.ndarray | tf.Tensor) -> dict[str, tf.Tensor]:
        """Return which images, and where, look repaired.

        Works inside a tf.function.

        Args:
          images: uint8 [B, H, W, 3], RGB, of at least `image_size` pixels a side.

        Returns:
          Dict of float32 in [0, 1]: `probability` [B] that an image was repaired; `artifact_map` [B, h, w] that a cell
          was dropped; `artifact_map_image` [B, H, W], the same interpolated between the cells' centres.

        Raises:
          InputError: images of another dtype, rank, size or number of channels.
          ExportError: the export has no trained heads.
        """
        if "spot" not in self.module.signatures:
            raise ExportError(f"{self.path} {NO_SPOT}")
        return self.module.signatures["spot"](images=_check_images(images, self.image_size))

    def classify(self, images: np.ndarray | tf.Tensor) -> tf.Tensor:
        """Return the probabilities of the classes.

        Works inside a tf.function. The names of the classes are `description["classes"]`.

        Args:
          images: uint8 [B, H, W, 3], RGB, of at least `image_size` pixels a side.

        Returns:
          float32 [B, classes] in [0, 1].

        Raises:
          InputError: images of another dtype, rank, size or number of channels.
          ExportError: the export was not trained with labels.
        """
        if "classify" not in self.module.signatures:
            raise ExportError(f"{self.path} knows no classes. Received: a run without --labels_weight.")
        return self.module.signatures["classify"](images=_check_images(images, self.image_size))["probabilities"]

    def keras_model(self, layer: str | None = None, dtype: str | None = None) -> FeatureExtractor:
        """Return a new Keras model with these weights.

        The model ends with `layer` and can be fine-tuned with `fit`; the export does not change.

        Args:
          layer: a name of `layers`; None: the last one.
          dtype: "float32" or "mixed_bfloat16", of the activations; None: Keras' global policy.

        Returns:
          A model of uint8 or float images [B, H, W, 3] in [0, 255] to the layer's map [B, h, w, channels].

        Raises:
          LayerError: an unknown layer.
          ExportError: the export is not a backbone, or its weights cannot be read.
        """
        if self.description.get("network", "backbone") != "backbone":
            raise ExportError(f"{self.path} is an exported {self.description['network']}: only a backbone is rebuilt")
        layer = layer or self.layers[-1]
        if layer not in self.layers:
            raise LayerError(f"layer must be of {', '.join(self.layers)}. Received: layer={layer!r}")
        architecture = None
        if (self.path / ARCHITECTURE).exists():
            architecture = read_json(self.path / ARCHITECTURE, {"layers": [dict]})
        # Only the layers up to `layer` exist, so only their weights are read.
        bn_config = batch_norm_config(self.config.autoencoder)
        model = FeatureExtractor(self.config.discriminator, layer, bn_config, architecture, dtype=dtype)
        model.build((None, self.image_size, self.image_size, 3))
        try:
            with npz.open_npz(self.path / WEIGHTS) as weights:
                for path, variable in variables_by_path(model.backbone).items():
                    max_bytes = 8 * int(np.prod(variable.shape)) + npz.MAX_HEADER
                    variable.assign(npz.read_array(weights, path, max_bytes))
        except Exception as error:  # NumPy and zipfile raise nearly any type on a damaged file
            reason = first_line(error)
            raise ExportError(f"{self.path / WEIGHTS} cannot be read: {reason}; export the run again") from None
        self.check_unchanged()
        return model

    def check_unchanged(self) -> None:
        """Raise `ExportError` if the folder holds other weights than when this model was loaded.

        Whatever reads the folder again, hours later, would mix two models.
        """
        if _fingerprint(self.path) != self.fingerprint:
            raise ExportError(f"{self.path} was replaced by another export while it was in use. Start again.")


def _fingerprint(path: pathlib.Path) -> str:
    """Return 16 hex digits of the variables."""
    digests = set()
    with plain_path(path) as folder:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        for name in reader.get_variable_to_shape_map():
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
                value = np.asarray(reader.get_tensor(name))
                digests.add(hashlib.sha256(str(value.shape).encode() + value.tobytes()).digest())
    # Sorted by value: TensorFlow gives the variables other names at every export.
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def _check_images(images: Any, smallest: int) -> tf.Tensor:
    """Return images as a tensor."""
    try:
        images = tf.convert_to_tensor(images)
    except (TypeError, ValueError) as error:
        raise InputError(f"images must be one array of uint8 [batch, height, width, 3]: {first_line(error)}") from None
    shape = images.shape
    if images.dtype == tf.uint8 and shape.rank == 4:
        # Dimensions are None where they are unknown while tracing; `_assert_images` checks them in the graph.
        batch, *sides, channels = shape
        if batch != 0 and channels in (3, None) and all(side is None or side >= smallest for side in sides):
            return images
    raise InputError(
        f"images must be uint8 [batch, height, width, 3] in 0..255, at least one image, of at least {smallest} pixels "
        f"a side. Received: {images.dtype.name} {shape}"
    )


def load(path: str | os.PathLike) -> LoadedModel:
    """Return a loaded export.

    Args:
      path: a folder, or hf://USER/NAME.

    Raises:
      ExportError: `path` is not an export of this project, or is damaged.
      HubError: a repository of the hub that cannot be downloaded, or differs from its checksums.
    """
    path = local_folder(path)
    description = read_description(path)
    try:
        files.check_regular_files(path)
        with plain_path(path) as folder:
            module = tf.saved_model.load(str(folder))
        return LoadedModel(path, module, description)
    # NB: on damaged files TensorFlow's readers raise AttributeError, IndexError, RuntimeError, OpError and others.
    except Exception as error:
        raise ExportError(f"{path} cannot be loaded as an exported model: {first_line(error)}") from None
