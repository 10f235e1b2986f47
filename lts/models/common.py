"""What both models share: weights under weight decay, finite checks, gradients under a strategy, metrics."""

import keras
import tensorflow as tf


def kernels(network: keras.Model) -> list:
    """The network's convolution kernels, trainable or frozen: what the release's weight decay falls on."""
    return [variable for variable in network.variables if variable.name == "kernel"]


TOTALS = ("loss", "disc_total", "gen_total")


def checks(losses: dict):
    """Operations that fail, naming the loss term, when one is not finite; totals are left to their terms."""
    terms = {name: value for name, value in losses.items() if name not in TOTALS}
    return [tf.debugging.check_numerics(value, f"loss term {name!r} is not finite") for name, value in terms.items()]


def replica_share(loss):
    """A replica's share of the loss: Keras sums the gradients of all replicas."""
    return loss / tf.distribute.get_strategy().num_replicas_in_sync


def local_rows(draw, shape, axis: int = 0):
    """This replica's rows of random numbers drawn for the global batch.

    The numbers are then a function of the position in the global batch alone,
    whatever the number of replicas.

    Args:
      draw: function of a shape that returns that many numbers.
      shape: the replica's shape; the batch is `axis`.
      axis: of the batch.

    Returns:
      A tensor of `shape`.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync if context is not None else 1
    if replicas == 1:
        return draw(shape)
    rows = shape[axis]
    numbers = draw([*shape[:axis], rows * replicas, *shape[axis + 1 :]])
    first = context.replica_id_in_sync_group * rows
    return tf.gather(numbers, first + tf.range(rows), axis=axis)


class MeanMetrics:
    """A `keras.metrics.Mean` for each named number."""

    def __init__(self, names):
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

    def update(self, values: dict) -> dict:
        """Adds values to the means and returns the means so far."""
        for name, value in values.items():
            self.means[name].update_state(value)
        return {name: mean.result() for name, mean in self.means.items()}
