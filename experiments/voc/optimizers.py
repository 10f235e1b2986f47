"""Stochastic gradient descent as the VOC protocols' Caffe solvers run it."""

import keras
import tensorflow as tf

from experiments.voc.protocols import VocProtocol
from lts.config import StageConfig
from lts.training import optimizers


@keras.saving.register_keras_serializable("lts")
class CaffeSGD(keras.optimizers.SGD):
    """SGD with momentum: the rate is part of the velocity, biases learn at twice the rate (Fast R-CNN; FCN).

    Gradients are clipped by the global norm of the step's sum over replicas, and `gradient_norm` holds that norm.

    Args:
      clip_norm: largest global norm; 0 does not clip.
      **kwargs: as for `keras.optimizers.SGD`.
    """

    BIAS_RATE = 2.0

    def __init__(self, learning_rate, clip_norm: float = 0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.clip_norm = clip_norm

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), initializer="zeros", aggregation="only_first_replica", name="gradient_norm"
        )
        self._factors = [self.BIAS_RATE if v.name == "bias" else 1.0 for v in variables]

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
        return {**super().get_config(), "clip_norm": self.clip_norm}


def build_optimizer(protocol: VocProtocol, settings: StageConfig) -> keras.optimizers.Optimizer:
    """The protocol's optimizer, not built yet.

    Args:
      protocol: says which, and how its rate falls.
      settings: the run's schedule; of "adam" also its other constants.
    """
    if protocol.optimizer == "adam":
        return optimizers.build_optimizer(settings, protocol.steps, protocol.learning_rate)
    rate = protocol.learning_rate
    if protocol.rate_steps:
        rate = keras.optimizers.schedules.ExponentialDecay(
            rate, protocol.rate_steps, protocol.rate_factor, staircase=True
        )
    return CaffeSGD(rate, momentum=protocol.momentum, clip_norm=protocol.clip_norm)
