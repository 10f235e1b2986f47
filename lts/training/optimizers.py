"""The release's Adam, AdamW and SGD with momentum, as Keras optimizers."""

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from lts.config import ConfigError
from lts.config.registries import OPTIMIZERS


class SharedOptimizer:
    """Mixin with what every optimizer of the project does (ours).

    It multiplies gradients of biases, keeps moving averages, and clips and records the global gradient norm. With
    `weight_decay` it decays kernels alone, decoupled from the gradient (Loshchilov and Hutter, 2019). `gradient_norm`
    holds the norm of the last step, before clipping. A moving average is of the weight's value before the step, with
    decay `min(ema_decay, (1 + step) / (10 + step))` (release; BUILD_NOTES trap 14).

    NB: Keras' own attribute `global_clipnorm` clips the share of each replica before the sum (measured, TensorFlow
    2.21). The result would depend on the number of replicas, hence the name `summed_clipnorm`.

    Args:
      learning_rate: number or Keras schedule.
      bias_gradient_factor: multiplies gradients of variables named "bias" (not "beta"), after clipping.
      ema_decay: decay of the moving averages; 0 keeps none.
      summed_clipnorm: largest norm of the gradient summed over replicas; 0 does not clip.
      **kwargs: as for the Keras optimizer that follows in the list of bases.

    Attributes:
      FIELDS: fields of a configuration that become further arguments, see `build_optimizer`.
      DECOUPLED: whether weight decay is always decoupled.
    """

    FIELDS: tuple[str, ...] = ()
    DECOUPLED = False
    SHARED_FIELDS = ("bias_gradient_factor", "ema_decay")

    def __init__(
        self,
        learning_rate,
        bias_gradient_factor: float = 1.0,
        ema_decay: float = 0.0,
        summed_clipnorm: float = 0.0,
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.bias_gradient_factor = bias_gradient_factor
        self.ema_decay = ema_decay
        self.summed_clipnorm = summed_clipnorm
        self.averages = []
        self.exclude_from_weight_decay(var_names=[r"^(?!kernel\b)"])  # a pattern: all names but "kernel"

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", aggregation="only_first_replica", name="gradient_norm"
        )
        self._factors = [self.bias_gradient_factor if v.name == "bias" else 1.0 for v in variables]
        if self.ema_decay:
            self.averages = self.add_optimizer_variables(variables, "average")
            self.reset_averages()

    # NB: a private method of Keras 3. It is the only place between the sum over replicas and the update.
    # tests/training/test_optimizers.py fails with a clear message if a Keras release drops it.
    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Return the clipped gradients of the global batch."""
        summed = super()._all_reduce_sum_gradients(grads_and_vars)
        gradients = [gradient for gradient, _ in summed]
        variables = [variable for _, variable in summed]
        norm = tf.linalg.global_norm(gradients)
        self.gradient_norm.assign(norm)
        if self.summed_clipnorm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.summed_clipnorm, norm)
        return list(zip(gradients, variables, strict=True))

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        # The average comes first: it takes the value before the step (trap 14).
        if self.ema_decay:
            step = tf.cast(self.iterations.value, tf.float32)
            decay = tf.minimum(self.ema_decay, (1 + step) / (10 + step))
            average = self.averages[index].value
            tf.raw_ops.ResourceApplyGradientDescent(var=average.handle, alpha=1 - decay, delta=average - variable)
        if self._factors[index] != 1.0:
            gradient = gradient * self._factors[index]
        self.update_weight(gradient, variable, learning_rate)

    def update_weight(self, gradient, variable, learning_rate):
        """Update one weight: Keras' update, unless a subclass has another."""
        super().update_step(gradient, variable, learning_rate)

    def reset_averages(self) -> None:
        """Let every moving average start at the weight's present value."""
        for average, variable in zip(self.averages, self._trainable_variables, strict=False):
            average.assign(variable)

    def get_config(self):
        names = ("bias_gradient_factor", "ema_decay", "summed_clipnorm")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("lts")
