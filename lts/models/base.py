"""Base class and shared parts of the models."""

import contextlib

import keras
import tensorflow as tf

from lts.models import replicas

TOTALS = ("loss", "disc_total", "gen_total")  # sums of other loss terms


def kernels(network: keras.Model) -> list:
    """Return the kernels under weight decay, trainable or frozen (release)."""
    return [variable for variable in network.variables if variable.name == "kernel"]


def loss_weight_decay(model: keras.Model, weight_decay: float) -> float:
    """Return the weight decay of a model's loss: all (release), or 0 if its optimizer decays weights (ours)."""
    decoupled = getattr(getattr(model, "optimizer", None), "weight_decay", None) is not None
    return 0.0 if decoupled else weight_decay


def tf_variables(network: keras.Model) -> list[tf.Variable]:
    """Return the trainable variables as `tf.GradientTape` takes them."""
    return [variable.value for variable in network.trainable_variables]


def check_finite(losses: dict) -> list:
    """Return operations that fail for non-finite losses."""
    # A total is not finite when one of its terms is not, and the term says more.
    terms = {name: value for name, value in losses.items() if name not in TOTALS}
    return [tf.debugging.check_numerics(value, f"loss term {name!r} is not finite") for name, value in terms.items()]


@contextlib.contextmanager
def preserve_moving_statistics(model: keras.Model):
    """Restore a model's batch norm statistics after the block.

    For a pass in training mode that is not a training step.
    """
    statistics = [v.value for v in model.variables if v.name in ("moving_mean", "moving_variance")]
    # Copies, because the variables change.
    before = [tf.identity(variable) for variable in statistics]
    yield
    for variable, value in zip(statistics, before, strict=True):
        variable.assign(value)


def weights_and_gradients(model: keras.Model, variables, gradients) -> dict:
    """Return the tensors weights/PATH and gradients/PATH for histograms."""
    tensors = {}
    for variable, gradient in zip(variables, gradients, strict=True):
        path = variable.path.removeprefix(f"{model.name}/")
        tensors[f"weights/{path}"] = tf.convert_to_tensor(variable)
        tensors[f"gradients/{path}"] = gradient
    return tensors


def gradient_norm(optimizer):
    """Return the global norm of the last gradient before clipping."""
    # Keras' own optimizers do not keep it.
    norm = getattr(optimizer, "gradient_norm", None)
    return 0.0 if norm is None else tf.convert_to_tensor(norm)


class RunningMeans(keras.metrics.Metric):
    """Means of named scalars since the last reset.

    The scalars must be those of the global batch, see `replica_means`. Every replica then holds the same sums, and
    reading them needs no communication.
    """

    def __init__(self, names):
        super().__init__(name="means")
        self.names = tuple(names)
        # One variable for all: the sums, then the number of steps.
        shape = (len(self.names) + 1,)
        self.sums = self.add_variable(shape, "zeros", dtype="float32", aggregation="only_first_replica", name="sums")

    def update_state(self, values: dict):
        """Add a step's scalars; a missing name counts as 0."""
        row = [tf.cast(values.get(name, 0.0), tf.float32) for name in self.names]
        self.sums.assign_add(tf.stack([*row, 1.0]))  # one step more

    def result(self) -> dict:
        """Return the means by name; 0 before the first step."""
        *sums, count = tf.unstack(tf.convert_to_tensor(self.sums))
        return {name: tf.math.divide_no_nan(total, count) for name, total in zip(self.names, sums, strict=True)}

    def update(self, values: dict) -> dict:
        """Add a step's scalars and return their means so far."""
        self.update_state(values)
        means = self.result()
        return {name: means[name] for name in values}


class TrainableModel(keras.Model):
    """Model with one loss and one optimizer.

    A subclass implements `compute_losses(batch, training=True)`: scalars by name, with their sum "loss". It lists these
    names and "gradient_norm" in METRICS.

    Args:
      metrics: names to use instead of METRICS, for a model whose terms depend on its arguments.
    """

    METRICS: tuple[str, ...] = ("loss", "gradient_norm")

    def __init__(self, metrics: tuple[str, ...] = (), **kwargs):
        super().__init__(**kwargs)
        self.means = RunningMeans(metrics or self.METRICS)

    @property
    def metrics(self):
        """Metrics that Keras resets at every epoch."""
        return [self.means]

    def gradients(self, batch):
        """Return the losses and a replica's share of the gradients."""
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch)
            share = replicas.scale_loss(losses["loss"])  # inside the tape: it scales the gradients
        return losses, tape.gradient(share, tf_variables(self))

    def train_step(self, batch):
        """Run one step and return the mean losses."""
        losses, gradients = self.gradients(batch)
        values = replicas.replica_means(losses)
        # NB: a step whose loss is not finite must change no weight.
        with tf.control_dependencies(check_finite(values)):
            self.optimizer.apply(gradients, self.trainable_variables)
            values["gradient_norm"] = gradient_norm(self.optimizer)
        return self.means.update(values)

    def test_step(self, batch):
        """Return the mean losses with inference batch norm."""
        losses = self.compute_losses(batch, training=False)
        return self.means.update(replicas.replica_means(losses))

    def histograms(self, batch) -> dict:
        """Return the trainable weights and their gradients on a batch."""
        with preserve_moving_statistics(self):
            _, gradients = self.gradients(batch)
        return weights_and_gradients(self, self.trainable_variables, gradients)
