"""The release's Adam and SGD with momentum, as Keras optimizers."""

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


class ClippedOptimizer:
    """Mixin that clips and records the global gradient norm.

    This project; the release does not clip. `gradient_norm` holds the norm of the last step, before clipping.
    `summed_clipnorm` is the largest norm of the gradient summed over replicas; 0 does not clip.

    NB: Keras' own attribute `global_clipnorm` clips the share of each replica before the sum (measured, TensorFlow
    2.21). The result would depend on the number of replicas, hence the other name.
    """

    summed_clipnorm = 0.0

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", aggregation="only_first_replica", name="gradient_norm"
        )

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


@keras.saving.register_keras_serializable("lts")
class ReleaseAdam(ClippedOptimizer, keras.optimizers.Adam):
    """Adam as in the release.

    Epsilon stands outside the bias correction ("epsilon hat"), as in Keras. Two things are added from the release
    (BUILD_NOTES traps 11 and 14). Gradients of biases are multiplied by `bias_gradient_factor`. Every weight has a
    moving average of its value before the step, with decay `min(ema_decay, (1 + step) / (10 + step))`.

    The update is TensorFlow's fused operation: 33 ms for 37.7 M parameters, 106 ms with Keras' own update.

    Args:
      learning_rate: number or Keras schedule.
      bias_gradient_factor: multiplies gradients of variables named "bias" (not "beta"), after clipping.
      ema_decay: decay of the moving averages; 0 keeps none.
      summed_clipnorm: see `ClippedOptimizer`.
      **kwargs: as for `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate,
        bias_gradient_factor: float = 2.0,
        ema_decay: float = 0.0,
        summed_clipnorm: float = 0.0,
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.bias_gradient_factor = bias_gradient_factor
        self.ema_decay = ema_decay
        self.summed_clipnorm = summed_clipnorm
        self.averages = []

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = _bias_factors(variables, self.bias_gradient_factor)
        if self.ema_decay:
            self.averages = self.add_optimizer_variables(variables, "average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    def slots(self) -> Iterator[tuple]:
        """Iterate over (variable, both moments, average or None)."""
        averages = self.averages or [None] * len(self._momentums)
        return zip(self._trainable_variables, self._momentums, self._velocities, averages, strict=True)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value, tf.float32)
        # The average comes first: it takes the value before the step (trap 14).
        if self.ema_decay:
            decay = tf.minimum(self.ema_decay, (1 + step) / (10 + step))
            average = self.averages[index].value
            tf.raw_ops.ResourceApplyGradientDescent(var=average.handle, alpha=1 - decay, delta=average - variable)
        if self._factors[index] != 1.0:
            gradient = gradient * self._factors[index]
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

    def get_config(self):
        names = ("bias_gradient_factor", "ema_decay", "summed_clipnorm")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("lts")
class MomentumSGD(ClippedOptimizer, keras.optimizers.SGD):
    """SGD with momentum and its own rate for biases.

    The learning rate is part of the velocity, as in Caffe. PyTorch (RotNet) and TensorFlow 1 (LCI) multiply the
    velocity instead. The two differ for the few steps after a drop of the rate.

    Args:
      learning_rate: number or Keras schedule.
      bias_gradient_factor: multiplies the learning rate of variables named "bias" (Fast R-CNN and FCN: 2).
      summed_clipnorm: see `ClippedOptimizer`.
      **kwargs: as for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate, bias_gradient_factor: float = 1.0, summed_clipnorm: float = 0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.bias_gradient_factor = bias_gradient_factor
        self.summed_clipnorm = summed_clipnorm

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = _bias_factors(variables, self.bias_gradient_factor)

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        names = ("bias_gradient_factor", "summed_clipnorm")
        return super().get_config() | {name: getattr(self, name) for name in names}


# Name to class and the fields of a configuration that become its arguments.
OPTIMIZERS = {
    "adam": (ReleaseAdam, ("beta_1", "beta_2", "epsilon", "bias_gradient_factor", "ema_decay")),
    "sgd": (MomentumSGD, ("momentum", "nesterov", "bias_gradient_factor")),
}


def build_optimizer(config: Any, steps: int, learning_rate: Any) -> keras.optimizers.Optimizer:
    """Return an optimizer with the constants of a configuration.

    Args:
      config: `TrainingConfig`, or a protocol of `experiments` with the same field names. `config.optimizer` is a key
        of `OPTIMIZERS`; "adam" if there is no such field. A field it lacks keeps the optimizer's default.
      steps: training steps of the run, for the linear decay.
      learning_rate: first rate of the release's linear decay, or a Keras schedule.
    """
    if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        learning_rate = linear_decay(learning_rate, steps, config.end_lr_fraction, config.decay_fraction)
    optimizer, fields = OPTIMIZERS[getattr(config, "optimizer", "adam")]
    constants = {name: getattr(config, name) for name in fields if hasattr(config, name)}
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


def _bias_factors(variables, factor: float) -> list[float]:
    """Return `factor` for biases and 1 otherwise."""
    return [factor if variable.name == "bias" else 1.0 for variable in variables]
