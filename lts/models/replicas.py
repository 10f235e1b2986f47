"""Losses, random numbers and means under several replicas.

Every function also works without a strategy: then there is one replica.
"""

import tensorflow as tf


def scale_loss(loss):
    """Return a replica's share of the loss."""
    # NB: Keras sums the gradients of all replicas, so the losses must add up to the mean.
    context = tf.distribute.get_replica_context()
    return loss if context is None else loss / context.num_replicas_in_sync


def per_replica_random(seed, shape, axis: int = 0):
    """Return this replica's rows of the global batch's random numbers.

    The numbers depend on the position in the global batch, and not on the number of replicas.

    Args:
      seed: int32 [2].
      shape: of this replica's numbers.
      axis: the batch axis of `shape`.

    Returns:
      Uniform numbers in [0, 1) of `shape`.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync if context is not None else 1
    if replicas == 1:
        return tf.random.stateless_uniform(shape, seed)
    rows = shape[axis]
    # Every replica draws the numbers of all, and takes its rows.
    numbers = tf.random.stateless_uniform([*shape[:axis], rows * replicas, *shape[axis + 1 :]], seed)
    first = context.replica_id_in_sync_group * rows
    return tf.gather(numbers, first + tf.range(rows), axis=axis)


def global_rows(rows):
    """Return the positions of this replica's rows in the global batch, int32 [rows]."""
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context is not None else 0
    return replica * rows + tf.range(rows)


def replica_mean(value):
    """Return the mean of a tensor over all replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def replica_means(values: dict) -> dict:
    """Return the means of named scalars over all replicas."""
    # One reduction for all.
    means = tf.unstack(replica_mean(tf.stack(list(values.values()))))
    return dict(zip(values, means, strict=True))
