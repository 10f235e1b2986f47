"""Building blocks of all networks.

Everything is NHWC with TensorFlow's "SAME" padding: the extra pixel goes to the bottom and right (BUILD_NOTES trap 10).
Variables are float32. Under a bfloat16 policy the activations are bfloat16 and every statistic stays float32.
"""

import dataclasses

import keras
import tensorflow as tf

from lts.networks.config_mixin import ConfigMixin
from lts.networks.convolutions import convolution, trained_convolution

HE_FACTOR = 2.6  # 1.3 * 2 (release)
LEAK = 0.2  # slope of every leaky ReLU (release)


@dataclasses.dataclass(frozen=True)
class BatchNormConfig:
    """Settings of the batch norms of a network.

    Attributes:
      decay: moving -= (1 - decay) * (moving - batch).
      epsilon: added to the variance.
      statistics: what a batch is under a tf.distribute strategy. "global" (this project): the images of all replicas.
        "per_replica" (release): those of one replica; the moving averages take the mean over the replicas.
    """

    decay: float = 0.975
    epsilon: float = 1e-3
    statistics: str = "global"


RELEASE_BATCH_NORM = BatchNormConfig()
GLOROT = {"kernel_initializer": "glorot_uniform", "bias_value": 0.1}  # all layers of the discriminator (release)
FLOAT32 = {"dtype": "float32", "autocast": False}  # of variables, under every precision policy


@tf.custom_gradient
def leaky_relu(x):
    """Leaky ReLU with the release's slope."""
    # NB: the gradient takes the output, which has the input's sign. TensorFlow's own gradient takes the input; with it
    # Grappler's remapper fails on the whole training step ("fanout ... exist for missing node") and fuses nothing.
    y = tf.nn.leaky_relu(x, LEAK)
    return y, lambda upstream: tf.raw_ops.LeakyReluGrad(gradients=upstream, features=y, alpha=LEAK)


ACTIVATIONS = {"linear": tf.identity, "relu": tf.nn.relu, "leaky_relu": leaky_relu, "tanh": tf.nn.tanh}


@keras.saving.register_keras_serializable("lts")
class ScaledTruncatedNormal(keras.initializers.Initializer):
    """Initializer of autoencoder and repair network.

    A normal distribution with standard deviation sqrt(2.6 / mean of fan in and fan out), cut at two of them (release;
    BUILD_NOTES trap 8). Keras' `VarianceScaling` corrects the deviation for the cut and differs by 0.3 %.
    """

    def __call__(self, shape, dtype=None):
        *receptive, fan_in, fan_out = shape
        cells = 1
        for size in receptive:
            cells *= size
        mean_fan = cells * (fan_in + fan_out) / 2
        stddev = (HE_FACTOR / mean_fan) ** 0.5
        return keras.initializers.TruncatedNormal(stddev=stddev)(shape, dtype)


