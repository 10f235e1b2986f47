"""Data-dependent rescaling of a backbone (Kraehenbuehl et al. 2016)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.voc.transfer import TransferError
from lts.networks.backbones import AlexNet

SILENT = 1e-6  # standard deviation below which a channel is left unchanged


def rescale(backbone: Any, images: Sequence[tf.Tensor]) -> None:
    """Give every channel of every convolution mean 0 and variance 1.

    The within-layer normalisation of the paper, before ReLU, from conv_1 to conv_5, each layer on the outputs of the
    rescaled earlier layers. The paper's correction between layers is not implemented.

    - With biases, a kernel is divided by the standard deviation of its channel, and the bias makes the mean 0.
    - With batch norm, moving mean and variance become those of the images; gamma and beta stay.

    Args:
      backbone: `LoadedModel.keras_model().backbone`; changed in place.
      images: float32 [H, W, 3] in [-1, 1], of any sizes.

    Raises:
      TransferError: another backbone than AlexNet.
    """
    if not isinstance(backbone, AlexNet):
        raise TransferError("rescaling is for the backbone alexnet alone. Received: rescale=True. Leave it out.")
    for conv in backbone.convs:
        blocks = getattr(conv, "blocks", [conv])  # a grouped convolution has several
        mean, variance = moments(backbone, conv, images)
        means = np.split(mean, len(blocks))
        variances = np.split(variance, len(blocks))
        for block, block_mean, block_variance in zip(blocks, means, variances, strict=True):
            _rescale(block, block_mean, block_variance)


def moments(backbone: Any, conv: Any, images: Sequence[tf.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each channel before the activation, float64 [c]."""
    count = 0
    total = 0.0
    squares = 0.0
    for image in images:
        outputs = _before_activation(backbone, conv, image[None]).numpy()
        values = outputs.astype(np.float64).reshape(-1, conv.filters)
        count += len(values)
        total += values.sum(0)
        squares += np.square(values).sum(0)
    mean = total / count
    return mean, np.maximum(squares / count - np.square(mean), 0)


def _before_activation(backbone: Any, conv: Any, images: tf.Tensor) -> tf.Tensor:
    blocks = getattr(conv, "blocks", [conv])
    activations = [block.activation for block in blocks]
    for block in blocks:
        block.activation = "linear"
    try:
        return backbone(images, training=False, last=conv.name)[conv.name]
    finally:
        for block, activation in zip(blocks, activations, strict=True):
            block.activation = activation


def _rescale(block: Any, mean: np.ndarray, variance: np.ndarray) -> None:
    """Rescale the weights of one `ConvBlock` with this mean and variance."""
    deviation = np.sqrt(variance)
    if block.batch_norm is None:
        active = deviation > SILENT
        divisor = np.where(active, deviation, 1)
        block.kernel.assign(block.kernel / divisor)
        block.bias.assign((block.bias - np.where(active, mean, 0)) / divisor)
        return
    # The moving statistics are those of the convolution's output, before scale and shift.
    batch_norm = block.batch_norm
    scale, shift = (np.asarray(vector, np.float64) for vector in batch_norm.affine())
    active = (deviation > SILENT) & (np.abs(scale) > SILENT)
    scale = np.where(active, scale, 1)
    moving_mean = np.where(active, (mean - shift) / scale, batch_norm.moving_mean.numpy())
    moving_variance = np.where(active, variance / np.square(scale), batch_norm.moving_variance.numpy())
    batch_norm.moving_mean.assign(moving_mean)
    batch_norm.moving_variance.assign(moving_variance)