class ReleaseAdam(SharedOptimizer, keras.optimizers.Adam):
    """Adam as in the release.

    Epsilon stands outside the bias correction ("epsilon hat"), as in Keras. Gradients of biases are multiplied by
    `bias_gradient_factor` (BUILD_NOTES trap 11).

    The update is TensorFlow's fused operation: 33 ms for 37.7 M parameters, 106 ms with Keras' own update.

    Args:
      learning_rate: number or Keras schedule.
      bias_gradient_factor: see `SharedOptimizer`.
      **kwargs: as for `SharedOptimizer` and `keras.optimizers.Adam`.
    """

    FIELDS = ("beta_1", "beta_2", "epsilon")

    def __init__(self, learning_rate, bias_gradient_factor: float = 2.0, **kwargs):
        super().__init__(learning_rate, bias_gradient_factor, **kwargs)

    def slots(self) -> Iterator[tuple]:
        """Iterate over (variable, both moments, average or None)."""
        averages = self.averages or [None] * len(self._momentums)
        return zip(self._trainable_variables, self._momentums, self._velocities, averages, strict=True)

    def update_weight(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1 ** (step + 1),
            beta2_power=self.beta_2 ** (step + 1),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


@keras.saving.register_keras_serializable("lts")
class AdamW(ReleaseAdam):
    """`ReleaseAdam` with decoupled weight decay (Loshchilov and Hutter, 2019; ours)."""

    DECOUPLED = True


@keras.saving.register_keras_serializable("lts")
class MomentumSGD(SharedOptimizer, keras.optimizers.SGD):
    """SGD with momentum (ours).

    The learning rate is part of the velocity, as in Caffe. PyTorch (RotNet) and TensorFlow 1 (LCI) multiply the
    velocity instead. The two differ for the few steps after a drop of the rate. `bias_gradient_factor=2` gives biases
    twice the rate, as in Fast R-CNN and FCN.
    """

    FIELDS = ("momentum", "nesterov")


def build_optimizer(
    config: Any, steps: int, learning_rate: Any, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Return an optimizer with the constants of a configuration (ours).

    It decays weights, and the loss of the models in `lts.models` does not, where `config.decoupled_weight_decay` or the
    optimizer's `DECOUPLED` is set.

    Args:
      config: `TrainingConfig`, or a protocol of `experiments` with the same field names. `config.optimizer` is a key
        of `OPTIMIZERS`. A field it lacks keeps the optimizer's default.
      steps: training steps of the run, for the linear decay.
      learning_rate: first rate of the release's linear decay, or a Keras schedule.
      weight_decay: decoupled, see above: kernels shrink by learning_rate * weight_decay * kernel in each step.

    Raises:
      UnknownNameError: no optimizer has this name.
      ConfigError: the optimizer is none of the project's.
    """
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        learning_rate = linear_decay(learning_rate, steps, config.end_lr_fraction, config.decay_fraction)
    optimizer = OPTIMIZERS[config.optimizer]
    if not issubclass(optimizer, SharedOptimizer):
        raise ConfigError(
            f"an optimizer must be a subclass of SharedOptimizer, or nothing would be clipped. Received: "
            f"optimizer={config.optimizer!r} of {optimizer.__module__}"
        )
    constants = {}
    for name in (*optimizer.SHARED_FIELDS, *optimizer.FIELDS):
        if hasattr(config, name):
            constants[name] = getattr(config, name)
    if optimizer.DECOUPLED or getattr(config, "decoupled_weight_decay", False):
        constants["weight_decay"] = weight_decay
    return optimizer(learning_rate, summed_clipnorm=getattr(config, "global_clipnorm", 0.0), **constants)


def linear_decay(learning_rate: float, steps: int, end_lr_fraction: float = 0.01, decay_fraction: float = 0.9):
    """Return the release's schedule, linear and then constant.

    Args:
      learning_rate: the first rate.
      steps: training steps of the run.
      end_lr_fraction: last rate as a fraction of the first.
      decay_fraction: fraction of the steps after which the rate is constant.
    """
    return keras.optimizers.schedules.PolynomialDecay(
        learning_rate, decay_fraction * steps, end_learning_rate=end_lr_fraction * learning_rate
    )
