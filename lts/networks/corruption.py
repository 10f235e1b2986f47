"""Corruption of a feature map: keep mask and local average.

The paper's section 3: phi_hat = Omega * phi + (1 - Omega) * (u * phi), where u is a uniform local kernel.
"""

import tensorflow as tf


def draw_keep_mask(uniform, keep_probability: float):
    """Return the keep mask Omega of uniform numbers.

    Omega = floor(keep_probability + U): the probability is that of KEEPING a cell (release; BUILD_NOTES trap 1).

    Args:
      uniform: numbers in [0, 1), [B, h, w, 1].
      keep_probability: in [0, 1]; 0.3 in the release.

    Returns:
      float32 [B, h, w, 1]: 1 where a cell is kept, 0 where it is dropped.
    """
    return tf.floor(keep_probability + uniform)


def damage_features(features, keep_mask, fill: str = "average"):
    """Replace the dropped cells by their local average.

    The average is over the 3x3 neighbours in the UNDAMAGED features; at the border it is over those that exist. Kept
    cells are not rescaled (release; BUILD_NOTES trap 1).

    Shapes: features [8, 6, 6, 512] and mask [8, 6, 6, 1] give [8, 6, 6, 512].

    Args:
      features: [B, h, w, c], the paper's phi.
      keep_mask: [B, h, w, 1], 1 = kept, the paper's Omega.
      fill: "average" (paper, release), or "zero" (this project, ablation).

    Returns:
      Damaged features [B, h, w, c] in the dtype of `features`, the paper's phi hat.

    Raises:
      ValueError: unknown `fill`.
    """
    if fill not in ("average", "zero"):
        raise ValueError(f"fill must be 'average' or 'zero'. Received: fill={fill!r}")
    keep_mask = tf.cast(keep_mask, features.dtype)
    if fill == "zero":
        return features * keep_mask
    local_average = tf.nn.avg_pool2d(features, 3, 1, "SAME")  # u * phi; padding does not count
    return features * keep_mask + (1 - keep_mask) * local_average