@keras.saving.register_keras_serializable("lts")
class BatchNorm(ConfigMixin, keras.layers.Layer):
    """Batch norm with the release's moving averages.

    Training normalises with the biased batch variance. The moving variance takes the unbiased one, N / (N - 1) times as
    large, where Keras' own layer takes the biased one (release; BUILD_NOTES trap 7).

    Args:
      scale: whether there is a gamma. The batch norms of the discriminator have none (release).
      decay, epsilon, statistics: see `BatchNormConfig`.
    """

    def __init__(
        self, scale: bool = True, decay: float = 0.975, epsilon: float = 1e-3, statistics: str = "global", **kwargs
    ):
        super().__init__(**kwargs)
        if statistics not in ("global", "per_replica"):
            raise ValueError(f"statistics must be 'global' or 'per_replica'. Received: statistics={statistics!r}")
        self.scale = scale
        self.decay = decay
        self.epsilon = epsilon
        self.statistics = statistics

    def build(self, input_shape):
        options = {"shape": (input_shape[-1],), "aggregation": "mean", **FLOAT32}
        self.gamma = self.add_weight(initializer="ones", name="gamma", **options) if self.scale else None
        self.beta = self.add_weight(initializer="zeros", name="beta", **options)
        self.moving_mean = self.add_weight(initializer="zeros", trainable=False, name="moving_mean", **options)
        self.moving_variance = self.add_weight(initializer="ones", trainable=False, name="moving_variance", **options)

    def affine(self):
        """Return scale and shift of inference, float32 [channels]."""
        scale = tf.math.rsqrt(self.moving_variance + self.epsilon)
        if self.scale:
            scale = scale * self.gamma
        shift = self.beta - self.moving_mean * scale
        return scale, shift

    def call(self, x, training=False):
        """Normalise; in training mode the moving averages move."""
        if not training:
            scale, shift = self.affine()
            return x * tf.cast(scale, x.dtype) + tf.cast(shift, x.dtype)

        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(self.beta)
        context = tf.distribute.get_replica_context()
        if self.statistics == "global" and context is not None and context.num_replicas_in_sync > 1:
            y, mean, variance = self._normalize_globally(x, gamma, context)
        else:
            # The operation normalises with the biased variance and returns the unbiased one.
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=gamma,
                offset=tf.convert_to_tensor(self.beta),
                mean=tf.zeros([0], tf.float32),
                variance=tf.zeros([0], tf.float32),
                epsilon=self.epsilon,
                is_training=True,
            )
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return y

    def _move(self, moving, batch) -> None:
        """Move an average towards the batch's statistic."""
        moving.assign_sub((1 - self.decay) * (moving - tf.stop_gradient(batch)))

    def _normalize_globally(self, x, gamma, context):
        """Normalise with the statistics of all replicas' batches together."""
        replicas = context.num_replicas_in_sync
        wide = tf.cast(x, tf.float32)  # statistics are float32 under every policy

        # Gather [replicas, 2, channels]: mean and variance of every replica.
        replica_moments = tf.stack(tf.nn.moments(wide, [0, 1, 2]))
        replica_row = tf.one_hot(context.replica_id_in_sync_group, replicas)[:, None, None]
        moments = context.all_reduce(tf.distribute.ReduceOp.SUM, replica_row * replica_moments)
        means, variances = tf.unstack(moments, axis=1)

        # The variance of the means is added: E[x^2] - E[x]^2 would be a difference of large numbers and lose digits.
        mean = tf.reduce_mean(means, 0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), 0)
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        y = tf.cast(wide * scale + (self.beta - mean * scale), x.dtype)

        count = tf.cast(tf.size(x) // x.shape[-1] * replicas, tf.float32)
        unbiased_variance = variance * count / (count - 1)
        return y, mean, unbiased_variance


@keras.saving.register_keras_serializable("lts")
class ConvBlock(ConfigMixin, keras.layers.Layer):
    """Convolution, batch norm or biases, activation.

    The order is the release's; a block with batch norm has no biases (BUILD_NOTES trap 7).

    Shapes: a 2x2 stride-2 block of 64 filters maps [8, 96, 96, 32] to [8, 48, 48, 64].

    Args:
      filters: output channels.
      kernel_size: kernel height and width.
      stride: of the convolution.
      padding: "SAME" or "VALID".
      norm: None (biases), "scale" (batch norm with gamma and beta) or "shift" (batch norm with beta alone).
      activation: a key of `ACTIVATIONS`.
      kernel_initializer: Keras initializer.
      bias_value: initial value of the biases.
      bn_config: settings of the batch norm.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        stride: int = 1,
        padding: str = "SAME",
        norm: str | None = None,
        activation: str = "linear",
        kernel_initializer="lts>ScaledTruncatedNormal",
        bias_value: float = 0.0,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if norm not in (None, "scale", "shift"):
            raise ValueError(f"norm must be None, 'scale' or 'shift'. Received: norm={norm!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}. Received: activation={activation!r}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.norm = norm
        self.activation = activation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_value = bias_value
        self.bn_config = bn_config
        self.batch_norm = None
        if norm:
            options = dataclasses.asdict(bn_config)
            self.batch_norm = BatchNorm(norm == "scale", name="batch_norm", dtype=self.dtype_policy, **options)

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape, self.kernel_initializer, name="kernel", **FLOAT32)
        self.bias = None
        if self.batch_norm is None:
            initializer = keras.initializers.Constant(self.bias_value)
            self.bias = self.add_weight((self.filters,), initializer, name="bias", **FLOAT32)
        else:
            self.batch_norm.build((None, None, None, self.filters))

    def call(self, x, training=False, constant=None):
        """Map [B, h, w, channels] to [B, h', w', filters].

        Args:
          x: [B, h, w, channels].
          training: batch norm mode.
          constant: further input channels [B, h, w, n] after those of x, which need no gradient.
        """
        kernel = tf.convert_to_tensor(self.kernel)
        shift = self.bias
        # In inference batch norm is folded into the kernel. That costs a product of the kernel's size in each step,
        # saves a pass over the activations, and needs no state that could be out of date.
        if self.batch_norm is not None and not training:
            scale, shift = self.batch_norm.affine()
            kernel = kernel * scale
        kernel = tf.cast(kernel, x.dtype)
        if training:
            y = trained_convolution(x, kernel, self.stride, self.padding, constant)
        else:
            y = convolution(_join(x, constant), kernel, self.stride, self.padding)
        # In training a block with batch norm has no shift yet.
        y = self.batch_norm(y, training=True) if shift is None else tf.nn.bias_add(y, tf.cast(shift, x.dtype))
        return ACTIVATIONS[self.activation](y)

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer}


def _join(x, constant):
    return x if constant is None else tf.concat([x, constant], -1)


@keras.saving.register_keras_serializable("lts")
class GroupedConvBlock(ConfigMixin, keras.layers.Layer):
    """Grouped convolution: a `ConvBlock` for each group.

    The input channels are split in equal parts and the outputs are joined (release: conv_2, conv_4 and conv_5). The
    parts are the layers conv_0, conv_1, ..., as in the release's checkpoints (BUILD_NOTES trap 16).

    Args:
      filters: output channels of all groups together.
      kernel_size: kernel height and width.
      groups: number of parts.
      bn_config: settings of the batch norms.
      **options: further arguments of `ConvBlock`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        groups: int = 2,
        bn_config: BatchNormConfig = RELEASE_BATCH_NORM,
        name=None,
        dtype=None,
        **options,
    ):
        super().__init__(name=name, dtype=dtype)
        self.filters = filters
        self.kernel_size = kernel_size
        self.groups = groups
        self.bn_config = bn_config
        self.options = options
        # Keras' `groups=` takes a slow path on CPUs (571 ms instead of 72 for a 5x5 kernel) and cannot go to ONNX.
        self.blocks = []
        shared = {"bn_config": bn_config, "dtype": self.dtype_policy, **options}
        for index in range(groups):
            self.blocks.append(ConvBlock(filters // groups, kernel_size, name=f"conv_{index}", **shared))

    def build(self, input_shape):
        *outer, channels = input_shape
        for block in self.blocks:
            block.build((*outer, channels // self.groups))

    def call(self, x, training=False):
        """Map [B, h, w, channels] to [B, h', w', filters]."""
        parts = tf.split(x, self.groups, axis=-1)  # neighbouring channels form a group
        outputs = [block(part, training=training) for block, part in zip(self.blocks, parts, strict=True)]
        return tf.concat(outputs, -1)

    def get_config(self):
        return {**super().get_config(), **self.options}


def local_response_norm(x):
    """Normalise by the squares of neighbouring channels.

    AlexNet's local response norm: x / (1 + 2e-5 * sum of x ** 2 over the 5 nearest channels) ** 0.75. The factor is not
    divided by the size of the window (release; BUILD_NOTES trap 9).
    """
    # A product with a banded matrix sums the window. It is faster than TensorFlow's own operation, its gradient too.
    # NB: squares of more than 256 are infinite in float16, and would make a cell and its neighbours zero.
    dtype = x.dtype
    x = tf.cast(x, tf.float32) if dtype == tf.float16 else x
    channels = x.shape[-1]
    reach = min(2, channels - 1)
    band = tf.linalg.band_part(tf.ones([channels, channels], x.dtype), reach, reach)
    sums = tf.nn.conv2d(tf.square(x), band[None, None], 1, "SAME")
    root = tf.math.rsqrt(1.0 + 2e-5 * sums)  # ** -1/2
    return tf.cast(x * root * tf.sqrt(root), dtype)  # ** -3/4


def max_pool(x, padding: str = "SAME"):
    """Pool 3x3 cells with stride 2 (AlexNet)."""
    return tf.nn.max_pool2d(x, 3, 2, padding)


def upsample_bilinear(x):
    """Double height and width bilinearly.

    The release's legacy resize, without half-pixel centres: output 2i is input i, output 2i + 1 is the mean of the
    inputs i and i + 1, and the last input is repeated. `tf.image.resize` is a different map (BUILD_NOTES trap 6).
    """
    # Doubling is a product with a sparse matrix for each axis, because the gradient is then a product too. Upsampling
    # and convolution of [16, 48, 48, 64], forward and backward in ms on a CPU, float32 | bfloat16:
    # matrix 95 | 22, TensorFlow's ResizeBilinear 91 | 47, slices 180 | 126.
    _, height, width, channels = x.shape
    height = height or tf.shape(x)[1]
    width = width or tf.shape(x)[2]
    x = tf.matmul(_doubling(width, x.dtype), tf.reshape(x, [-1, width, channels]))
    x = tf.matmul(_doubling(height, x.dtype), tf.reshape(x, [-1, height, 2 * width * channels]))
    return tf.reshape(x, [-1, 2 * height, 2 * width, channels])


def _doubling(size, dtype):
    """Return the matrix that doubles one axis."""
    rows = tf.range(2 * size)
    first = tf.one_hot(rows // 2, size, dtype=dtype)
    second = tf.one_hot(tf.minimum((rows + 1) // 2, size - 1), size, dtype=dtype)
    return (first + second) / 2


def upsample_nearest(mask, factor: int):
    """Repeat every cell `factor` times in height and width."""
    return tf.repeat(tf.repeat(mask, factor, axis=1), factor, axis=2)
