"""Stochastic gradient descent for the protocols that ask for it."""

import keras

from lts.training.optimizers import GlobalNorm


@keras.saving.register_keras_serializable("lts")
class MomentumSGD(GlobalNorm, keras.optimizers.SGD):
    """SGD with momentum, the rate being part of the velocity, that clips by its gradient's norm (Caffe; ours).

    Args:
      bias_rate: biases learn at so many times the rate (Fast R-CNN and FCN: 2).
      summed_clipnorm: largest global norm; 0 does not clip.
      **kwargs: as for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate, bias_rate: float = 1.0, summed_clipnorm: float = 0.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.bias_rate, self.summed_clipnorm = bias_rate, summed_clipnorm

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._factors = [self.bias_rate if v.name == "bias" else 1.0 for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return {**super().get_config(), "bias_rate": self.bias_rate, "summed_clipnorm": self.summed_clipnorm}
