"""Self-supervised image features by learning to spot artifacts.

Reference: Jenni and Favaro, "Self-Supervised Feature Learning by Learning to
Spot Artifacts", CVPR 2018 (arXiv 1806.05024). TensorFlow 2 and Keras 3.
"""

import os
import typing

from lts.utils import keras_setup

if typing.TYPE_CHECKING:
    from lts.export.saved_model import LoadedModel

__version__ = "0.1.0"

keras_setup.use_tensorflow()
keras_setup.register_classes()


def load(path: str | os.PathLike) -> "LoadedModel":
    """Load an exported model.

    Args:
      path: folder of a SavedModel that this project exported, or hf://USER/NAME for one on the Hugging Face hub.

    Returns:
      A `lts.export.saved_model.LoadedModel`.
    """
    from lts.export import saved_model  # imports TensorFlow: not needed for --help or --version

    return saved_model.load(path)
