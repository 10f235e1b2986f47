"""Where the cells of a network's map lie in its image, and bilinear interpolation between them.

With TensorFlow's "SAME" padding a map is not centred on its image: of a 64-pixel image cell i of the pool behind conv_5
of preset `small` is centred at pixel 16 i + 15, where a plain resize by 16 would place it at 16 i + 7.5. Scores are
enlarged from where they belong.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from lts.config import DiscriminatorConfig


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or pool: kernel, stride, and padding "SAME" or "VALID"."""

    kernel: int
    stride: int
    padding: str = "SAME"


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of a map along one side of the image.

    Attributes:
      first: pixel, counted from 0, on which the first one is centred; may be a half.
      stride: pixels from one to the next.
      count: how many there are.
    """

    first: tf.Tensor
    stride: int
    count: tf.Tensor

    def centres(self) -> tf.Tensor:
        """Pixels on which they are centred: float32 [count]."""
        return self.first + self.stride * tf.range(self.count, dtype=tf.float32)

    def places(self, pixels: tf.Tensor) -> tf.Tensor:
        """Pixels in units of cells: float, 0 on the first one; not below it, nor above the last one."""
        place = (pixels - self.first) / self.stride
        return tf.clip_by_value(place, 0.0, tf.cast(self.count - 1, tf.float32))


def backbone_layers(config: DiscriminatorConfig) -> list[Layer]:
    """Conv_1 and two pools, which move and part the backbone's cells; its other layers have stride 1 and odd kernels."""
    pool = Layer(3, 2, config.disc_padding)
    return [Layer(config.conv_1_kernel, config.conv_1_stride, config.disc_padding), pool, pool]


def cells(side: tf.Tensor | int, layers: Sequence[Layer]) -> Cells:
    """The cells behind some layers, of an image with `side` pixels."""
    first, stride, count = tf.constant(0.0), 1, tf.convert_to_tensor(side, tf.int32)
    for layer in layers:
        before = 0
        if layer.padding == "SAME":
            outputs = -(-count // layer.stride)
            before = tf.maximum((outputs - 1) * layer.stride + layer.kernel - count, 0) // 2
        else:
            outputs = (count - layer.kernel) // layer.stride + 1
        first += stride * ((layer.kernel - 1) / 2 - tf.cast(before, tf.float32))
        stride, count = stride * layer.stride, outputs
    return Cells(first, stride, count)


def interpolate(values: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Bilinear interpolation on a grid of places, as two products with matrices.

    Args:
      values: [B, h, w, channels].
      rows: float [H], in [0, h - 1].
      columns: float [W], in [0, w - 1].

    Returns:
      [B, H, W, channels].
    """
    height, width = tf.unstack(tf.shape(values)[1:3])
    values = tf.einsum("Hh,bhwc->bHwc", _weights(rows, height), values)
    return tf.einsum("Ww,bHwc->bHWc", _weights(columns, width), values)


def _weights(places: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Share of each cell in each place: [len(places), count], rows of sum 1."""
    return tf.nn.relu(1.0 - tf.abs(places[:, None] - tf.range(count, dtype=tf.float32)))
