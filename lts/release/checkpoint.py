"""Checkpoints of the TensorFlow 1 release and their variable names.

The release names its networks encoder, decoder, generator and discriminator, and its variables weights, biases and
BatchNorm/... Next to a weight W it saves Adam's moments W/Adam and W/Adam_1 and the moving average
W/ExponentialMovingAverage. BUILD_NOTES trap 16 lists the irregular names.
"""

import contextlib
import glob
import os
import re

import keras
import numpy as np
import tensorflow as tf

from lts.networks.variables import variables_by_path
from lts.utils.errors import UserError, first_line
from lts.utils.files import check_regular
from lts.utils.patterns import plain_path

MOMENTS = ("/Adam", "/Adam_1")  # suffixes of a weight's name: Adam's first and second moment
AVERAGE = "/ExponentialMovingAverage"
STEP = "global_step"
POWERS = ("beta1_power", "beta2_power")
_SCOPES = {"batch_norm": "BatchNorm", "mask_head": "drop_pred"}
_LEAVES = {"kernel": "weights", "bias": "biases"}


class CheckpointError(UserError):
    """A release checkpoint that is unreadable or does not fit."""


class ReleaseCheckpoint:
    """A TensorFlow 1 checkpoint, read tensor by tensor.

    Args:
      path: prefix that the release saved to, such as ".../model.ckpt-2". The name of one of its files is accepted too,
        and a folder stands for its newest checkpoint.

    Attributes:
      name: name of the checkpoint, without its folder.
      shapes: name to shape of each tensor.

    Raises:
      CheckpointError: no checkpoint there, or one that cannot be read.
    """

    def __init__(self, path: str | os.PathLike):
        prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+|)$", "", os.fspath(path))
        # A folder stands for its newest checkpoint. NB: tensors are read later, so the plain path must live on.
        folder, name = (prefix, "") if os.path.isdir(prefix) else os.path.split(prefix)
        self._plain_folder = contextlib.ExitStack()
        prefix = os.path.join(self._plain_folder.enter_context(plain_path(folder)), name)
        prefix = tf.train.latest_checkpoint(prefix) or prefix
        is_checkpoint = tf.io.gfile.exists(f"{prefix}.index") or tf.io.gfile.exists(prefix)
        if tf.io.gfile.isdir(prefix) or not is_checkpoint:
            raise CheckpointError(
                f"there is no TensorFlow checkpoint at {path!s}. Give the path of its .index file, without the suffix."
            )
        self.name = os.path.basename(prefix)
        # NB: TensorFlow's reader raises IndexError, RuntimeError, OpError and others, here and in `read`.
        try:
            for file in glob.glob(f"{glob.escape(prefix)}.*"):
                check_regular(file)
            self._reader = tf.train.load_checkpoint(prefix)
        except Exception as error:
            raise CheckpointError(f"{path!s} cannot be read as a TensorFlow checkpoint: {first_line(error)}") from None
        shapes = self._reader.get_variable_to_shape_map()
        self.shapes = {name: tuple(shapes[name]) for name in sorted(shapes)}

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def read(self, name: str) -> np.ndarray:
        """Return the value of a tensor, verified by checksum."""
        try:
            return self._reader.get_tensor(name)
        except Exception as error:
            raise CheckpointError(f"{name} in {self.name} cannot be read: {first_line(error)}") from None


def release_name(path: str, num_strides: int) -> str:
    """Return the release's name of a variable.

    Args:
      path: Keras path that begins with the network, such as "repair/repair_0/conv_1/kernel".
      num_strides: number of stride-2 layers of the encoder.

    Returns:
      The name without ":0", such as "generator/repair_0/conv1/weights".
    """
    network, *scopes, leaf = path.split("/")
    if scopes and scopes[0] == "trunk":
        scopes = scopes[1:]
    # The release has no deconv_3: the decoder's last two layers are deconv_4 and deconv_5 (trap 16).
    if network == "decoder":
        irregular = {f"deconv_{num_strides - 1}": f"deconv_{num_strides}", "to_image": f"deconv_{num_strides + 1}"}
        scopes[0] = irregular.get(scopes[0], scopes[0])
    if network == "repair":
        network = "generator"
        scopes[1] = scopes[1].replace("_", "")
    scopes = [_SCOPES.get(scope, scope) for scope in scopes]
    return "/".join([network, *scopes, _LEAVES.get(leaf, leaf)])


def release_variables(*networks: keras.Model, num_strides: int = 4) -> dict[str, keras.Variable]:
    """Return the variables of networks under the release's names.

    Args:
      *networks: built networks of `lts.networks`: encoder, decoder, repair, discriminator.
      num_strides: number of stride-2 layers of the encoder, 4 in the release.

    Returns:
      Name without ":0" to variable. Shapes equal those of the release.
    """
    names = {}
    for network in networks:
        for path, variable in variables_by_path(network).items():
            names[release_name(f"{network.name}/{path}", num_strides)] = variable
    return names
