"""Stochastic gradient descent for the protocols that ask for it."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("lts")
class MomentumSGD(keras.optimizers.SGD):
    """SGD with momentum, the rate being part of the velocity, that knows the norm of its gradient (Caffe; ours).

    Gradients are clipped by the global norm of the step's sum over replicas, and `gradient_norm` holds that norm, as
    `ReleaseAdam` has it.

    Args:
      bias_rate: biases learn at so many times the rate (Fast R-CNN and FCN: 2).
      clip_norm: largest global norm; 0 does not clip.
      **kwargs: as for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate, bias_rate: float = 1.0, clip_norm: float = 0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.bias_rate, self.clip_norm = bias_rate, clip_norm

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", aggregation="only_first_replica", name="gradient_norm"
        )
        self._factors = [self.bias_rate if v.name == "bias" else 1.0 for v in variables]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras' sum over replicas; what follows sees the gradient of the global batch, the same on each."""
        gradients, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        norm = tf.linalg.global_norm(gradients)
        self.gradient_norm.assign(norm)
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm, norm)
        return list(zip(gradients, variables, strict=True))

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return {**super().get_config(), "bias_rate": self.bias_rate, "clip_norm": self.clip_norm}
