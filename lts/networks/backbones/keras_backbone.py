"""Any Keras model as a backbone (this project)."""

import copy
import importlib
import re
import sys
from typing import Any

import keras

from lts.config import ConfigError, DiscriminatorConfig
from lts.config.windows import Window
from lts.networks.backbones.base import Backbone
from lts.networks.geometry import LayerGeometry, smallest_side
from lts.networks.layers import RELEASE_BATCH_NORM, BatchNormConfig
from lts.utils.errors import first_line

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
POOLS = ("MaxPooling2D", "AveragePooling2D")
GLOBAL_POOLS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")


@keras.saving.register_keras_serializable("lts")
class KerasBackbone(Backbone):
    """Backbone from a function `(input_shape) -> keras.Model`.

    The function returns a functional model of images [B, H, W, 3] in [0, 255] to a dictionary of feature maps
    [B, h, w, channels] by name. `input_shape` is (None, None, 3). The order of the layers is that in the model. Batch
    norms use the statistics of the global batch unless the configuration says `--batch_norm=per_replica`.

    Args:
      config: of the discriminator; `backbone` is "module:function".
      last: the last layer to build; None: all.
      bn_config: whether batch norms use the statistics of all replicas. Their other settings are the function's.
      architecture: Keras configuration of the model, as an export holds it; None calls the function.

    Raises:
      ConfigError: the function cannot be imported or fails, its result is another thing, or it has a layer that Keras
        cannot rebuild.

    Example:
      >>> # in my_backbones.py, for --backbone=my_backbones:convolutions
      >>> def convolutions(input_shape):
      ...     images = keras.Input(input_shape)
      ...     early = keras.layers.Conv2D(32, 3, strides=4, padding="same", activation="relu")(images)
      ...     late = keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(early)
      ...     return keras.Model(images, {"early": early, "late": late})
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        last: str | None = None,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        architecture: dict[str, Any] | None = None,
        name="trunk",  # part of the variable paths in checkpoints
        **kwargs,
    ):
        self.architecture = architecture
        super().__init__(config, last, bn_config, name=name, **kwargs)

    def _make_layers(self) -> None:
        made = None
        if self.architecture is None:
            made = _call(self.config.backbone, self.dtype_policy)
            self.architecture = _portable(made.get_config(), synchronized=self.bn_config.statistics == "global")
        model = _rebuilt(self.architecture, self.config.backbone)
        if made is not None:
            model.set_weights(made.get_weights())  # the function may have loaded some
        self._groups = _groups(self.architecture)
        self._geometry = _geometry(self.architecture, model, self._groups)
        outputs = {name: model.output[name] for name in self.layer_names}
        self.model = keras.Model(model.input, outputs)

    def build(self, input_shape):
        del input_shape  # a functional model is built from the start

    @property
    def groups(self):
        """The layers from one feature map to the next."""
        return [_layers(self.model, self._groups[name]) for name in self.layer_names]

    def geometry(self) -> list[LayerGeometry]:
        """Return the geometry of all feature maps, first to last.

        Squeeze-and-excitation and other global pools do not count for receptive fields.
        """
        return list(self._geometry)

    def endpoints(self, images, training=False, last=None):
        """Return the feature maps up to `last`, see `Backbone.endpoints`."""
        names = self.layer_names
        model = self.model
        if last not in (None, names[-1]):
            names = names[: names.index(last) + 1]
            model = keras.Model(model.input, {name: model.output[name] for name in names})
        maps = model((images + 1) * 127.5, training=training)
        return {name: maps[name] for name in names}


def _call(backbone: str, policy: keras.DTypePolicy) -> keras.Model:
    """Return the model of a "module:function", its layers under a dtype policy."""
    module, _, function = backbone.partition(":")
    if "" not in sys.path:
        sys.path.append("")  # the working directory, which console scripts do not search
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the backbone cannot be imported ({first_line(error)}). Received: backbone={backbone!r}. "
            "Put its module into the working directory or into PYTHONPATH."
        ) from None
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build((None, None, 3))
    except Exception as error:  # anything that the user's function raises
        raise ConfigError(f"the function fails ({first_line(error)}). Received: backbone={backbone!r}") from error
    finally:
        keras.config.set_dtype_policy(previous)
    maps = model.output if isinstance(model, keras.Model) and isinstance(model.output, dict) else {}
    if not maps or any(len(tensor.shape) != 4 for tensor in maps.values()):
        raise ConfigError(
            "the function must return a functional keras.Model whose output is a dictionary of maps "
            f"[B, h, w, channels]. Received: backbone={backbone!r}"
        )
    return model


def _rebuilt(architecture: dict[str, Any], backbone: str) -> keras.Model:
    """Return the model of a configuration."""
    try:
        return keras.Model.from_config(copy.deepcopy(architecture))  # Keras changes its argument
    except Exception as error:  # a class that is not registered here, a `Lambda` layer, or what a user's class raises
        reason = first_line(error).partition(". ")[0]
        raise ConfigError(
            f"the backbone cannot be rebuilt from its configuration ({reason}). Received: backbone={backbone!r}. "
            "Import the modules of its layers, register their classes with keras.saving, and use no Lambda layer."
        ) from error


def _portable(architecture: dict[str, Any], synchronized: bool) -> dict[str, Any]:
    """Return a model's configuration with layer names that are the same in every process.

    Keras numbers layers without a name over the whole process, and these names are part of checkpoint paths.
    """
    names = {}
    counts: dict[str, int] = {}
    for layer in architecture["layers"]:
        stem = re.sub(r"_\d+$", "", layer["name"])
        is_automatic = stem.replace("_", "") == layer["class_name"].lower()
        number = counts.get(stem, 0)
        if is_automatic:
            counts[stem] = number + 1
        names[layer["name"]] = f"{stem}_{number}" if is_automatic else layer["name"]
    renamed = _rename(architecture, names)
    for layer in renamed["layers"]:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["synchronized"] = synchronized
    return renamed


def _rename(value: Any, names: dict[str, str]) -> Any:
    """Return a copy of nested values with names of layers replaced."""
    if isinstance(value, dict):
        copy = {key: _rename(entry, names) for key, entry in value.items()}
        # The entries that name layers: of a layer, of its configuration, and of the tensors that it takes.
        for key in ("name", "keras_history"):
            if key in value:
                copy[key] = _new_name(value[key], names)
        for key in ("input_layers", "output_layers"):
            if key in value:
                copy[key] = keras.tree.map_structure(lambda entry: _new_name(entry, names), value[key])
        return copy
    if isinstance(value, list | tuple):
        return [_rename(entry, names) for entry in value]
    return value


def _new_name(entry: Any, names: dict[str, str]) -> Any:
    """Return a name, or [name, node, tensor], renamed."""
    if isinstance(entry, list | tuple):
        return [_new_name(part, names) for part in entry]
    return names.get(entry, entry) if isinstance(entry, str) else entry


def _inputs(value: Any) -> list[str]:
    """Return the names of the layers in a layer's `inbound_nodes`."""
    if isinstance(value, dict):
        history = value.get("keras_history")
        return [history[0]] if history else _inputs(list(value.values()))
    if not isinstance(value, list | tuple):
        return []
    names = []
    for entry in value:
        names += _inputs(entry)
    return names


