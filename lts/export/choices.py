"""Layers, poolings, formats and the folder of an export, which binaries check before TensorFlow is imported."""

import importlib.util
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lts.config import Config
from lts.export import hub
from lts.networks.geometry import LayerGeometry, alexnet_geometry, encoder_geometry
from lts.utils.errors import FormatError, UserError, first_line
from lts.utils.json_files import NUMBER, read_json
from lts.utils.outputs import OutputFolder

FORMATS = ("saved_model", "safetensors", "tflite", "tflite_float16", "tflite_int8", "onnx")
CALIBRATED = "tflite_int8"  # the format that needs images
PACKAGES = {
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "tf2onnx"),
}  # of formats; the extra has the name of the format
FILES = ("saved_model.pb", "config.json")  # of every export
EXPORT = OutputFolder(
    marker="saved_model.pb",
    names=(
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.*",
        "config.json",
        "README.md",
        "backbone.npz",
        "backbone.json",
        "backbone.safetensors",
        "model.tflite",
        "model_float16.tflite",
        "model_int8.tflite",
        "features.onnx",
        "spot.onnx",
    ),
)
DESCRIPTION = {  # types in config.json, see `lts.utils.json_files.check_shape`
    "image_size": int,
    "test_crop": NUMBER,
    "config": dict,
    "weights?": str,
    "stage?": str,
    "network?": str,
    "step?": int,
    "total_steps?": int,
    "seed?": int,
    "spot?": bool,
    "dataset?": str,
    "split?": str,
    "averaged?": bool,
    "classes?": [str],
    "labelled_images?": int,
    "labels_digest?": str,
    "license?": str,
    "seconds?": {str: NUMBER},
    "layers?": [
        {
            "name": str,
            "channels": int,
            "windows": [{"kernel": int, "stride": int, "padding": (str, list)}],
            "parameters": int,
            "smallest": int,
        }
    ],
    "imported?": {"checkpoint": str, "weights": str, "release_step?": int},
}

# Default layer and pooling of feature vectors. In this project's linear probes conv_3 is the best layer of this method,
# the encoder, rotation prediction and random weights, and the last layer is the best one after supervised training
# (small_compare and small_imagenette128 in experiments/results; tests/export/test_choices.py).
BEST_LAYER = "conv_3"
DEFAULT_POOL = "avg"
NO_SPOT = "has features alone: its checkpoint had no heads that spot artifacts"
ALL_LAYERS = "all"  # the word for every layer of an export


class ExportError(UserError):
    """Folder that is not a readable export."""


class InputError(UserError):
    """Images or a layer that are refused."""


class LayerError(InputError):
    """A layer that an export does not have."""

    exit_status = 2


class LicenseError(UserError):
    """A licence that no model hub can read."""

    exit_status = 2


class PoolError(UserError):
    """An unknown pooling."""

    exit_status = 2


def local_folder(path: str | os.PathLike) -> pathlib.Path:
    """Return the folder of an export; one at hf://USER/NAME is downloaded, see `lts.export.hub`."""
    return hub.download(os.fspath(path), EXPORT.names) if hub.is_address(path) else pathlib.Path(path)


