"""The modules under test: name, constructor, inputs, parameter count. The suites of test_modules.py loop over it."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from lts.config import preset
from lts.models.autoencoder import Autoencoder
from lts.models.classifier import Classifier
from lts.models.gan import DamageRepairGAN
from lts.networks import layers
from lts.networks.autoencoder import Decoder, Encoder
from lts.networks.discriminator import Discriminator, Trunk, TrunkClassifier
from lts.networks.repair import RepairLayer, RepairNetwork

TINY = preset("tiny")  # 48x48 images, 6x6 cells, encoder widths 8, 16, 32, 64
AUTO, DISC = TINY.autoencoder, TINY.discriminator
LRN = preset("tiny", trunk_norm="lrn").discriminator


@dataclasses.dataclass(frozen=True)
class Module:
    """A module under test.

    Attributes:
      name: of the test.
      make: constructor, takes `dtype`.
      inputs: shapes of the inputs; a last channel of 1 is a mask of 0 and 1.
      parameters: number of trainable weights.
      call: runs (module, inputs, training) and returns a tensor or a dict of tensors.
      float32: names of the outputs that stay float32 under mixed precision, where the output is a dict.
      deterministic: the same inputs give the same outputs.
    """

    name: str
    make: Callable
    inputs: tuple[tuple[int, ...], ...]
    parameters: int
    call: Callable = lambda module, inputs, training: module(*inputs, training=training)
    float32: tuple[str, ...] = ()
    deterministic: bool = True

    def build(self, dtype="float32"):
        """The module with weights and random statistics, the same at every call."""
        keras.utils.set_random_seed(1)
        module = self.make(dtype=dtype)
        module.build(self.inputs[0])
        for index, variable in enumerate(module.variables):
            if variable.name in ("moving_mean", "moving_variance", "gamma", "beta", "bias"):
                noise = np.random.RandomState(index).uniform(0, 0.2, variable.shape)
                variable.assign_add(noise)
        return module

    def draw(self, dtype="float32", seed: int = 0) -> list:
        """Inputs: masks of 0 and 1, everything else in [-1, 1]."""
        rs = np.random.RandomState(seed)
        numbers = [rs.uniform(-1, 1, shape) for shape in self.inputs]
        return [tf.constant(x > 0 if x.shape[-1] == 1 else x, dtype) for x in numbers]

    def run(self, module, inputs, training: bool = False) -> dict:
        """Outputs as a dict of tensors."""
        out = self.call(module, inputs, training)
        return out if isinstance(out, dict) else {"output": out}


@functools.cache
def _decoder(dtype: str) -> Decoder:
    """The decoder under the repair network, one for each precision, with the same weights."""
    keras.utils.set_random_seed(2)
    decoder = Decoder(AUTO, dtype=dtype)
    decoder.build((2, 6, 6, 64))
    return decoder


def _repair(module, inputs, training):
    """The repair network's call with a decoder."""
    with tf.init_scope():
        decoder = _decoder(module.dtype_policy.name)
    return module(*inputs, decoder=decoder, training=training)


def _pass(module, inputs, training):
    """A whole model's pass with given random numbers."""
    keep = tf.cast(tf.reshape(tf.range(72) % 3 == 0, [2, 6, 6, 1]), tf.float32)
    out = module.forward(*inputs, keep, training=training)
    return {name: value for name, value in out.items() if not name.startswith("conv")}


MODULES = (
    Module("batch_norm", lambda dtype: layers.BatchNorm(dtype=dtype), ((2, 6, 6, 8),), 16),
    Module("batch_norm_shift", lambda dtype: layers.BatchNorm(scale=False, dtype=dtype), ((2, 6, 6, 8),), 8),
    Module("conv", lambda dtype: layers.ConvBlock(5, 3, dtype=dtype), ((2, 6, 6, 4),), 9 * 4 * 5 + 5),
    Module(
        "conv_norm",
        lambda dtype: layers.ConvBlock(5, 2, 2, norm="scale", activation="leaky_relu", dtype=dtype),
        ((2, 6, 6, 4),),
        4 * 4 * 5 + 10,
    ),
    Module(
        "grouped",
        lambda dtype: layers.GroupedConvBlock(6, 3, norm="shift", activation="relu", dtype=dtype),
        ((2, 6, 6, 4),),
        9 * 4 * 6 // 2 + 6,
    ),
    Module("repair_layer", lambda dtype: RepairLayer(8, dtype=dtype), ((2, 6, 6, 8), (2, 6, 6, 1)), 1248),
    Module("encoder", lambda dtype: Encoder(AUTO, dtype=dtype), ((2, 48, 48, 3),), 11_208),
    Module("decoder", lambda dtype: Decoder(AUTO, dtype=dtype), ((2, 6, 6, 64),), 24_523),
    Module(
        "repair", lambda dtype: RepairNetwork(AUTO, dtype=dtype), ((2, 6, 6, 64), (2, 6, 6, 1)), 99_360, call=_repair
    ),
    Module("trunk", lambda dtype: Trunk(DISC, dtype=dtype), ((2, 48, 48, 3),), 147_832),
    Module("trunk_lrn", lambda dtype: Trunk(LRN, dtype=dtype), ((2, 48, 48, 3),), 147_488),
    Module(
        "discriminator",
        lambda dtype: Discriminator(DISC, dtype=dtype),
        ((2, 48, 48, 3),),
        739_003,
        float32=("logits", "mask_logits"),
    ),
    Module(
        "trunk_classifier",
        lambda dtype: TrunkClassifier(DISC, classes=10, dtype=dtype),
        ((2, 48, 48, 3),),
        739_003 - 577 + 8 * 257,
        float32=("logits",),
    ),
    Module(
        "trunk_classifier_linear",
        lambda dtype: TrunkClassifier(DISC, classes=10, head="linear", dtype=dtype),
        ((2, 48, 48, 3),),
        147_832 + 36 * 64 * 10 + 10,
        float32=("logits",),
    ),
    Module(
        "trunk_classifier_pooled_frozen",
        lambda dtype: TrunkClassifier(DISC, classes=10, head="pooled", frozen=2, dtype=dtype),
        ((2, 48, 48, 3),),
        147_832 - 3_576 - 19_328 + 64 * 10 + 10,
        float32=("logits",),
    ),
    Module("autoencoder", lambda dtype: Autoencoder(TINY, dtype=dtype), ((2, 48, 48, 3),), 35_731),
    Module(
        "classifier",
        lambda dtype: Classifier(TINY, turns=True, dtype=dtype),
        ((2, 48, 48, 3),),
        738_940,
        call=lambda module, inputs, training: {"logits": module(*inputs, training=training)},
        float32=("logits",),
    ),
    Module(
        "gan",
        lambda dtype: DamageRepairGAN(TINY, dtype=dtype),
        ((2, 48, 48, 3),),
        739_003 + 99_360,
        call=_pass,
        float32=("logits", "mask_logits"),
    ),
)
