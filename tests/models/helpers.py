"""Small models and batches for the tests of the two stages."""

import keras
import numpy as np
import tensorflow as tf

from lts.config import Config, preset
from lts.models.autoencoder import Autoencoder
from lts.models.classifier import Classifier
from lts.models.gan import DamageRepairGAN
from lts.training.optimizers import build_optimizer


def small_config(**overrides) -> Config:
    """The release's losses and normalisation on 32x32 images, with 4x4 cells."""
    sizes = {
        "image_size": 32,
        "encoder_widths": "4,6,8,8",
        "trunk_widths": "8,8,8,8,8",
        "conv_1_kernel": 5,
        "conv_1_stride": 2,
        "fc_width": 16,
        "steps": 100,
    }
    return preset("release", **{**sizes, **overrides})


def images(batch: int = 4, seed: int = 0, size: int = 32) -> tf.Tensor:
    """Images in [-1, 1]."""
    return tf.constant(np.random.RandomState(seed).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32))


def autoencoder(dtype="float32", **overrides) -> Autoencoder:
    """A compiled stage 1 model, the same at every call."""
    keras.utils.set_random_seed(1)
    model = Autoencoder(small_config(**overrides), dtype=dtype)
    model.build((None, 32, 32, 3))
    model.compile(optimizer=build_optimizer(model.config.stage_1, 100, 3e-4))
    model.optimizer.build(model.trainable_variables)
    return model


def classifier(turns=False, dtype="float32", head="fc", frozen=0, **overrides) -> Classifier:
    """A compiled classifier of 5 classes, or of turns, the same at every call."""
    keras.utils.set_random_seed(1)
    model = Classifier(small_config(**overrides), 4 if turns else 5, turns, head, frozen, dtype=dtype)
    model.build((None, 32, 32, 3))
    model.compile(optimizer=build_optimizer(model.config.stage_2, 100, model.config.stage_2.learning_rate))
    model.optimizer.build(model.trainable_variables)
    return model


def gan(dtype="float32", **overrides) -> DamageRepairGAN:
    """A compiled stage 2 model, the same at every call."""
    keras.utils.set_random_seed(1)
    model = DamageRepairGAN(small_config(**overrides), dtype=dtype)
    model.build((None, 32, 32, 3))
    config = model.config.stage_2
    rates = config.learning_rate, config.repair_learning_rate
    model.compile(*(build_optimizer(config, 100, rate) for rate in rates))
    model.optimizer.build(model.discriminator.trainable_variables)
    if model.repair:
        model.g_optimizer.build(model.repair.trainable_variables)
    return model


def snapshot(network) -> dict:
    """Path to a copy of every variable's value."""
    return {variable.path: variable.numpy().copy() for variable in network.variables}


def moved(network, before: dict) -> set[str]:
    """Paths of the variables that are not bit-identical to the snapshot."""
    return {v.path for v in network.variables if not np.array_equal(v.numpy(), before[v.path])}
