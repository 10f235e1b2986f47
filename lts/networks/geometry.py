"""Geometry of layers: strides, receptive fields, smallest images. Imports no TensorFlow."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lts.config import AutoencoderConfig, DiscriminatorConfig
from lts.config.windows import Window, alexnet_windows


@dataclasses.dataclass(frozen=True)
class LayerGeometry:
    """Size, stride and receptive field of a layer.

    Attributes:
      name: of the layer.
      channels: of its map.
      windows: the convolutions and pools from the image to the layer; of parallel paths the one that sees most.
      parameters: number of trainable parameters since the layer before.
      smallest: side in pixels of the smallest image that the layer accepts.
    """

    name: str
    channels: int
    windows: tuple[Window, ...]
    parameters: int
    smallest: int

    @property
    def stride(self) -> int:
        """Pixels between two neighbouring cells."""
        stride = 1
        for window in self.windows:
            stride *= window.stride
        return stride

    @property
    def receptive_field(self) -> int:
        """Side in pixels of the square that a cell sees."""
        field = 1
        stride = 1
        for window in self.windows:
            field += (window.kernel - 1) * stride
            stride *= window.stride
        return field

    def cells(self, size: int) -> int:
        """Return the cells along a side of `size` pixels."""
        for window in self.windows:
            size = window.cells(size)
        return size

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LayerGeometry":
        """Return the geometry in a parsed config.json."""
        windows = tuple(Window(**window) for window in values["windows"])
        return cls(**{**values, "windows": windows})


def smallest_side(windows: Sequence[Window]) -> int:
    """Return the pixels per side that give one cell; at least the stride."""
    side = 1
    stride = 1
    for window in reversed(windows):
        side = window.smallest(side)
        stride *= window.stride
    return max(side, stride)


def alexnet_geometry(config: DiscriminatorConfig) -> list[LayerGeometry]:
    """Return the geometry of conv_1 to conv_5 of AlexNet.

    In the release conv_5 has stride 16 and sees 163 pixels, and the five layers have 2,334,080 parameters.
    """
    layers = []
    channels_in = 3
    vectors = 2 if config.backbone_norm == "batch_norm" else 1  # gamma and beta; or beta or biases alone
    windows_by_layer = alexnet_windows(config)
    for (name, windows), channels, groups in zip(
        windows_by_layer.items(), config.backbone_filters, config.backbone_groups, strict=True
    ):
        kernel = windows[-1].kernel
        parameters = kernel * kernel * channels_in // groups * channels + vectors * channels
        smallest = max(config.conv_1_kernel, smallest_side(windows))
        layers.append(LayerGeometry(name, channels, windows, parameters, smallest))
        channels_in = channels
    return layers


def encoder_layer_names(config: AutoencoderConfig) -> tuple[str, ...]:
    """Return conv_1, conv_2, ...: one name for each layer."""
    return tuple(f"conv_{number}" for number in range(1, len(config.encoder_filters) + 1))


def encoder_geometry(config: AutoencoderConfig) -> list[LayerGeometry]:
    """Return the geometry of the encoder's layers.

    In the release the fifth layer has stride 16 and sees 18 pixels.
    """
    layers = []
    channels_in = 3
    windows = ()
    for name, channels in zip(encoder_layer_names(config), config.encoder_filters, strict=True):
        window = Window(config.encoder_kernel, stride=2) if windows else Window(3)
        windows = (*windows, window)
        parameters = window.kernel**2 * channels_in * channels + 2 * channels
        layers.append(LayerGeometry(name, channels, windows, parameters, smallest_side(windows)))
        channels_in = channels
    return layers
