"""Checkpoints of the authors' public TensorFlow 1 release, and our variables under the names in them.

The release's program calls its networks encoder, decoder, generator and
discriminator and its variables weights, biases, BatchNorm/...; BUILD_NOTES trap
16 has the irregular ones. Beside a weight W lie Adam's moments W/Adam and
W/Adam_1 and the moving average W/ExponentialMovingAverage.
"""

import os
import re

import keras
import numpy as np
import tensorflow as tf

from lts.networks.variables import variables_by_path
from lts.utils.errors import UserError, first_line

MOMENTS = ("/Adam", "/Adam_1")  # behind a weight's name: Adam's first and second moment
AVERAGE = "/ExponentialMovingAverage"
STEP, POWERS = "global_step", ("beta1_power", "beta2_power")
_LEAVES = {"kernel": "weights", "bias": "biases"}


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or that does not hold what is asked of it."""


class ReleaseCheckpoint:
    """A TensorFlow 1 checkpoint, read tensor by tensor.

    Args:
      path: what the release's program saved to, as ".../model.ckpt-2"; the name of one of its files, or a folder whose
        newest checkpoint is meant, will do too.

    Attributes:
      name: of the checkpoint, without its folder.
      shapes: name of each tensor in it to its shape.

    Raises:
      CheckpointError: no checkpoint there, or one that cannot be read.
    """

    def __init__(self, path: str | os.PathLike):
        prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+|)$", "", os.fspath(path))
        prefix = tf.train.latest_checkpoint(prefix) or prefix
        if tf.io.gfile.isdir(prefix) or not (tf.io.gfile.exists(f"{prefix}.index") or tf.io.gfile.exists(prefix)):
            raise CheckpointError(f"there is no TensorFlow checkpoint at {path!s}: give the path up to .index")
        self.name = os.path.basename(prefix)
        try:
            self._reader = tf.train.load_checkpoint(prefix)
        except Exception as error:  # TensorFlow's reader raises IndexError, RuntimeError, OpError and others
            raise CheckpointError(f"{prefix} cannot be read as a TensorFlow checkpoint: {first_line(error)}") from None
        shapes = self._reader.get_variable_to_shape_map()
        self.shapes = {name: tuple(shapes[name]) for name in sorted(shapes)}

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def read(self, name: str) -> np.ndarray:
        """The value of a tensor, checked against the checksum in the checkpoint; raises `CheckpointError`."""
        try:
            return self._reader.get_tensor(name)
        except Exception as error:  # as above
            raise CheckpointError(f"{name} in {self.name} cannot be read: {first_line(error)}") from None


def release_name(path: str, num_strides: int) -> str:
    """The release's name of a variable of ours.

    Args:
      path: Keras path from the network on, as "repair/repair_0/conv_1/kernel".
      num_strides: stride-2 layers of the encoder; the decoder's last two names hang on it.

    Returns:
      The name without ":0", as "generator/repair_0/conv1/weights".
    """
    network, *scopes, leaf = path.split("/")
    if scopes and scopes[0] == "trunk":
        scopes = scopes[1:]
    if network == "decoder":
        last = f"deconv_{num_strides - 1}"
        scopes[0] = {last: f"deconv_{num_strides}", "to_image": f"deconv_{num_strides + 1}"}.get(scopes[0], scopes[0])
    if network == "repair":
        network = "generator"
        scopes[1] = scopes[1].replace("_", "")
    scopes = [{"batch_norm": "BatchNorm", "mask_head": "drop_pred"}.get(scope, scope) for scope in scopes]
    return "/".join([network, *scopes, _LEAVES.get(leaf, leaf)])


def release_variables(*networks: keras.Model, num_strides: int = 4) -> dict[str, keras.Variable]:
    """All variables of built networks of ours (encoder, decoder, repair, discriminator) under the release's names.

    Args:
      *networks: built networks of `lts.networks`.
      num_strides: stride-2 layers of the encoder, 4 in the release.

    Returns:
      Dict from release name, without ":0", to variable. Shapes are the same as the release's.
    """
    names = {}
    for network in networks:
        for path, variable in variables_by_path(network).items():
            names[release_name(f"{network.name}/{path}", num_strides)] = variable
    return names