def read_description(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of an export's config.json.

    Args:
      path: a folder, or hf://USER/NAME.

    Raises:
      ExportError: `path` is not an export of this project.
      HubError: a repository of the hub that is none, or cannot be downloaded.
    """
    path = local_folder(path)
    for name in FILES:
        if not (path / name).exists():
            raise ExportError(f"{path} is not an exported model: it has no {name}. {_advice(path)}")
    try:
        description = read_json(path / "config.json", DESCRIPTION)
        layer_geometry(description)
        return description
    except (OSError, KeyError, ValueError) as error:
        raise ExportError(f"{path} cannot be loaded as an exported model: {first_line(error)}") from None


def check_spot(path: str | os.PathLike, description: Mapping[str, Any]) -> None:
    """Raise `ExportError` if an export has no real/fake score.

    Args:
      path: of the export.
      description: content of its `config.json`.
    """
    if not description.get("spot", True):
        raise ExportError(f"{path} {NO_SPOT}")


def _advice(path: pathlib.Path) -> str:
    """Return what to give instead of a folder that is not an export."""
    if not path.exists():
        return "There is no such folder. Give the --output of export_features."
    if path.name in (*FILES, "variables"):
        return f"Give the folder that holds it, {path.parent}."
    if (path / "checkpoints").is_dir():
        return f"It is the folder of a training run. Export it first: export_features --workdir={path}"
    return "Export a run: lts.bin.export_features"


def layer_geometry(description: Mapping[str, Any]) -> list[LayerGeometry]:
    """Return the geometry of an export's layers, first to last."""
    if "layers" in description:
        return [LayerGeometry.from_dict(layer) for layer in description["layers"]]
    # Exports of the first version hold the configuration alone, of one of these two networks.
    config = Config.from_dict(description["config"])
    if description.get("network") == "encoder":
        return encoder_geometry(config.autoencoder)
    return alexnet_geometry(config.discriminator)


def backbone_name(description: Mapping[str, Any]) -> str:
    """Return the `backbone` of an export's configuration."""
    return Config.from_dict(description["config"]).discriminator.backbone


def default_layer(description: Mapping[str, Any]) -> str:
    """Return the layer of an export to take first; its config.json names it as `default_layer`."""
    layers = [layer.name for layer in layer_geometry(description)]
    return best_layer(layers, backbone_name(description), description.get("stage"))


def best_layer(layers: Sequence[str], backbone: str, stage: str | None) -> str:
    """Return the layer to take first.

    Args:
      layers: names, first to last.
      backbone: `backbone` of the configuration.
      stage: kind of training; None: random weights.
    """
    measured = backbone == "alexnet" and stage != "supervised"
    return BEST_LAYER if measured and BEST_LAYER in layers else layers[-1]


def choose_layers(description: Mapping[str, Any], requested: Sequence[str]) -> tuple[str, ...]:
    """Return the requested layers of an export.

    Args:
      description: content of `config.json`.
      requested: names of layers, or "all"; empty: the default layer.

    Raises:
      LayerError: no such layer, or one is repeated.
    """
    layers = tuple(layer.name for layer in layer_geometry(description))
    received = f"Received: layer={','.join(requested)}. Choose from {', '.join(layers)}, {ALL_LAYERS}."
    if not requested:
        return (default_layer(description),)
    if tuple(requested) == (ALL_LAYERS,):
        return layers
    if not set(requested) <= set(layers):
        raise LayerError(f"the export has no such layer. {received}")
    if len(set(requested)) < len(requested):
        raise LayerError(f"layer must name each layer once. {received}")
    return tuple(requested)


def check_pool(how: str) -> None:
    """Raise `PoolError` unless a pooling is known."""
    if not re.fullmatch(r"none|avg|max|grid:[1-9]\d*", how):
        raise PoolError(f"pool must be none, avg, max or grid:N, for example grid:3. Received: pool={how!r}")


def check_license(name: str | None) -> None:
    """Raise `LicenseError` unless a licence is written as the Hugging Face hub names licences; None is accepted."""
    # The hub's list grows, so only the form is checked here. It is also safe in the front matter of a model card.
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise LicenseError(
            "license must be an identifier of the Hugging Face hub, such as cc-by-4.0, apache-2.0 or other. "
            f"Received: license={name!r}"
        )


def check_formats(formats: Iterable[str]) -> None:
    """Raise `FormatError` unless all formats are available."""
    for name in formats:
        if name not in FORMATS:
            raise FormatError(f"formats must be of {', '.join(FORMATS)}. Received: formats={name!r}")
    for name in formats:
        for package in PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise FormatError(f"the format {name} needs the package {package}: pip install 'lts[{name}]'")
