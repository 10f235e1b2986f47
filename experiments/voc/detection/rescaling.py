"""Data-dependent rescaling of a backbone, for features of unlike magnitude (Kraehenbuehl et al. 2016)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

SILENT = 1e-6  # standard deviation below which a channel says nothing, and is left as it is


def rescale(backbone: Any, images: Sequence[tf.Tensor]) -> None:
    """Gives every channel of every convolution mean 0 and variance 1 over the positions of some images, before ReLU.

    This is the within-layer normalisation of the paper, done from conv_1 to conv_5, each layer on what the
    rescaled layers before it give. A convolution with biases has each kernel divided by the standard deviation of its
    channel, and the bias set so that the mean is 0. One with batch norm already divides: its moving mean and variance
    become those of these images, gamma and beta stay, so variance is 1 (but for epsilon) and mean 0 before them. The
    function that the backbone computes changes. The paper's correction between layers, which makes them learn equally fast
    and leaves the function as it is, is not done.

    Args:
      backbone: `LoadedModel.keras_model().backbone`; changed in place.
      images: float32 [H, W, 3] in [-1, 1], of any sizes.
    """
    for conv in backbone.convs:
        blocks = getattr(conv, "blocks", [conv])  # of a grouped convolution
        mean, variance = moments(backbone, conv, images)
        means, variances = (np.split(each, len(blocks)) for each in (mean, variance))
        for block, mean, variance in zip(blocks, means, variances, strict=True):
            _rescale(block, mean, variance)


def moments(backbone: Any, conv: Any, images: Sequence[tf.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel of a convolution before its activation, over all positions: float64 [c]."""
    count, total, squares = 0, 0.0, 0.0
    for image in images:
        values = _before_activation(backbone, conv, image[None]).numpy().astype(np.float64).reshape(-1, conv.filters)
        count, total, squares = count + len(values), total + values.sum(0), squares + np.square(values).sum(0)
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
    """The weights of one `ConvBlock` whose channels had this mean and variance."""
    scale, shift = np.ones_like(mean), np.zeros_like(mean)
    if block.batch_norm is not None:
        scale, shift = (np.asarray(each, np.float64) for each in block.batch_norm.affine())
    audible = (np.sqrt(variance) > SILENT) & (np.abs(scale) > SILENT)
    scale = np.where(audible, scale, 1)
    if block.batch_norm is None:
        deviation = np.where(audible, np.sqrt(variance), 1)
        block.kernel.assign(block.kernel / deviation)
        block.bias.assign((block.bias - np.where(audible, mean, 0)) / deviation)
        return
    statistics = block.batch_norm  # of what the convolution gives, so that before scale and shift
    for moving, value in (
        (statistics.moving_mean, (mean - shift) / scale),
        (statistics.moving_variance, variance / np.square(scale)),
    ):
        moving.assign(np.where(audible, value, moving.numpy()))
