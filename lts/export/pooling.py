"""Feature maps to fewer numbers: pooling to a grid whose size does not hang on the map's."""

import re

import tensorflow as tf

from lts.utils.errors import UserError

REDUCE = {"average": tf.reduce_mean, "max": tf.reduce_max}


class PoolError(UserError):
    """A pooling that does not exist."""

    exit_status = 2


def pool(features: tf.Tensor, how: str) -> tf.Tensor:
    """Pools a feature map as the tools' `--pool` says.

    Args:
      features: float32 [batch, height, width, channels].
      how: "none", "avg", "max", or "grid:N" for averages over N x N areas.

    Returns:
      float32 [batch, height, width, channels], [batch, channels], [batch, channels] or [batch, N, N, channels].

    Raises:
      PoolError: another `how`.
    """
    check(how)
    if how == "none":
        return features
    if how in ("avg", "max"):
        return REDUCE["average" if how == "avg" else "max"](features, [1, 2])
    return adaptive_pool(features, int(how.partition(":")[2]))


def check(how: str) -> None:
    """Raises `PoolError` unless `pool` knows `how`."""
    if not re.fullmatch(r"none|avg|max|grid:[1-9]\d*", how):
        raise PoolError(f"pool must be none, avg, max or grid:N as grid:3. Received: {how!r}")


def adaptive_pool(features: tf.Tensor, cells: int, kind: str = "average") -> tf.Tensor:
    """Pools a feature map to cells x cells: [8, 24, 24, 96] becomes [8, 10, 10, 96] for 10 cells.

    Bin i of n inputs covers floor(i * n / cells) to ceil((i + 1) * n / cells): equal bins where cells divides n,
    else bins that share their border inputs. Every bin is a rectangle, so rows and columns are pooled in turn.

    Args:
      features: float32 [batch, height, width, channels]; the sides may be unknown while tracing.
      cells: cells a side of the result.
      kind: "average" or "max".

    Returns:
      float32 [batch, cells, cells, channels].
    """
    for axis in (1, 2):
        size = features.shape[axis] or tf.shape(features)[axis]
        bins = [tf.range(i * size // cells, ((i + 1) * size + cells - 1) // cells) for i in range(cells)]
        features = tf.stack([REDUCE[kind](tf.gather(features, b, axis=axis), axis=axis) for b in bins], axis=axis)
    return features
