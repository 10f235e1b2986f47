"""Encoder E and decoder D (paper section 3; release)."""

import keras

from lts.config import AutoencoderConfig
from lts.networks.config_mixin import ConfigMixin
from lts.networks.geometry import LayerGeometry, encoder_geometry, encoder_layer_names
from lts.networks.layers import BatchNormConfig, ConvBlock, upsample_bilinear


def batch_norm_config(config: AutoencoderConfig) -> BatchNormConfig:
    """Return the batch norm settings of all networks."""
    return BatchNormConfig(config.bn_decay, config.bn_epsilon, config.batch_norm)


@keras.saving.register_keras_serializable("lts")
class Encoder(ConfigMixin, keras.Model):
    """Encoder E of the paper.

    A 3x3 stride-1 convolution, then 2x2 stride-2 convolutions, all with batch norm and leaky ReLU (release). The small
    kernels keep the features local: a cell sees 18 x 18 pixels.

    Shapes: images [8, 96, 96, 3] give features [8, 6, 6, 512] in the release.

    Args:
      config: filters, kernel and batch norm settings.
    """

    def __init__(self, config: AutoencoderConfig, name="encoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.layer_names = encoder_layer_names(config)
        self.blocks = []
        for index, filters in enumerate(config.encoder_filters):
            block = ConvBlock(
                filters,
                kernel_size=config.encoder_kernel if index else 3,
                stride=2 if index else 1,
                norm="scale",
                activation="leaky_relu",
                bn_config=batch_norm_config(config),
                name=f"conv_{index}",  # the release counts the encoder's layers from 0
                dtype=self.dtype_policy,
            )
            self.blocks.append(block)

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
            input_shape = (None, None, None, block.filters)

    def call(self, images, training=False):
        """Return the features phi of images in [-1, 1]."""
        return self.endpoints(images, training)[self.layer_names[-1]]

    def geometry(self) -> list[LayerGeometry]:
        """Return the geometry of the layers, first to last."""
        return encoder_geometry(self.config)

    def endpoints(self, images, training=False, last=None) -> dict:
        """Return the activations of the layers up to `last`, for export."""
        count = self.layer_names.index(last) + 1 if last else len(self.blocks)
        x = images
        endpoints = {}
        for name, block in zip(self.layer_names[:count], self.blocks[:count], strict=True):
            x = block(x, training=training)
            endpoints[name] = x
        return endpoints


@keras.saving.register_keras_serializable("lts")
class Decoder(ConfigMixin, keras.Model):
    """Decoder D of the paper.

    Upsampling blocks of bilinear x2 and a 3x3 convolution (batch norm, leaky ReLU), then a 3x3 convolution with tanh
    (release). The repair network works between the blocks: it calls `upsample(index, x)` and `output_image(x)`.

    Shapes: features [8, 6, 6, 512] give images [8, 96, 96, 3] in the release.

    Args:
      config: filters and batch norm settings.
    """

    def __init__(self, config: AutoencoderConfig, name="decoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        self.blocks = []
        options = {"bn_config": batch_norm_config(config), "dtype": self.dtype_policy}
        for index, filters in enumerate(config.decoder_filters):
            block = ConvBlock(filters, 3, norm="scale", activation="leaky_relu", name=f"deconv_{index}", **options)
            self.blocks.append(block)
        self.to_image = ConvBlock(3, 3, activation="tanh", name="to_image", **options)

    def build(self, input_shape):
        for block in [*self.blocks, self.to_image]:
            block.build(input_shape)
            input_shape = (None, None, None, block.filters)

    def upsample(self, index: int, x, training=False):
        """Run an upsampling block: it doubles height and width."""
        return self.blocks[index](upsample_bilinear(x), training=training)

    def output_image(self, x, training=False):
        """Map the last block's output to an image."""
        return self.to_image(x, training=training)

    def call(self, features, training=False):
        """Return the images in (-1, 1) of features."""
        x = features
        for index in range(len(self.blocks)):
            x = self.upsample(index, x, training)
        return self.output_image(x, training)
