"""Base class and shared parts of the models."""

import contextlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from lts.models import replicas
from lts.networks.keras_settings import check_policy

STATISTICS = ("moving_mean", "moving_variance", "direction")  # what a pass in training mode moves
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
    """Restore a model's statistics after the block.

    For a pass in training mode that is not a training step.
    """
    statistics = [v.value for v in model.variables if v.name in STATISTICS]
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
    # Under mixed_float16 Keras wraps the optimizer. Its own optimizers do not keep the norm.
    norm = getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_norm", None)
    return 0.0 if norm is None else tf.convert_to_tensor(norm)


def unpack_images(data, size: int):
    """Return the images of a batch that `fit` passes.

    Args:
      data: images [B, size, size, 3] in [-1, 1], or (images, labels): the labels are not used.
      size: pixels per side.

    Raises:
      ValueError: integers, another shape, or weights of samples or classes.
    """
    images, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        raise ValueError("the losses have no weights of samples or classes. Received: sample_weight. Leave it out.")
    if not images.dtype.is_floating:
        raise ValueError(
            f"images must be floats in [-1, 1]. Received: dtype={images.dtype.name}. Use lts.data.as_signed."
        )
    shape = tf.TensorShape([None, size, size, 3])
    if not shape.is_compatible_with(images.shape):
        raise ValueError(f"images must be [batch, {size}, {size}, 3], channels last. Received: shape={images.shape}")
    if not images.shape[1:].is_fully_defined():
        images = tf.ensure_shape(images, shape)
    return tf.cast(images, tf.float32) if images.dtype == tf.float64 else images


def unpack_labels(data):
    """Return the labels of a batch that `fit` passes, int [B].

    Raises:
      ValueError: no labels, or not integers [B].
    """
    _, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None or not labels.dtype.is_integer or labels.shape.rank != 1:
        received = "no labels" if labels is None else f"{labels.dtype.name} {labels.shape}"
        raise ValueError(f"batches must be images and integer labels [batch]. Received: {received}")
    return labels


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


class CustomStepModel(keras.Model):
    """Model with its own losses and training step.

    The base of all models: what `fit`, `evaluate` and `load_model` of Keras need.

    Args:
      metrics: names of the scalars that a step reports.
      **kwargs: arguments of `keras.Model`.
    """

    def __init__(self, metrics: Sequence[str], **kwargs):
        super().__init__(**kwargs)
        check_policy(self.dtype_policy)
        # NB: XLA drops the check that a loss is finite. Keras warns of `jit_compile=True` and trains without it.
        self.supports_jit = False
        self.means = RunningMeans(metrics)

    @property
    def metrics(self):
        """Metrics that Keras resets at every epoch."""
        return [self.means]

    def compile(self, optimizer="rmsprop", **options):
        """Set the optimizer.

        Args:
          optimizer: object or name.
          **options: as for `keras.Model.compile`.

        Raises:
          ValueError: losses or metrics, which the model has itself.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if options.get(name) is not None:
                received = f"{name}={options[name]!r}"
                raise ValueError(f"the model has its own losses and metrics. Received: {received}. Leave it out.")
        super().compile(optimizer, **options)

    def compile_from_config(self, config):
        """Compile a model that `load_model` rebuilt."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.build_optimizers()

    def run_step(self, strategy: tf.distribute.Strategy, batch):
        """Run `train_step` on all replicas; called by the loop of `lts.training`."""
        return strategy.run(self.train_step, (batch,))

    def build_optimizers(self) -> None:
        """Create the optimizers' variables."""
        self.optimizer.build(self.trainable_variables)


class AlternatingStep:
    """Training step of a player and its opponents, which train in every Nth step (ours).

    N is the configuration's `repair_every`. The class stands before the model in a list of bases. It needs `config` and
    `optimizer`. A subclass implements `train_players(data, opponent_trains=True)`: a step that returns the mean losses.
    """

    def train_step(self, data):
        """Run one step of all players, or of the first alone; return the mean losses."""
        if self.config.gan_training.repair_every == 1:
            return self.train_players(data)
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return self.choose_step(lambda opponent_trains: self.train_players(data, opponent_trains))
        every = self.config.gan_training.repair_every
        raise ValueError(
            f"fit on several replicas trains all players in every step. Received: repair_every={every}. "
            "Use lts.training."
        )

    def run_step(self, strategy, batch):
        if self.config.gan_training.repair_every == 1:
            return super().run_step(strategy, batch)
        # NB: replicas cannot meet inside of a condition, so it is around them.
        return self.choose_step(lambda opponent_trains: strategy.run(self.train_players, (batch, opponent_trains)))

    def choose_step(self, run):
        """Return `run(opponent_trains)`; the argument is true in every Nth step."""
        opponent_trains = self.optimizer.iterations % self.config.gan_training.repair_every == 0
        return tf.cond(opponent_trains, lambda: run(True), lambda: run(False))


class TrainableModel(CustomStepModel):
    """Model with one loss and one optimizer.

    A subclass implements `compute_losses(batch, training=True)`: scalars by name, with their sum "loss". It lists these
    names and "gradient_norm" in METRICS.

    Args:
      metrics: names to use instead of METRICS, for a model whose terms depend on its arguments.
    """

    METRICS: tuple[str, ...] = ("loss", "gradient_norm")

    def __init__(self, metrics: tuple[str, ...] = (), **kwargs):
        super().__init__(metrics or self.METRICS, **kwargs)

    def unpack(self, data):
        """Return the batch that `compute_losses` takes; `data` comes from `fit`."""
        return data

    def gradients(self, batch, scaled: bool = False):
        """Return the losses and a replica's share of the gradients.

        `scaled` multiplies the gradients by the optimizer's loss scale, which its `apply` expects.
        """
        with tf.GradientTape() as tape:
            losses = self.compute_losses(batch)
            share = replicas.scale_loss(losses["loss"])  # inside the tape: it scales the gradients
            if scaled:
                share = self.optimizer.scale_loss(share)
        return losses, tape.gradient(share, tf_variables(self))

    def train_step(self, data):
        """Run one step and return the mean losses."""
        losses, gradients = self.gradients(self.unpack(data), scaled=True)
        values = replicas.replica_means(losses)
        # NB: a step whose loss is not finite must change no weight.
        with tf.control_dependencies(check_finite(values)):
            self.optimizer.apply(gradients, self.trainable_variables)
            values["gradient_norm"] = gradient_norm(self.optimizer)
        return self.means.update(values)

    def test_step(self, data):
        """Return the mean losses with inference batch norm."""
        losses = self.compute_losses(self.unpack(data), training=False)
        return self.means.update(replicas.replica_means(losses))

    def histograms(self, batch) -> dict:
        """Return the trainable weights and their gradients on a batch."""
        with preserve_moving_statistics(self):
            _, gradients = self.gradients(batch)
        return weights_and_gradients(self, self.trainable_variables, gradients)
