"""Damage of a feature map: the mask Omega and the local average (paper section 3; release)."""

import tensorflow as tf


def draw_keep_mask(uniform, keep_probability: float):
    """Keep mask of uniform numbers: floor(keep_probability + U) (release; BUILD_NOTES trap 1).

    Args:
      uniform: [B, h, w, 1] numbers in [0, 1).
      keep_probability: probability that a cell is KEPT, in [0, 1].

    Returns:
      float32 [B, h, w, 1]: 1 where the cell is kept, 0 where it is dropped.
    """
    return tf.floor(keep_probability + uniform)


def damage_features(features, keep, fill: str = "average"):
    """Features * keep + (1 - keep) * local average: the paper's phi hat (section 3).

    The average is over the 3x3 cells of the undamaged features, at the border
    over those that exist; kept cells are not rescaled (release).

    Args:
      features: [B, h, w, c].
      keep: [B, h, w, 1], 1 = kept.
      fill: "average" (paper, release) or "zero" (ours, for ablation).

    Returns:
      [B, h, w, c], dtype of `features`.

    Raises:
      ValueError: an unknown `fill`.
    """
    if fill not in ("average", "zero"):
        raise ValueError(f"fill must be 'average' or 'zero'. Received: fill={fill!r}")
    keep = tf.cast(keep, features.dtype)
    if fill == "zero":
        return features * keep
    average = tf.nn.avg_pool2d(features, 3, 1, "SAME")
    return features * keep + (1 - keep) * average
