"""What both models share: weights under weight decay, finite checks, gradients under a strategy, metrics."""

import contextlib

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


def scale_loss(loss):
    """A replica's share of the loss: Keras sums the gradients of all replicas."""
    context = tf.distribute.get_replica_context()
    return loss if context is None else loss / context.num_replicas_in_sync


@contextlib.contextmanager
def preserve_moving_statistics(model: keras.Model):
    """Puts the batch norm statistics back at the end of the block: for a pass in training mode that is not a step."""
    statistics = [v.value for v in model.variables if v.name in ("moving_mean", "moving_variance")]
    before = [tf.identity(variable) for variable in statistics]
    yield
    for variable, value in zip(statistics, before, strict=True):
        variable.assign(value)


def per_replica_random(draw, shape, axis: int = 0):
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


def with_gradients(model: keras.Model, variables, gradients) -> dict:
    """weights/PATH and gradients/PATH to tensors, for histograms."""
    tensors = {}
    for variable, gradient in zip(variables, gradients, strict=True):
        path = variable.path.removeprefix(f"{model.name}/")
        tensors |= {f"weights/{path}": tf.convert_to_tensor(variable), f"gradients/{path}": gradient}
    return tensors


def replica_mean(value):
    """Mean of a tensor over all replicas; the tensor itself where there is one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def replica_means(values: dict) -> dict:
    """Means of named scalars over all replicas, in one reduction: numbers of the global batch."""
    return dict(zip(values, tf.unstack(replica_mean(tf.stack(list(values.values())))), strict=True))


def gradient_norm(optimizer):
    """Global norm of the gradient that the optimizer applied last, before clipping; 0 where it does not say."""
    norm = getattr(optimizer, "gradient_norm", None)
    return 0.0 if norm is None else tf.convert_to_tensor(norm)


class RunningMeans(keras.metrics.Metric):
    """Means of named numbers since the last reset, in one variable.

    The numbers must be those of the global batch (`replica_means`): every replica holds the same, so reading them
    needs no communication.
    """

    def __init__(self, names, name="means"):
        super().__init__(name=name)
        self.names = tuple(names)
        self.sums = self.add_variable(
            (len(self.names) + 1,), "zeros", dtype="float32", aggregation="only_first_replica", name="sums"
        )

    def update_state(self, values: dict):
        """Adds a step's numbers; a name that is left out counts as 0."""
        self.sums.assign_add(tf.stack([tf.cast(values.get(name, 0.0), tf.float32) for name in self.names] + [1.0]))

    def result(self) -> dict:
        """Name to mean; 0 before the first step."""
        *sums, count = tf.unstack(tf.convert_to_tensor(self.sums))
        return {name: tf.math.divide_no_nan(total, count) for name, total in zip(self.names, sums, strict=True)}

    def update(self, values: dict) -> dict:
        """Adds a step's numbers and returns their means so far."""
        self.update_state(values)
        means = self.result()
        return {name: means[name] for name in values}


class TrainableModel(keras.Model):
    """A model with one loss and one optimizer: its steps, as Keras and `lts.training` call them.

    A subclass gives `compute_losses(batch, training=True)`, scalars by name with their sum "loss", and names them in
    METRICS, "gradient_norm" beside them.

    Args:
      metrics: names in the place of METRICS, where they are known only now.
    """

    METRICS: tuple[str, ...] = ("loss", "gradient_norm")

    def __init__(self, metrics: tuple[str, ...] = (), **kwargs):
        super().__init__(**kwargs)
        self.means = RunningMeans(metrics or self.METRICS)

    @property
    def metrics(self):
        """What Keras resets at the beginning of an epoch or an evaluation."""
        return [self.means]

    def gradients(self, batch):
        """(losses, raw gradients of a replica's share of the loss to the trainable variables)."""
        with tf.GradientTape() as tape:
            terms = self.compute_losses(batch)
            share = scale_loss(terms["loss"])
        return terms, tape.gradient(share, [v.value for v in self.trainable_variables])

    def train_step(self, batch):
        """One step on a batch; returns the mean losses since the last reset."""
        terms, gradients = self.gradients(batch)
        values = replica_means(terms)
        with tf.control_dependencies(checks(values)):
            self.optimizer.apply(gradients, self.trainable_variables)
            values["gradient_norm"] = gradient_norm(self.optimizer)
        return self.means.update(values)

    def test_step(self, batch):
        """Losses with inference batch norm."""
        return self.means.update(replica_means(self.compute_losses(batch, training=False)))

    def histograms(self, batch) -> dict:
        """Name to tensor: all weights that train, and their gradients on a batch."""
        with preserve_moving_statistics(self):
            _, gradients = self.gradients(batch)
        return with_gradients(self, self.trainable_variables, gradients)
