"""Decoded images in further views: mirrored, turned and moved by whole cells (ours).

Everything is exact: a pixel or cell of a view is one of the image, so that masks and turns follow the image.
"""

import dataclasses

import tensorflow as tf

from lts.models.turns import TURNS

MOVES = 3  # a view is moved by -1, 0 or 1 cells along each axis


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of a batch: mirrored, then turned, then moved. N views of an image are neighbours.

    Attributes:
      mirrored: whether left and right are exchanged, bool [B, N].
      turns: quarter turns, int32 [B, N].
      moves: cells to the top and left, int32 [B, N, 2].
    """

    mirrored: tf.Tensor
    turns: tf.Tensor
    moves: tf.Tensor

    def images(self, images, cells: int):
        """Return the views of images [B, S, S, channels], [B * N, S, S, channels].

        A border that a move leaves empty is filled by the image's reflection.

        Args:
          images: of S pixels per side.
          cells: along a side; a move is by S / cells pixels.
        """
        size = images.shape[1]
        count = self.turns.shape[1]
        repeated = tf.repeat(images, count, axis=0)
        mirrored = tf.reshape(self.mirrored, [-1])
        turns = tf.reshape(self.turns, [-1])
        moves = tf.reshape(self.moves, [-1, 2]) * (size // cells)

        # A quarter turn to the left transposes and reverses rows, one to the right transposes and reverses columns.
        transposed = turns % 2 == 1
        mirrored_rows = transposed & mirrored  # a transposed mirrored image has its rows reversed
        mirrored_columns = ~transposed & mirrored
        rows_reversed = tf.logical_or(turns == 1, turns == 2) ^ mirrored_rows
        columns_reversed = (turns >= 2) ^ mirrored_columns
        across = tf.where(transposed[:, None, None, None], tf.transpose(repeated, [0, 2, 1, 3]), repeated)
        rows = _positions(size, rows_reversed, moves[:, 0])
        columns = _positions(size, columns_reversed, moves[:, 1])
        return tf.gather(tf.gather(across, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)

    def truth(self, truth) -> dict:
        """Return what is known of all views, entries [B * N, ...]; see `lts.models.tasks.Truth`."""
        count = self.turns.shape[1]
        repeated = {name: tf.repeat(entry, count, axis=0) for name, entry in truth.items()}
        return repeated | {"turns": self.turned_by(truth["turns"])} if "turns" in truth else repeated

    def turned_by(self, turns):
        """Return the quarter turns of all views [B * N] of images that were turned before."""
        # A mirrored image that was turned to the left is turned to the right.
        before = tf.where(self.mirrored, -turns[:, None], turns[:, None])
        return tf.reshape((before + self.turns) % TURNS, [-1])


def draw_views(uniform, with_turns: bool) -> Views:
    """Return views from random numbers; the first view of an image is the image itself.

    Args:
      uniform: numbers in [0, 1), [B, N, 4].
      with_turns: whether the views are turned.
    """
    is_other = tf.range(uniform.shape[1]) > 0
    mirrored = (uniform[..., 0] < 0.5) & is_other
    turns = tf.cast(uniform[..., 1] * TURNS, tf.int32) * tf.cast(is_other, tf.int32)
    moves = tf.cast(uniform[..., 2:] * MOVES, tf.int32) - 1
    moves *= tf.cast(is_other, tf.int32)[:, None]
    return Views(mirrored, turns if with_turns else tf.zeros_like(turns), moves)


def _positions(size: int, is_reversed, moves):
    """Return the source of every row of a moved view, int32 [views, size]."""
    positions = tf.range(size) + moves[:, None]
    positions = tf.where(positions < 0, -1 - positions, positions)
    positions = tf.where(positions >= size, 2 * size - 1 - positions, positions)
    return tf.where(is_reversed[:, None], size - 1 - positions, positions)
