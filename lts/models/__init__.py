"""The models: networks with losses and a training step.

Each is a `keras.Model` whose `fit` works; `lts.training.train` runs them with checkpoints and monitoring.
"""

from lts.models.autoencoder import Autoencoder
from lts.models.base import TrainableModel
from lts.models.classifier import RotationPredictor, SupervisedClassifier
from lts.models.gan import DamageRepairGAN

__all__ = ["Autoencoder", "DamageRepairGAN", "RotationPredictor", "SupervisedClassifier", "TrainableModel"]
