"""Where the layers of a feature network look: strides, receptive fields, smallest images."""

import dataclasses

from lts.config import AutoencoderConfig, Config, DiscriminatorConfig

LAYERS = ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5")
KERNELS = (None, 5, 3, 3, 3)  # of conv_1 (from the configuration) to conv_5 (release)
POOLED = ("conv_1", "conv_2")  # a 3x3 max-pool of stride 2 stands behind them (release)


@dataclasses.dataclass(frozen=True)
class LayerGeometry:
    """Where a layer of the backbone looks, and how large it is.

    Attributes:
      name: of the layer.
      channels: of its map.
      stride: pixels between two neighbouring cells.
      receptive_field: pixels a side that a cell sees.
      smallest: pixels a side of the smallest image that it takes.
      parameters: trainable ones.
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
        """Cells of its map along a side of `size` pixels."""
        return -(-size // self.stride) if self.padding == "SAME" else (size - self.smallest) // self.stride + 1


def backbone_geometry(config: DiscriminatorConfig) -> list[LayerGeometry]:
    """Conv_1 to conv_5: in the release conv_5 has stride 16 and sees 163 pixels, and all have 2,334,080 parameters."""
    layers, inputs, field, stride = [], 3, 1, config.conv_1_stride
    needed = 1  # cells along a side of conv_1's map that make one of this layer
    kernels = (config.conv_1_kernel, *KERNELS[1:])
    for name, width, groups, kernel in zip(
        LAYERS, config.backbone_filters, config.backbone_groups, kernels, strict=True
    ):
        field += (kernel - 1) * (1 if name == "conv_1" else stride)
        smallest = max(config.conv_1_kernel + (needed - 1) * config.conv_1_stride, stride)
        vectors = 2 if config.backbone_norm == "batch_norm" else 1  # gamma and beta; or biases or beta
        parameters = kernel * kernel * inputs // groups * width + vectors * width
        layers.append(LayerGeometry(name, width, stride, field, smallest, parameters, config.disc_padding))
        if name in POOLED:
            field += 2 * stride
            stride *= 2
            needed = 2 * needed + 1 if config.disc_padding == "VALID" else 1
        inputs = width
    return layers


def encoder_geometry(config: AutoencoderConfig) -> list[LayerGeometry]:
    """The encoder's layers, named as the backbone's: in the release the fifth has stride 16 and sees 18 pixels."""
    layers, inputs, field, stride = [], 3, 1, 1
    for index, (name, width) in enumerate(zip(LAYERS, config.encoder_filters, strict=False)):
        kernel = config.encoder_kernel if index else 3
        field += (kernel - 1) * stride
        stride *= 2 if index else 1
        parameters = kernel * kernel * inputs * width + 2 * width
        layers.append(LayerGeometry(name, width, stride, field, stride, parameters, "SAME"))
        inputs = width
    return layers


def geometry(config: Config, network: str = "backbone") -> list[LayerGeometry]:
    """The layers of an exported network, "backbone" or "encoder"."""
    return encoder_geometry(config.autoencoder) if network == "encoder" else backbone_geometry(config.discriminator)
