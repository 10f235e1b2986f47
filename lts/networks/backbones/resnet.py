"""ResNet-18 (He et al., 2016) for small images (this project)."""

import keras
import tensorflow as tf

from lts.networks.backbones.base import Backbone
from lts.networks.config_mixin import ConfigMixin
from lts.networks.geometry import LayerGeometry, Window, smallest_side
from lts.networks.layers import RELEASE_BATCH_NORM, BatchNormConfig, ConvBlock

FILTERS = (64, 64, 128, 256, 512)  # of conv_1 to conv_5 (He et al.)
STRIDES = (1, 2, 2, 2)  # of the first block of conv_2 to conv_5
BLOCKS = 2  # residual blocks of each of conv_2 to conv_5
HE_NORMAL = {"kernel_initializer": "he_normal", "norm": "scale"}


@keras.saving.register_keras_serializable("lts")
class ResidualBlock(ConfigMixin, keras.layers.Layer):
    """Two 3x3 convolutions with a shortcut around them (He et al., 2016).

    The shortcut is a 1x1 convolution where the shape changes, and the identity otherwise.

    Shapes: a block of 128 filters and stride 2 maps [8, 16, 16, 64] to [8, 8, 8, 128].

    Args:
      filters: output channels.
      stride: of the first convolution.
      bn_config: settings of the batch norms.
    """

    def __init__(self, filters: int, stride: int = 1, bn_config: BatchNormConfig = RELEASE_BATCH_NORM, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.bn_config = bn_config
        options = {"bn_config": bn_config, "dtype": self.dtype_policy, **HE_NORMAL}
        self.conv_a = ConvBlock(filters, 3, stride, activation="relu", name="conv_a", **options)
        self.conv_b = ConvBlock(filters, 3, name="conv_b", **options)
        self.shortcut = ConvBlock(filters, 1, name="shortcut", **options)
        self.projects = True

    def build(self, input_shape):
        self.projects = self.stride > 1 or input_shape[-1] != self.filters
        self.conv_a.build(input_shape)
        self.conv_b.build((*input_shape[:-1], self.filters))
        if self.projects:
            self.shortcut.build(input_shape)

    def call(self, x, training=False):
        """Map [B, h, w, channels] to [B, h / stride, w / stride, filters]."""
        shortcut = x
        if self.projects:
            # NB: not a strided 1x1 convolution: the gradient of its kernel corrupts the heap on CPUs (TensorFlow 2.21,
            # for example [1, 160, 160, 6] to 13 channels). Skipping cells first is the same map.
            shortcut = self.shortcut(x[:, :: self.stride, :: self.stride], training=training)
        residual = self.conv_b(self.conv_a(x, training=training), training=training)
        return tf.nn.relu(shortcut + residual)


@keras.saving.register_keras_serializable("lts")
class ResNet18(Backbone):
    """ResNet-18 with a stem for small images.

    conv_1 is the stem, a convolution of `conv_1_kernel` and `conv_1_stride` without a pool. conv_2 to conv_5 are two
    residual blocks each, and halve the map from conv_3 on. `--conv_1_kernel=3 --conv_1_stride=1` is the usual stem for
    CIFAR; conv_5 then has stride 8. A stride of 2 suits STL-10 at 96 pixels.

    Shapes: images [8, 64, 64, 3] give with the stem for CIFAR

        conv_1 [8, 64, 64, 64]    conv_3 [8, 32, 32, 128]   conv_5 [8, 8, 8, 512]
        conv_2 [8, 64, 64, 64]    conv_4 [8, 16, 16, 256]

    Args:
      config: first convolution, and `resnet_width`, a factor on the filters.
      last: the last layer to build; None: conv_5.
      bn_config: settings of the batch norms.
    """

    def _make_layers(self) -> None:
        config = self.config
        options = {"bn_config": self.bn_config, "dtype": self.dtype_policy}
        filters, *stage_filters = self._filters()
        stem = {"activation": "relu", "name": "conv_1", **options, **HE_NORMAL}
        self.stem = ConvBlock(filters, config.conv_1_kernel, config.conv_1_stride, **stem)
        self.blocks = []
        for name, filters, stride in zip(self.layer_names[1:], stage_filters, STRIDES, strict=False):
            for index in range(BLOCKS):
                block_stride = 1 if index else stride
                self.blocks.append(ResidualBlock(filters, block_stride, name=f"{name}_{index}", **options))

    @property
    def groups(self):
        """The stem, then two residual blocks for each layer."""
        pairs = [self.blocks[first : first + BLOCKS] for first in range(0, len(self.blocks), BLOCKS)]
        return [[self.stem], *pairs]

    def _filters(self) -> list[int]:
        """Return the filters of conv_1 to conv_5."""
        return [max(1, round(filters * self.config.resnet_width)) for filters in FILTERS]

    def build(self, input_shape):
        for layer in (self.stem, *self.blocks):
            layer.build(input_shape)
            input_shape = (*input_shape[:-1], layer.filters)

    def geometry(self) -> list[LayerGeometry]:
        """Return the geometry of conv_1 to conv_5."""
        config = self.config
        windows = (Window(config.conv_1_kernel, config.conv_1_stride),)
        channels, *stage_filters = self._filters()
        parameters = config.conv_1_kernel**2 * 3 * channels + 2 * channels
        layers = [LayerGeometry("conv_1", channels, windows, parameters, smallest_side(windows))]
        for number, filters, stride in zip(range(2, 6), stage_filters, STRIDES, strict=True):
            parameters = 0
            for index in range(BLOCKS):
                block_stride = 1 if index else stride
                windows = (*windows, Window(3, block_stride), Window(3))
                parameters += 9 * (channels + filters) * filters + 4 * filters
                if block_stride > 1 or channels != filters:
                    parameters += channels * filters + 2 * filters
                channels = filters
            layers.append(LayerGeometry(f"conv_{number}", channels, windows, parameters, smallest_side(windows)))
        return layers

    def endpoints(self, images, training=False, last=None):
        """Return the activations of conv_1 to `last`, see `Backbone.endpoints`."""
        last = last or self.layer_names[-1]
        x = images
        endpoints = {}
        for name, group in zip(self.layer_names, self.groups, strict=True):
            for layer in group:
                x = layer(x, training=training and layer.trainable)
            endpoints[name] = x
            if name == last:
                break
        return endpoints
