"""Self-supervised features by learning to spot artifacts, in TensorFlow 2 and Keras 3.

Reference: Jenni and Favaro, "Self-Supervised Feature Learning by Learning to
Spot Artifacts", CVPR 2018 (arXiv 1806.05024).
"""

__version__ = "0.1.0"


def load(path):
    """Loads an exported model: `lts.export.saved_model.load`. TensorFlow is imported here, not before."""
    from lts.export import saved_model

    return saved_model.load(path)
