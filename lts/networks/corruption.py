"""Corruptions of a feature map: a keep mask, and new features for the dropped cells.

The paper's section 3: phi_hat = Omega * phi + (1 - Omega) * (u * phi), where Omega is the keep mask and u is a uniform
local kernel. `CellDrop` is this equation. The other corruptions are (ours).
"""

import tensorflow as tf

from lts.config import DamageConfig
from lts.config.registries import CORRUPTIONS, FILLS

__all__ = [
    "CORRUPTIONS",
    "FILLS",
    "BlockDrop",
    "CellDrop",
    "CellShuffle",
    "CellSwap",
    "ChannelDrop",
    "FeatureCorruption",
    "draw_keep_mask",
    "global_average",
    "local_average",
    "zeros",
]


def draw_keep_mask(uniform, keep_probability: float):
    """Return the keep mask Omega of uniform numbers (paper; release).

    Omega = floor(keep_probability + U): the probability is that of KEEPING a cell (release; BUILD_NOTES trap 1).

    Args:
      uniform: numbers in [0, 1), [B, h, w, 1].
      keep_probability: in [0, 1]; 0.3 in the release.

    Returns:
      float32 [B, h, w, 1]: 1 where a cell is kept, 0 where it is dropped.
    """
    return tf.floor(keep_probability + uniform)


def local_average(features):
    """Return the average of each cell's 3x3 neighbours, u * phi (paper; release).

    The average is over the UNDAMAGED features; at the border it is over the neighbours that exist (BUILD_NOTES trap 1).
    """
    return tf.nn.avg_pool2d(features, 3, 1, "SAME")  # padding does not count


def zeros(features):
    """Return zeros of the features' shape (ours)."""
    return tf.zeros_like(features)


def global_average(features):
    """Return the average of all cells of each image, [B, 1, 1, c] (release, where nothing uses it)."""
    return tf.reduce_mean(features, [1, 2], keepdims=True)


class FeatureCorruption:
    """Base of all corruptions: it draws a keep mask and applies it (ours).

    Both methods are functions of given uniform numbers. A resumed run, any number of replicas and the evaluation in
    `lts.spotting` therefore compute the same. A subclass overrides `draw`, `replacement`, or both. Every cell must be
    kept with `config.keep_probability`.

    Shapes: `draw` of [8, 6, 6, n] gives a mask [8, 6, 6, 1]. `apply` of features [8, 6, 6, 512] keeps their shape.

    Args:
      config: of the run.

    Attributes:
      FIELDS: fields of `config` that it reads, apart from `keep_probability`.
      config: of the run.
      group_size: number of consecutive images of the global batch that need each other. They must be on one replica.
    """

    FIELDS: tuple[str, ...] = ()
    group_size = 1

    def __init__(self, config: DamageConfig):
        self.config = config

    def numbers_per_cell(self, channels: int) -> int:
        """Return n, the uniform numbers per cell that the methods need."""
        return 1

    def draw(self, uniform, grid: int):
        """Return the keep mask Omega.

        Args:
          uniform: numbers in [0, 1), [B, grid, grid, n].
          grid: cells per side.

        Returns:
          float32 [B, grid, grid, 1]: 1 where a cell is kept, 0 where it is dropped.
        """
        return draw_keep_mask(uniform[..., :1], self.config.keep_probability)

    def replacement(self, features, uniform):
        """Return the new features of dropped cells.

        Args:
          features: undamaged, [B, h, w, c].
          uniform: as in `draw`; None where the caller has a mask alone.

        Returns:
          Features that broadcast to [B, h, w, c], in the dtype of `features`. Those of kept cells are not used.
        """
        raise NotImplementedError

    def apply(self, features, keep_mask, uniform=None):
        """Return the damaged features phi hat.

        Kept cells keep their bits and are not rescaled (release; BUILD_NOTES trap 1).

        Args:
          features: [B, h, w, c], the paper's phi.
          keep_mask: [B, h, w, 1] of `draw`.
          uniform: the numbers of `draw`.

        Returns:
          [B, h, w, c] in the dtype of `features`.
        """
        keep_mask = tf.cast(keep_mask, features.dtype)
        return features * keep_mask + (1 - keep_mask) * self.replacement(features, uniform)


class CellDrop(FeatureCorruption):
    """Independent cells; dropped ones become `damage_fill` (paper; release)."""

    FIELDS = ("damage_fill",)

    def replacement(self, features, uniform):
        return FILLS[self.config.damage_fill](features)


class BlockDrop(CellDrop):
    """Rectangles of cells; dropped ones become `damage_fill` (ours).

    A grid of blocks covers the image, and each block is kept or dropped as one. The height and width of an image's
    blocks are drawn from 2 to half of the image, and the grid begins at a random offset. Each cell is therefore kept
    with exactly `keep_probability`.
    """

    def numbers_per_cell(self, channels: int) -> int:
        return 5

    def draw(self, uniform, grid: int):
        longest_side = max(2, grid // 2)
        # Size and offset are an image's, so the numbers of its first cell serve.
        sides = 2 + tf.floor(uniform[:, 0, 0, 1:3] * (longest_side - 1))  # [B, 2]: height and width
        offsets = tf.floor(uniform[:, 0, 0, 3:5] * sides)
        cells = tf.range(grid, dtype=uniform.dtype)
        blocks = tf.cast((cells + offsets[..., None]) // sides[..., None], tf.int32)  # [B, 2, grid]
        kept_blocks = super().draw(uniform, grid)
        kept_rows = tf.gather(kept_blocks, blocks[:, 0], axis=1, batch_dims=1)
        return tf.gather(kept_rows, blocks[:, 1], axis=2, batch_dims=1)


class ChannelDrop(CellDrop):
    """Half of the channels of each dropped cell become `damage_fill` (ours).

    Each channel of a dropped cell is chosen with probability 1/2. The mask head still predicts cells.
    """

    def numbers_per_cell(self, channels: int) -> int:
        return 1 + channels

    def replacement(self, features, uniform):
        return tf.where(uniform[..., 1:] < 0.5, super().replacement(features, uniform), features)


class CellShuffle(FeatureCorruption):
    """Dropped cells take the features of another cell of the same image (ours).

    The other cell is drawn with equal probability from all, kept or dropped. `damage_fill` is not used.
    """

    def numbers_per_cell(self, channels: int) -> int:
        return 2

    def replacement(self, features, uniform):
        count = features.shape[1] * features.shape[2]
        distances = 1 + tf.floor(tf.reshape(uniform[..., 1], [-1, count]) * (count - 1))  # 1 to count - 1
        sources = (tf.range(count) + tf.cast(distances, tf.int32)) % count
        cells = tf.reshape(features, [-1, count, features.shape[3]])
        return tf.reshape(tf.gather(cells, sources, axis=1, batch_dims=1), tf.shape(features))


class CellSwap(FeatureCorruption):
    """Dropped cells take the features of the same cell of another image (ours).

    Images 0 and 1 of the global batch are partners, 2 and 3, and so on. Batches are shuffled, so partners change from
    epoch to epoch. They do not depend on the number of replicas, because both are on one replica. `damage_fill` is not
    used.
    """

    group_size = 2

    def replacement(self, features, uniform):
        count = tf.shape(features)[0]
        positions = tf.range(count)
        partners = positions + 1 - 2 * (positions % 2)
        # The last image of an odd batch, in a picture strip for example, takes those of the image before it.
        partners = tf.where(partners < count, partners, tf.maximum(positions - 1, 0))
        return tf.gather(features, partners)
