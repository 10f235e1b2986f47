"""Encoder and decoder of the autoencoder {E, D} (paper section 3; release)."""

import keras

from lts.config import AutoencoderConfig
from lts.networks.geometry import LAYERS
from lts.networks.layers import ConvBlock, upsample_bilinear


def batch_norm_options(config: AutoencoderConfig) -> dict:
    """Arguments of blocks and networks that say how their batch norms work."""
    return {"bn_decay": config.bn_decay, "bn_epsilon": config.bn_epsilon, "bn_statistics": config.batch_norm}


@keras.saving.register_keras_serializable("lts")
class Encoder(keras.Model):
    """The encoder E: images to local features (paper section 3; release).

    A 3x3 stride-1 layer, then 2x2 stride-2 layers, all with batch norm and leaky
    ReLU. With the release's widths an [8, 96, 96, 3] batch becomes
    [8, 6, 6, 512], and a cell sees only 18 x 18 pixels.

    Args:
      config: widths, kernel, batch norm constants.
    """

    def __init__(self, config: AutoencoderConfig, name="encoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        options = {
            **batch_norm_options(config),
            "norm": "scale",
            "activation": "leaky_relu",
            "dtype": self.dtype_policy,
        }
        first, *others = config.encoder_filters
        self.blocks = [ConvBlock(first, 3, name="conv_0", **options)]
        for index, width in enumerate(others, 1):
            self.blocks.append(ConvBlock(width, config.encoder_kernel, 2, name=f"conv_{index}", **options))

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
            input_shape = block.compute_output_shape(input_shape)

    def call(self, images, training=False):
        """Features [B, h, w, widths[-1]] of images [B, H, W, 3] in [-1, 1]; h = H / 2 ** num_strides."""
        return self._forward(images, training)[-1]

    def endpoints(self, images, training=False, last=None) -> dict:
        """Activations of the layers by the names of the backbone's, conv_1 for the first, up to `last`: export alone."""
        count = LAYERS.index(last) + 1 if last else len(self.blocks)
        return dict(zip(LAYERS, self._forward(images, training, count), strict=False))

    def _forward(self, images, training, count=None) -> list:
        outputs = [images]
        for block in self.blocks[:count]:
            outputs.append(block(outputs[-1], training=training))
        return outputs[1:]

    def get_config(self):
        return {**super().get_config(), "config": vars(self.config)}

    @classmethod
    def from_config(cls, config):
        return cls(AutoencoderConfig(**_tuples(config.pop("config"))), **config)


@keras.saving.register_keras_serializable("lts")
class Decoder(keras.Model):
    """The decoder D: features to images (paper section 3; release).

    Pipeline of bilinear x2 and 3x3 convolution (batch norm, leaky ReLU), then a
    3x3 convolution with tanh. With the release's widths [8, 6, 6, 512] becomes
    [8, 96, 96, 3]. The stages are public, because the repair network works
    between them: `RepairNetwork` calls `stage(i, x)` and `output(x)`.

    Args:
      config: widths, batch norm constants.
    """

    def __init__(self, config: AutoencoderConfig, name="decoder", **kwargs):
        super().__init__(name=name, **kwargs)
        self.config = config
        options = {**batch_norm_options(config), "dtype": self.dtype_policy}
        self.blocks = [
            ConvBlock(width, 3, norm="scale", activation="leaky_relu", name=f"deconv_{index}", **options)
            for index, width in enumerate(config.decoder_filters)
        ]
        self.to_image = ConvBlock(3, 3, activation="tanh", name="to_image", **options)

    def build(self, input_shape):
        batch, height, width, _ = input_shape
        for block in self.blocks:
            block.build(input_shape)
            height, width = height and 2 * height, width and 2 * width
            input_shape = (batch, height, width, block.filters)
        self.to_image.build(input_shape)

    @property
    def num_stages(self) -> int:
        """Number of upsampling stages."""
        return len(self.blocks)

    def stage(self, index: int, x, training=False):
        """Stage `index`: [B, h, w, c] to [B, 2h, 2w, widths[index]]."""
        return self.blocks[index](upsample_bilinear(x), training=training)

    def output_image(self, x, training=False):
        """Image [B, H, W, 3] in (-1, 1) of the last stage's output [B, H, W, widths[-1]]."""
        return self.to_image(x, training=training)

    def call(self, features, training=False):
        """Images [B, H, W, 3] in (-1, 1) of features [B, h, w, c]; H = h * 2 ** num_stages."""
        x = features
        for index in range(self.num_stages):
            x = self.stage(index, x, training)
        return self.output_image(x, training)

    def get_config(self):
        return {**super().get_config(), "config": vars(self.config)}

    @classmethod
    def from_config(cls, config):
        return cls(AutoencoderConfig(**_tuples(config.pop("config"))), **config)


def _tuples(values: dict) -> dict:
    """JSON turns tuples into lists; the configuration dataclasses hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
