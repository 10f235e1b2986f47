"""Geometry of the layers: strides, receptive fields, smallest images."""

import dataclasses

from lts.config import AutoencoderConfig, Config, DiscriminatorConfig

LAYERS = ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")  # of the backbone
KERNELS = (None, 5, 3, 3, 3)  # of conv_1 (from the configuration) to conv_5 (release)
POOLED = ("conv_1", "conv_2")  # a 3x3 max-pool of stride 2 follows them (release)


@dataclasses.dataclass(frozen=True)
class LayerGeometry:
    """Size, stride and receptive field of a layer.

    Attributes:
      name: of the layer.
      channels: of its map.
      stride: pixels between two neighbouring cells.
      receptive_field: side in pixels of the square that a cell sees.
      smallest: side in pixels of the smallest image that the layer accepts.
      parameters: number of trainable parameters.
      padding: "SAME" or "VALID", of conv_1 and the pools.
    """

    name: str
    channels: int
    stride: int
    receptive_field: int
    smallest: int
    parameters: int
    padding: str

    def cells(self, size: int) -> int:
        """Return the cells along a side of `size` pixels."""
        return -(-size // self.stride) if self.padding == "SAME" else (size - self.smallest) // self.stride + 1


def backbone_geometry(config: DiscriminatorConfig) -> list[LayerGeometry]:
    """Return the geometry of conv_1 to conv_5.

    In the release conv_5 has stride 16 and sees 163 pixels, and the five layers have 2,334,080 parameters.
    """
    layers = []
    channels_in = 3
    field = 1
    stride = config.conv_1_stride
    first_cells = 1  # cells along a side of conv_1's map that give one cell of the layer
    kernels = (config.conv_1_kernel, *KERNELS[1:])
    vectors = 2 if config.backbone_norm == "batch_norm" else 1  # gamma and beta; or beta or biases alone
    for name, channels, groups, kernel in zip(
        LAYERS, config.backbone_filters, config.backbone_groups, kernels, strict=True
    ):
        field += (kernel - 1) * (1 if name == "conv_1" else stride)  # conv_1 slides over pixels
        smallest = max(config.conv_1_kernel + (first_cells - 1) * config.conv_1_stride, stride)
        parameters = kernel * kernel * channels_in // groups * channels + vectors * channels
        layers.append(LayerGeometry(name, channels, stride, field, smallest, parameters, config.disc_padding))
        if name in POOLED:
            field += 2 * stride
            stride *= 2
            first_cells = 2 * first_cells + 1 if config.disc_padding == "VALID" else 1  # "SAME": any size gives one
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
    field = 1
    stride = 1
    for name, channels in zip(encoder_layer_names(config), config.encoder_filters, strict=True):
        first = name == "conv_1"
        kernel = 3 if first else config.encoder_kernel
        field += (kernel - 1) * stride
        stride *= 1 if first else 2
        parameters = kernel * kernel * channels_in * channels + 2 * channels
        layers.append(LayerGeometry(name, channels, stride, field, stride, parameters, "SAME"))
        channels_in = channels
    return layers


def geometry(config: Config, network: str = "backbone") -> list[LayerGeometry]:
    """Return the geometry of an exported network, "backbone" or "encoder"."""
    return encoder_geometry(config.autoencoder) if network == "encoder" else backbone_geometry(config.discriminator)
