"""Pooling of feature maps."""

import tensorflow as tf

from lts.export.choices import check_pool

REDUCE = {"average": tf.reduce_mean, "max": tf.reduce_max}


def pool(features: tf.Tensor, how: str) -> tf.Tensor:
    """Return a pooled feature map.

    Args:
      features: float32 [batch, height, width, channels].
      how: the value of `--pool`: "none", "avg", "max", or "grid:N" for averages over N x N areas.

    Returns:
      float32 [batch, height, width, channels] for none, [batch, channels] for avg and max, [batch, N, N, channels] for
      a grid.

    Raises:
      PoolError: an unknown pooling.
    """
    check_pool(how)
    if how == "none":
        return features
    if how == "avg":
        return tf.reduce_mean(features, [1, 2])
    if how == "max":
        return tf.reduce_max(features, [1, 2])
    return adaptive_pool(features, int(how.partition(":")[2]))


def adaptive_pool(features: tf.Tensor, cells: int, kind: str = "average") -> tf.Tensor:
    """Return a map pooled to cells x cells.

    Bin i of n inputs covers floor(i * n / cells) to ceil((i + 1) * n / cells), as in PyTorch's adaptive pooling.
    Bins are equal where cells divides n; otherwise neighbouring bins share inputs.

    Shapes: features `[8, 24, 24, 96]` give `[8, 10, 10, 96]` for 10 cells.

    Args:
      features: float32 [batch, height, width, channels]; the sides may be unknown while tracing.
      cells: cells per side of the result.
      kind: "average" or "max".

    Returns:
      float32 [batch, cells, cells, channels].
    """
    # Every bin is a rectangle, so rows and columns can be pooled one after the other.
    for axis in (1, 2):
        size = features.shape[axis] or tf.shape(features)[axis]  # a tensor where unknown while tracing
        pooled = []
        for i in range(cells):
            inputs = tf.range(i * size // cells, ((i + 1) * size + cells - 1) // cells)
            pooled.append(REDUCE[kind](tf.gather(features, inputs, axis=axis), axis=axis))
        features = tf.stack(pooled, axis=axis)
    return features
