"""Images turned by quarter turns (Gidaris et al., 2018)."""

import tensorflow as tf

TURNS = 4  # by 0, 90, 180 and 270 degrees


def all_turns(images):
    """Return every image in its four turns.

    Args:
      images: [B, H, W, channels], square.

    Returns:
      Images [4B, H, W, channels], the four turns of an image one after another, and their turns, int32 [4B]. The rows
      of a replica's images are therefore neighbours in the global batch.
    """
    turned = tf.reshape(_stacked(images), [-1, *images.shape[1:]])
    return turned, turns_of_rows(turned)


def turns_of_rows(turned):
    """Return the turns of images [4B, ...] that `all_turns` returned, int32 [4B]."""
    return tf.tile(tf.range(TURNS), [tf.shape(turned)[0] // TURNS])


def random_turns(images, uniform):
    """Return every image in a random turn.

    Args:
      images: [B, H, W, channels], square.
      uniform: numbers in [0, 1), [B].

    Returns:
      Images [B, H, W, channels], and their turns, int32 [B].
    """
    turns = tf.cast(uniform * TURNS, tf.int32)
    return tf.gather(_stacked(images), turns, axis=1, batch_dims=1), turns


def _stacked(images):
    """Return [B, 4, H, W, channels]."""
    return tf.stack([tf.image.rot90(images, turn) for turn in range(TURNS)], 1)
