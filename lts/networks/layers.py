"""Building blocks of all networks: batch norm, convolution blocks, resizes, normalisation.

Everything is NHWC with TensorFlow's "SAME" padding (the extra pixel goes to
the bottom and right). Variables are float32; under a bfloat16 policy the
activations are bfloat16 and every statistic stays float32.
"""

import keras
import tensorflow as tf

HE_FACTOR = 2.6  # 1.3 * 2 (release)
LEAK = 0.2  # slope of every leaky ReLU (release)


@tf.custom_gradient
def leaky_relu(x):
    """Leaky ReLU with the release's slope, whose gradient looks at the output.

    The output has the input's sign, so the input need not be kept: TensorFlow can
    fuse convolution, shift and activation in training too (with the usual
    gradient its graph rewriter gives up on the whole step).
    """
    y = tf.nn.leaky_relu(x, LEAK)
    return y, lambda upstream: tf.raw_ops.LeakyReluGrad(gradients=upstream, features=y, alpha=LEAK)


ACTIVATIONS = {"linear": tf.identity, "relu": tf.nn.relu, "leaky_relu": leaky_relu, "tanh": tf.nn.tanh}


@keras.saving.register_keras_serializable("lts")
class ScaledTruncatedNormal(keras.initializers.Initializer):
    """Truncated normal (cut at 2 sd) with sd parameter sqrt(2.6 / mean of fan in and fan out) (release).

    The sd is that of the normal before truncation, as in the release: Keras'
    `VarianceScaling` corrects for the truncation and differs by 0.3 %.
    """

    def __call__(self, shape, dtype=None):
        *receptive, fan_in, fan_out = shape
        cells = 1
        for size in receptive:
            cells *= size
        stddev = (HE_FACTOR / (cells * (fan_in + fan_out) / 2)) ** 0.5
        return keras.initializers.TruncatedNormal(stddev=stddev)(shape, dtype)


