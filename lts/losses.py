"""Losses: pure functions of logits, masks and images.

Every function computes in float32, returns a scalar, and raises ValueError for shapes that do not fit. Images are
[B, H, W, 3], real/fake logits [B, 2]. The default weights are the release's.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

# Classes of the real/fake logits (release).
REAL = 1
FAKE = 0


def reconstruction(decoded: tf.Tensor, images: tf.Tensor, weight: float = 30.0) -> tf.Tensor:
    """Return the weighted mean squared error.

    weight * mean((decoded - images) ** 2) (paper section 3.1; release).
    """
    decoded, images = map(_float32, (decoded, images))
    decoded.shape.assert_is_compatible_with(images.shape)
    return weight * tf.reduce_mean(tf.square(decoded - images))


def masked_reconstruction(
    repaired: tf.Tensor,
    images: tf.Tensor,
    pixel_mask: tf.Tensor,
    weight: float = 30.0,
    pixel_count: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return the weighted mean squared error over marked pixels.

    weight * sum(pixel_mask * (repaired - images) ** 2) / (3 * number of marked pixels), and 0 when no pixel is marked
    (release; BUILD_NOTES trap 2).

    Args:
      repaired: [B, H, W, 3].
      images: the ORIGINAL images [B, H, W, 3].
      pixel_mask: [B, H, W, 1], 1 where the loss falls.
      weight: 30 in the release.
      pixel_count: scalar to divide by instead of the number of marked pixels. A replica passes the mean over all
        replicas, so that the mean of the replicas' losses is the loss of the global batch.
    """
    repaired, images, pixel_mask = map(_float32, (repaired, images, pixel_mask))
    repaired.shape.assert_is_compatible_with(images.shape)
    pixel_mask.shape.assert_is_compatible_with([*images.shape[:-1], 1])

    squared_error = tf.reduce_sum(pixel_mask * tf.square(repaired - images))
    if pixel_count is None:
        pixel_count = tf.reduce_sum(tf.cast(pixel_mask != 0, tf.float32))
    return weight * tf.math.divide_no_nan(squared_error, pixel_count * images.shape[-1])


def real_fake(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """Return the discriminator's cross entropy.

    Softmax cross entropy, mean over both halves: real images labelled real, repaired ones fake (paper section 3;
    release).
    """
    return (_labelled(real_logits, REAL) + _labelled(fake_logits, FAKE)) / 2


def confusion(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """Return the release's adversarial loss: swapped labels.

    The labels of the real half are swapped too. It has a gradient to the repair network, through the batch norm
    statistics that both halves share (release; BUILD_NOTES traps 3 and 4).
    """
    return (_labelled(real_logits, FAKE) + _labelled(fake_logits, REAL)) / 2


def adversarial(fake_logits: tf.Tensor) -> tf.Tensor:
    """Return the non-saturating adversarial loss.

    The cross entropy of repaired images labelled real (paper section 3).
    """
    return _labelled(fake_logits, REAL)


def hinge(real_scores: tf.Tensor, fake_scores: tf.Tensor) -> tf.Tensor:
    """Return the critic's hinge loss of scores [B] (LCI release)."""
    real_loss = tf.reduce_mean(tf.nn.relu(1 - _float32(real_scores)))
    fake_loss = tf.reduce_mean(tf.nn.relu(1 + _float32(fake_scores)))
    return real_loss + fake_loss


def mask_prediction(mask_logits: tf.Tensor, keep_mask: tf.Tensor, weight: float = 0.1) -> tf.Tensor:
    """Return the weighted cross entropy of the mask head.

    weight * mean over all cells of sigmoid cross entropy (paper section 3; release).

    Args:
      mask_logits: [B, h, w].
      keep_mask: [B, h, w], 1 = kept; real images are kept everywhere.
      weight: 0.1 in the release.
    """
    mask_logits, keep_mask = map(_float32, (mask_logits, keep_mask))
    mask_logits.shape.assert_is_compatible_with(keep_mask.shape)
    return weight * tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=keep_mask, logits=mask_logits))


def classification(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the mean softmax cross entropy.

    For the baselines (this project): logits [B, classes] and int labels [B] from 0.
    """
    logits = _float32(logits)
    labels = tf.convert_to_tensor(labels)
    labels.shape.assert_is_compatible_with(logits.shape[:1])
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def known_classification(logits: tf.Tensor, labels: tf.Tensor, count: tf.Tensor | None = None) -> tf.Tensor:
    """Return the mean softmax cross entropy over the images with a label, and 0 without any.

    Args:
      logits: [B, classes].
      labels: int [B] from 0; -1: unknown, the image does not count.
      count: scalar to divide by instead of the number of labels. A replica passes the mean over all replicas, so that
        the mean of the replicas' losses is the loss of the global batch.
    """
    logits = _float32(logits)
    labels = tf.convert_to_tensor(labels)
    labels.shape.assert_is_compatible_with(logits.shape[:1])
    known = tf.cast(labels >= 0, tf.float32)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.maximum(labels, 0), logits=logits)
    count = tf.reduce_sum(known) if count is None else count
    return tf.math.divide_no_nan(tf.reduce_sum(known * cross_entropy), count)


def l2(weights: Iterable[Any], decay: float = 5e-5) -> tf.Tensor:
    """Return the weight decay of a list of weights.

    decay * sum of w ** 2 / 2 (release; BUILD_NOTES trap 13).
    """
    return decay * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(weight)) for weight in weights])


def _labelled(logits: tf.Tensor, label: int) -> tf.Tensor:
    """Return the cross entropy with one label for all."""
    logits = _float32(logits)
    logits.shape.assert_is_compatible_with([None, 2])
    return classification(logits, tf.fill([tf.shape(logits)[0]], label))


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(x), tf.float32)
