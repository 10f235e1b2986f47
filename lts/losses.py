"""Losses of both stages: pure functions of logits, masks and images, all in float32.

Every function returns a scalar; the weights of the sum are arguments, the
defaults the release's.
"""

import tensorflow as tf

REAL, FAKE = 1, 0  # classes of the real/fake logits (release)


def reconstruction(decoded, images, weight: float = 30.0):
    """Weight * mean squared error over all numbers (paper section 3.1; release).

    Args:
      decoded: [B, H, W, 3].
      images: [B, H, W, 3].
      weight: 30 in the release.

    Raises:
      ValueError: shapes that differ.
    """
    decoded, images = _floats(decoded), _floats(images)
    decoded.shape.assert_is_compatible_with(images.shape)
    return weight * tf.reduce_mean(tf.square(decoded - images))


def masked_reconstruction(decoded, images, pixels, weight: float = 30.0, count=None):
    """Weight * mean squared error over the marked pixels (release; BUILD_NOTES trap 2).

    Args:
      decoded: [B, H, W, 3], the repaired images.
      images: [B, H, W, 3], the ORIGINAL images.
      pixels: [B, H, W, 1], 1 where the loss falls.
      weight: 30 in the release.
      count: scalar, the number of pixels to divide by; None: of those marked. A replica gives the mean over all
        replicas, so that the mean of their losses is that of the global batch.

    Returns:
      0 when no pixel is marked.

    Raises:
      ValueError: shapes that do not fit.
    """
    decoded, images, pixels = _floats(decoded), _floats(images), _floats(pixels)
    decoded.shape.assert_is_compatible_with(images.shape)
    pixels.shape.assert_is_compatible_with([*images.shape[:-1], 1])
    total = tf.reduce_sum(pixels * tf.square(decoded - images))
    if count is None:
        count = tf.reduce_sum(tf.cast(pixels != 0, tf.float32))
    return weight * tf.math.divide_no_nan(total, count * images.shape[-1])


def real_or_fake(logits, label: int):
    """Mean softmax cross entropy of logits against one label for all (release).

    Args:
      logits: [B, 2].
      label: `REAL` or `FAKE`.

    Raises:
      ValueError: logits that are not [B, 2].
    """
    logits = _floats(logits)
    logits.shape.assert_is_compatible_with([None, 2])
    labels = tf.fill([tf.shape(logits)[0]], label)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def classification(logits, labels):
    """Mean softmax cross entropy (ours: of the method's rivals).

    Args:
      logits: [B, classes].
      labels: int [B], from 0.

    Raises:
      ValueError: shapes that do not fit.
    """
    logits, labels = _floats(logits), tf.convert_to_tensor(labels)
    labels.shape.assert_is_compatible_with(logits.shape[:1])
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def mask_prediction(mask_logits, keep, weight: float = 0.1):
    """Weight * mean sigmoid cross entropy of the mask head, a term a cell (paper section 3; release).

    Args:
      mask_logits: [B, h, w].
      keep: [B, h, w], 1 = kept; real images are kept everywhere.
      weight: 0.1 in the release.

    Raises:
      ValueError: shapes that differ.
    """
    mask_logits, keep = _floats(mask_logits), _floats(keep)
    mask_logits.shape.assert_is_compatible_with(keep.shape)
    return weight * tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=keep, logits=mask_logits))


def l2(weights, decay: float = 5e-5):
    """Decay * sum of w ** 2 / 2 over a list of weights (release)."""
    return decay * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(weight)) for weight in weights])


def _floats(x):
    return tf.cast(tf.convert_to_tensor(x), tf.float32)