@keras.saving.register_keras_serializable("lts")
class BatchNorm(keras.layers.Layer):
    """Batch norm with the release's moving averages (BUILD_NOTES trap 7).

    Training normalises with the biased batch variance and feeds the unbiased
    one, N / (N - 1) times it, into the moving variance; Keras' own layer feeds
    the biased one.

    Args:
      scale: has a gamma. The discriminator's have none (release).
      decay: moving -= (1 - decay) * (moving - batch).
      epsilon: added to the variance.
      statistics: under a tf.distribute strategy: "global" normalises with the statistics of the global batch (ours);
        "per_replica" with those of a replica's part (release), and the moving averages take the replicas' mean.
    """

    def __init__(
        self, scale: bool = True, decay: float = 0.975, epsilon: float = 1e-3, statistics: str = "global", **kwargs
    ):
        super().__init__(**kwargs)
        if statistics not in ("global", "per_replica"):
            raise ValueError(f"statistics must be 'global' or 'per_replica'. Received: statistics={statistics!r}")
        self.scale, self.decay, self.epsilon, self.statistics = scale, decay, epsilon, statistics

    def build(self, input_shape):
        def weight(name, initializer, trainable):
            return self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                initializer=initializer,
                trainable=trainable,
                dtype="float32",
                autocast=False,
                aggregation="mean",
            )

        self.gamma = weight("gamma", "ones", True) if self.scale else None
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def affine(self):
        """(scale, shift), each [channels] float32: what inference does, x * scale + shift."""
        scale = tf.math.rsqrt(self.moving_variance + self.epsilon)
        if self.scale:
            scale = scale * self.gamma
        return scale, self.beta - self.moving_mean * scale

    def call(self, x, training=False):
        """Normalises [B, h, w, channels]; in training mode the moving averages move."""
        if not training:
            scale, shift = self.affine()
            return x * tf.cast(scale, x.dtype) + tf.cast(shift, x.dtype)
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(self.beta)
        context = tf.distribute.get_replica_context()
        if self.statistics == "global" and context is not None and context.num_replicas_in_sync > 1:
            y, mean, variance = self._global_norm(x, gamma, context)
        else:
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=gamma,
                offset=tf.convert_to_tensor(self.beta),
                mean=tf.zeros([0], tf.float32),
                variance=tf.zeros([0], tf.float32),
                epsilon=self.epsilon,
                is_training=True,
            )  # `variance` is the unbiased one
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_sub((1 - self.decay) * (moving - tf.stop_gradient(batch)))
        return y

    def _global_norm(self, x, gamma, context):
        """Normalises with the statistics of all replicas' batches together."""
        wide, replicas = tf.cast(x, tf.float32), context.num_replicas_in_sync
        own = tf.stack(tf.nn.moments(wide, [0, 1, 2]))  # [2, channels]
        place = tf.one_hot(context.replica_id_in_sync_group, replicas)[:, None, None]
        moments = context.all_reduce(tf.distribute.ReduceOp.SUM, place * own)  # [replicas, 2, channels]
        means, variances = tf.unstack(moments, axis=1)
        mean = tf.reduce_mean(means, 0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), 0)  # no difference of large numbers
        count = tf.cast(tf.size(x) // x.shape[-1] * replicas, tf.float32)
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        y = tf.cast(wide * scale + (self.beta - mean * scale), x.dtype)
        return y, mean, variance * count / (count - 1)

    def get_config(self):
        names = ("scale", "decay", "epsilon", "statistics")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("lts")
class ConvBlock(keras.layers.Layer):
    """Convolution -> batch norm or biases -> activation, the release's order.

    A block with batch norm has no biases. In inference the batch norm is folded
    into the kernel, which saves a pass over the activations: [8, 96, 96, 32]
    becomes [8, 48, 48, 64] in one fused operation for a 2x2 stride-2 block of 64.

    Args:
      filters: output channels.
      kernel_size: kernel height and width.
      stride: of the convolution.
      padding: "SAME" or "VALID".
      norm: None (biases), "scale" (batch norm with gamma and beta) or "shift" (beta alone).
      activation: a key of `ACTIVATIONS`.
      kernel_initializer: Keras initializer.
      bias_value: first value of the biases.
      bn_decay: of the batch norm.
      bn_epsilon: of the batch norm.
      bn_statistics: of the batch norm.
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
        bn_decay: float = 0.975,
        bn_epsilon: float = 1e-3,
        bn_statistics: str = "global",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if norm not in (None, "scale", "shift"):
            raise ValueError(f"norm must be None, 'scale' or 'shift'. Received: norm={norm!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}. Received: activation={activation!r}")
        self.filters, self.kernel_size, self.stride, self.padding = filters, kernel_size, stride, padding
        self.norm, self.activation, self.bias_value = norm, activation, bias_value
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bn_decay, self.bn_epsilon, self.bn_statistics = bn_decay, bn_epsilon, bn_statistics
        self.batch_norm = None
        if norm:
            self.batch_norm = BatchNorm(
                norm == "scale", bn_decay, bn_epsilon, bn_statistics, name="batch_norm", dtype=self.dtype_policy
            )

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            dtype="float32",
            autocast=False,
        )
        self.bias = None
        if self.batch_norm is None:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=keras.initializers.Constant(self.bias_value),
                dtype="float32",
                autocast=False,
            )
        else:
            self.batch_norm.build((None, None, None, self.filters))

    def call(self, x, training=False):
        """[B, h, w, channels] -> [B, h', w', filters]."""
        kernel, shift = tf.convert_to_tensor(self.kernel), self.bias
        if self.batch_norm is not None and not training:
            scale, shift = self.batch_norm.affine()
            kernel = kernel * scale
        y = _convolve(x, tf.cast(kernel, x.dtype), self.stride, self.padding)
        y = self.batch_norm(y, training=True) if shift is None else tf.nn.bias_add(y, tf.cast(shift, x.dtype))
        return ACTIVATIONS[self.activation](y)

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        if self.padding == "SAME":
            sides = [side and -(-side // self.stride) for side in sides]
        else:
            sides = [side and (side - self.kernel_size) // self.stride + 1 for side in sides]
        return (batch, *sides, self.filters)

    def get_config(self):
        names = ("filters", "kernel_size", "stride", "padding", "norm", "activation", "bias_value")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in (*names, "bn_decay", "bn_epsilon", "bn_statistics")},
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _convolve(x, kernel, stride, padding):
    """Convolution; where the kernel covers the whole input (fc_1, fc_2) as a matrix product, three times as fast."""
    height, width, channels, filters = kernel.shape
    if padding == "SAME" or tuple(x.shape[1:3]) != (height, width):
        return tf.nn.conv2d(x, kernel, stride, padding)
    inputs = height * width * channels
    y = tf.matmul(tf.reshape(x, [-1, inputs]), tf.reshape(kernel, [inputs, filters]))
    return tf.reshape(y, [-1, 1, 1, filters])


@keras.saving.register_keras_serializable("lts")
class GroupedConvBlock(keras.layers.Layer):
    """Input channels split in equal parts, a `ConvBlock` on each, outputs joined (release: conv_2, conv_4, conv_5).

    The parts are blocks of their own, conv_0, conv_1, ..., as in the release's
    checkpoints. Keras' `groups=` takes a slow path on CPUs and does not convert to ONNX.

    Args:
      filters: output channels of all groups together.
      groups: number of parts.
      **block: as for `ConvBlock`.
    """

    def __init__(self, filters: int, kernel_size: int, groups: int = 2, name=None, dtype=None, **block):
        super().__init__(name=name, dtype=dtype)
        self.filters, self.kernel_size, self.groups, self.block = filters, kernel_size, groups, block
        self.blocks = [
            ConvBlock(filters // groups, kernel_size, name=f"conv_{index}", dtype=self.dtype_policy, **block)
            for index in range(groups)
        ]

    def build(self, input_shape):
        *outer, channels = input_shape
        for block in self.blocks:
            block.build((*outer, channels // self.groups))

    def call(self, x, training=False):
        """[B, h, w, channels] -> [B, h', w', filters]."""
        parts = tf.split(x, self.groups, axis=-1)
        return tf.concat([block(part, training=training) for block, part in zip(self.blocks, parts, strict=True)], -1)

    def compute_output_shape(self, input_shape):
        return (*self.blocks[0].compute_output_shape(input_shape)[:-1], self.filters)

    def get_config(self):
        own = {"filters": self.filters, "kernel_size": self.kernel_size, "groups": self.groups}
        return {**super().get_config(), **own, **self.block}


def local_response_norm(x, radius: int = 2, bias: float = 1.0, alpha: float = 2e-5, beta: float = 0.75):
    """X / (bias + alpha * sum of x ** 2 over the `2 * radius + 1` nearest channels) ** beta (release, AlexNet).

    `alpha` is not divided by the window. The sum is a product with a banded
    matrix, which is faster than TensorFlow's own operation and its gradient.

    Args:
      x: [B, h, w, channels].

    Returns:
      [B, h, w, channels].
    """
    if beta != 0.75:
        raise ValueError(f"beta must be 0.75, the power is taken by square roots. Received: beta={beta}")
    channels = x.shape[-1]
    reach = min(radius, channels - 1)
    band = tf.linalg.band_part(tf.ones([channels, channels], x.dtype), reach, reach)
    sums = tf.nn.conv2d(tf.square(x), band[None, None], 1, "SAME")
    root = tf.math.rsqrt(bias + alpha * sums)  # ** -1/2
    return x * root * tf.sqrt(root)  # ** -3/4


def max_pool(x, padding: str = "SAME"):
    """3x3 max pooling with stride 2 (AlexNet): [B, 24, 24, c] becomes [B, 12, 12, c]."""
    return tf.nn.max_pool2d(x, 3, 2, padding)


def upsample_bilinear(x):
    """Doubles height and width by the release's legacy bilinear resize (BUILD_NOTES trap 6).

    Output 2i is input i, output 2i + 1 the mean of inputs i and i + 1, the last
    one repeated: no half-pixel centres. `tf.image.resize` is a different map.
    A product with a sparse matrix for each axis, because its gradient is one too:
    several times as fast as that of slices or of TensorFlow's resize, in bfloat16 above all.

    Args:
      x: [B, h, w, channels].

    Returns:
      [B, 2h, 2w, channels], same dtype.
    """
    _, height, width, channels = x.shape
    height, width = height or tf.shape(x)[1], width or tf.shape(x)[2]
    x = tf.matmul(_doubling(width, x.dtype), tf.reshape(x, [-1, width, channels]))
    x = tf.matmul(_doubling(height, x.dtype), tf.reshape(x, [-1, height, 2 * width * channels]))
    return tf.reshape(x, [-1, 2 * height, 2 * width, channels])


def _doubling(size, dtype):
    """Matrix [2 * size, size] of one axis: row 2i takes input i, row 2i + 1 the mean of i and i + 1."""
    rows = tf.range(2 * size)
    first, second = rows // 2, tf.minimum((rows + 1) // 2, size - 1)
    return (tf.one_hot(first, size, dtype=dtype) + tf.one_hot(second, size, dtype=dtype)) / 2


def upsample_nearest(mask, factor: int):
    """Repeats every cell `factor` times in height and width: [B, h, w, c] becomes [B, h * factor, w * factor, c]."""
    return tf.repeat(tf.repeat(mask, factor, axis=1), factor, axis=2)
