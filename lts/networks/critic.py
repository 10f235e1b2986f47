"""Critic of inpainted patches, with spectral normalisation (Miyato et al., 2018)."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from lts.networks.config_mixin import ConfigMixin
from lts.networks.layers import ACTIVATIONS, FLOAT32


@keras.saving.register_keras_serializable("lts")
class SpectralConv(ConfigMixin, keras.layers.Layer):
    """Convolution whose kernel is divided by its largest singular value.

    One step of the power method per training step estimates the value. The kernel is taken as a matrix of inputs and
    filters (LCI release).

    Shapes: a 4x4 stride-2 layer of 32 filters maps [8, 48, 48, 16] to [8, 24, 24, 32].

    Args:
      filters: output channels.
      kernel_size: kernel height and width.
      stride: of the convolution.
      activation: a key of `ACTIVATIONS`.
    """

    def __init__(self, filters: int, kernel_size: int, stride: int = 1, activation: str = "leaky_relu", **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape, "glorot_uniform", name="kernel", **FLOAT32)
        self.bias = self.add_weight((self.filters,), "zeros", name="bias", **FLOAT32)
        options = {"trainable": False, "aggregation": "only_first_replica", **FLOAT32}
        self.direction = self.add_weight((self.filters,), "random_normal", name="direction", **options)

    def normalized_kernel(self, training):
        """Return the kernel over its largest singular value; training moves the estimate."""
        matrix = tf.reshape(tf.convert_to_tensor(self.kernel), [-1, self.filters])
        fixed = tf.stop_gradient(matrix)
        inputs = tf.math.l2_normalize(tf.linalg.matvec(fixed, tf.convert_to_tensor(self.direction)))
        direction = tf.math.l2_normalize(tf.linalg.matvec(fixed, inputs, transpose_a=True))
        if training:
            self.direction.assign(direction)
        singular_value = tf.tensordot(inputs, tf.linalg.matvec(matrix, direction), 1)
        return tf.convert_to_tensor(self.kernel) / singular_value

    def call(self, x, training=False):
        """Map [B, h, w, channels] to [B, h', w', filters]."""
        kernel = self.normalized_kernel(training)
        y = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), self.stride, "SAME")
        return ACTIVATIONS[self.activation](tf.nn.bias_add(y, tf.cast(self.bias, x.dtype)))


@keras.saving.register_keras_serializable("lts")
class PatchCritic(ConfigMixin, keras.Model):
    """Critic that scores whole patches.

    A 3x3 and a 4x4 stride-2 convolution for each entry of `filters` but the last, a 3x3 convolution, the sum over the
    map, and a linear layer, all with spectral normalisation (LCI release). The release scores pairs of patches; this
    critic scores single ones, so that a score depends on no other image of the batch (ours).

    Shapes: patches [8, 48, 48, 3] give scores [8].

    Args:
      filters: of the layers.
    """

    def __init__(self, filters: Sequence[int], name="critic", **kwargs):
        super().__init__(name=name, **kwargs)
        self.filters = tuple(filters)
        dtype = self.dtype_policy
        self.convs = []
        for index, channels in enumerate(self.filters[:-1]):
            self.convs.append(SpectralConv(channels, 3, name=f"conv_{index}_0", dtype=dtype))
            self.convs.append(SpectralConv(channels, 4, stride=2, name=f"conv_{index}_1", dtype=dtype))
        self.convs.append(SpectralConv(self.filters[-1], 3, name="conv_last", dtype=dtype))
        self.score = SpectralConv(1, 1, activation="linear", name="score", dtype="float32")

    def build(self, input_shape):
        for conv in [*self.convs, self.score]:
            conv.build(input_shape)
            input_shape = (None, None, None, conv.filters)

    def call(self, patches, training=False):
        """Return the scores [B], float32: high for real patches."""
        x = patches
        for conv in self.convs:
            x = conv(x, training=training)
        x = tf.reduce_sum(tf.cast(x, tf.float32), [1, 2], keepdims=True)
        return tf.reshape(self.score(x, training=training), [-1])
