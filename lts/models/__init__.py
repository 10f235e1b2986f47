"""The two keras.Model subclasses: stage 1 and stage 2."""

from lts.models.autoencoder import Autoencoder
from lts.models.gan import DamageRepairGAN

__all__ = ["Autoencoder", "DamageRepairGAN"]