def _groups(architecture: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of the Keras layers of each feature map, first to last."""
    inputs = {layer["name"]: _inputs(layer["inbound_nodes"]) for layer in architecture["layers"]}

    def ancestors(name: str) -> set[str]:
        reached = set()
        pending = [name]
        while pending:
            current = pending.pop()
            if current not in reached:
                reached.add(current)
                pending += inputs[current]
        return reached

    needed = {name: ancestors(output[0]) for name, output in architecture["output_layers"].items()}
    groups = {}
    earlier: set[str] = set()
    for name in sorted(needed, key=lambda name: len(needed[name])):
        groups[name] = [layer for layer in inputs if layer in needed[name] - earlier]
        earlier |= needed[name]
    return groups


def _geometry(architecture: dict[str, Any], model: keras.Model, groups: dict[str, list[str]]) -> list[LayerGeometry]:
    """Return the geometry of the feature maps."""
    windows: dict[str, tuple[Window, ...] | None] = {}  # to each Keras layer; None after a global pool
    for layer in architecture["layers"]:
        paths = [windows[name] for name in _inputs(layer["inbound_nodes"]) if windows[name] is not None]
        longest = max(paths, key=_receptive_field, default=None if windows else ())
        if layer["class_name"] in GLOBAL_POOLS or longest is None:
            windows[layer["name"]] = None
        else:
            windows[layer["name"]] = (*longest, *_windows(layer))

    geometry = []
    for name, layers in groups.items():
        path = windows[architecture["output_layers"][name][0]] or ()
        variables = []
        for layer in _layers(model, layers):
            variables += layer.trainable_variables
        parameters = sum(int(keras.ops.size(variable)) for variable in variables)
        channels = model.output[name].shape[-1]
        geometry.append(LayerGeometry(name, channels, path, parameters, smallest_side(path)))
    return geometry


def _layers(model: keras.Model, names: list[str]) -> list[keras.layers.Layer]:
    """Return the layers with these names; operations such as `x + y` are no layers."""
    return [layer for layer in model.layers if layer.name in names]


def _receptive_field(windows: tuple[Window, ...]) -> int:
    return LayerGeometry("", 0, windows, 0, 0).receptive_field


def _windows(layer: dict[str, Any]) -> list[Window]:
    """Return the window of a Keras layer; [] where cells stay in place."""
    config = layer["config"]
    if layer["class_name"] in CONVOLUTIONS:
        dilation = config.get("dilation_rate", (1, 1))[0]
        kernel = (config["kernel_size"][0] - 1) * dilation + 1
        return [Window(kernel, config["strides"][0], config["padding"].upper())]
    if layer["class_name"] in POOLS:
        return [Window(config["pool_size"][0], config["strides"][0], config["padding"].upper())]
    if layer["class_name"] == "ZeroPadding2D":
        return [Window(1, padding=tuple(config["padding"][0]))]
    return []
