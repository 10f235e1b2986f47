"""Self-supervised image features by learning to spot artifacts.

Reference: Jenni and Favaro, "Self-Supervised Feature Learning by Learning to
Spot Artifacts", CVPR 2018 (arXiv 1806.05024). TensorFlow 2 and Keras 3.
"""

import os
import sys

__version__ = "0.1.0"


def _use_tensorflow() -> None:
    """Make Keras use TensorFlow.

    Raises:
      ImportError: Keras was imported with another backend.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        # Keras reads it when it is imported. It goes before the user's keras.json.
        os.environ["KERAS_BACKEND"] = "tensorflow"
    elif keras.config.backend() != "tensorflow":
        raise ImportError(
            f"lts needs the TensorFlow backend of Keras. Received: backend={keras.config.backend()!r}. Import lts "
            "before keras, or set KERAS_BACKEND=tensorflow."
        )


_use_tensorflow()


def load(path):
    """Load an exported model.

    Args:
      path: folder of a SavedModel that this project exported.

    Returns:
      A `lts.export.saved_model.LoadedModel`.
    """
    from lts.export import saved_model  # imports TensorFlow: not needed for --help or --version

    return saved_model.load(path)
