"""Positions of a map's cells in the image, and interpolation.

With TensorFlow's "SAME" padding a map is not centred on its image. Cell i of the pool after conv_5 of preset `small` is
centred at pixel 16 i + 15 of a 64-pixel image; a plain resize by 16 would place it at 16 i + 7.5. FCN pads images by
100 pixels and crops instead.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from lts.config.windows import Window


@dataclasses.dataclass(frozen=True)
class Cells:
    """Cells of a map along one side of the image.

    Attributes:
      first: centre of the first cell in pixels, counted from 0; may be a half.
      stride: pixels between neighbouring cells.
      count: number of cells.
    """

    first: tf.Tensor
    stride: int
    count: tf.Tensor

    def centres(self) -> tf.Tensor:
        """Return the centres in pixels, float32 [count]."""
        return self.first + self.stride * tf.range(self.count, dtype=tf.float32)

    def places(self, pixels: tf.Tensor) -> tf.Tensor:
        """Return the positions of pixels in units of cells, in [0, count - 1]."""
        positions = (pixels - self.first) / self.stride
        return tf.clip_by_value(positions, 0.0, tf.cast(self.count - 1, tf.float32))


def cells(side: tf.Tensor | int, windows: Sequence[Window]) -> Cells:
    """Return the cells after convolutions and pools, for an image of `side` pixels."""
    first = tf.constant(0.0)
    stride = 1
    count = tf.convert_to_tensor(side, tf.int32)
    for window in windows:
        before = 0
        if window.padding == "SAME":
            outputs = -(-count // window.stride)
            # TensorFlow puts the odd pixel of "SAME" padding at the end (trap 10).
            before = tf.maximum((outputs - 1) * window.stride + window.kernel - count, 0) // 2
        else:
            after = 0
            if window.padding != "VALID":
                before, after = window.padding
            outputs = (count + before + after - window.kernel) // window.stride + 1
        first += stride * ((window.kernel - 1) / 2 - tf.cast(before, tf.float32))
        stride *= window.stride
        count = outputs
    return Cells(first, stride, count)


def interpolate(values: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Interpolate bilinearly on a grid of positions.

    Two matrix products, one per axis.

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
    """Return the weight of each cell at each position, [len(places), count]; rows sum to 1."""
    return tf.nn.relu(1.0 - tf.abs(places[:, None] - tf.range(count, dtype=tf.float32)))
