"""The release's Adam and its learning rate, as Keras objects."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from lts.config import TrainingConfig


class GlobalNorm:
    """Mixin of Keras optimizers: clips by the norm of the whole gradient, and keeps it in `gradient_norm` (ours).

    `summed_clipnorm` is the largest norm, over all variables, of a step's sum over replicas; 0 does not clip.
    """

    summed_clipnorm = 0.0

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", aggregation="only_first_replica", name="gradient_norm"
        )

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras' sum over replicas; what follows sees the gradient of the global batch, the same on each."""
        gradients, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        norm = tf.linalg.global_norm(gradients)
        self.gradient_norm.assign(norm)
        if self.summed_clipnorm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.summed_clipnorm, norm)
        return list(zip(gradients, variables, strict=True))


@keras.saving.register_keras_serializable("lts")
class ReleaseAdam(GlobalNorm, keras.optimizers.Adam):
    """Adam as the release runs it (BUILD_NOTES traps 11 and 14).

    Epsilon stands outside the bias correction ("epsilon hat"), as in Keras. Ours
    adds two things of the release: gradients of biases count
    `bias_gradient_factor` times, and a moving average of every weight, of its
    value before the step, with decay min(ema_decay, (1 + step) / (10 + step)).
    The update is TensorFlow's fused operation, three times as fast as Keras' own.

    Clipping is `GlobalNorm`'s: Keras' own `global_clipnorm` clips every replica's share by itself.

    Args:
      bias_gradient_factor: multiplies gradients of variables named "bias" (not "beta"), after clipping.
      ema_decay: 0 keeps no average.
      summed_clipnorm: largest global norm of a step's gradient; 0 does not clip.
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
        self.bias_gradient_factor, self.ema_decay, self.summed_clipnorm = (
            bias_gradient_factor,
            ema_decay,
            summed_clipnorm,
        )
        self.averages = []

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = [self.bias_gradient_factor if v.name == "bias" else 1.0 for v in variables]
        if self.ema_decay:
            self.averages = self.add_optimizer_variables(variables, "average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    def slots(self) -> Iterator[tuple]:
        """(variable, first moment, second moment, average or None) of every variable of a built optimizer."""
        averages = self.averages or [None] * len(self._momentums)
        return zip(self._trainable_variables, self._momentums, self._velocities, averages, strict=True)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value, tf.float32)
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
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def linear_decay(learning_rate: float, steps: int, end_lr_fraction: float = 0.01, decay_fraction: float = 0.9):
    """Keras schedule: linear to `end_lr_fraction` times `learning_rate` over `decay_fraction` of the steps (release)."""
    return keras.optimizers.schedules.PolynomialDecay(
        learning_rate, decay_fraction * steps, end_learning_rate=end_lr_fraction * learning_rate
    )


def build_optimizer(stage: TrainingConfig, steps: int, learning_rate: float) -> ReleaseAdam:
    """The optimizer of one player, with the stage's constants and a linear decay over `steps`."""
    return ReleaseAdam(
        linear_decay(learning_rate, steps, stage.end_lr_fraction, stage.decay_fraction),
        beta_1=stage.beta_1,
        beta_2=stage.beta_2,
        epsilon=stage.epsilon,
        bias_gradient_factor=stage.bias_gradient_factor,
        ema_decay=stage.ema_decay,
        summed_clipnorm=stage.global_clipnorm,
    )
