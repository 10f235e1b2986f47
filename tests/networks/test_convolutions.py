"""Fast convolutions against `tf.nn.conv2d`."""

import numpy as np
import tensorflow as tf

from lts.networks.convolutions import trained_convolution

# Pixels per side, kernel size, stride, padding, channels, constant channels.
CASES = (
    (6, 3, 1, "SAME", 4, 0),  # the kernel's gradient by matrix products
    (12, 3, 1, "SAME", 4, 2),
    (13, 3, 1, "SAME", 4, 1),  # a large map
    (8, 2, 2, "SAME", 3, 0),  # a product of blocks
    (7, 2, 2, "SAME", 3, 0),  # blocks do not tile the map
    (12, 11, 4, "SAME", 3, 0),  # the input's gradient on blocks
    (12, 7, 2, "SAME", 3, 0),
    (12, 5, 4, "SAME", 3, 0),
    (12, 3, 2, "SAME", 3, 0),
    (11, 3, 2, "SAME", 3, 0),
    (6, 6, 1, "VALID", 4, 0),  # one window
    (9, 3, 2, "VALID", 4, 0),
)


def check(case, dtype, tolerance):
    """Compare values and gradients."""
    size, kernel_size, stride, padding, channels, constants = case
    numbers = np.random.RandomState(1)
    x = tf.constant(numbers.standard_normal((2, size, size, channels)), dtype)
    constant = tf.constant(numbers.standard_normal((2, size, size, constants)), dtype)
    kernel = tf.constant(numbers.standard_normal((kernel_size, kernel_size, channels + constants, 5)), dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, kernel])
        y = trained_convolution(x, kernel, stride, padding, constant if constants else None)
        # The reference is in float32: on CPUs some of TensorFlow's gradients have no float16.
        joined = tf.cast(tf.concat([x, constant], -1), tf.float32)
        wanted = tf.nn.conv2d(joined, tf.cast(kernel, tf.float32), stride, padding)
        upstream = tf.constant(numbers.standard_normal(wanted.shape), tf.float32)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
        wanted_loss = tf.reduce_sum(wanted * upstream)
    results = [y, *tape.gradient(loss, [x, kernel])]
    for ours, theirs in zip(results, [wanted, *tape.gradient(wanted_loss, [x, kernel])], strict=True):
        assert ours.dtype == dtype
        theirs = tf.cast(theirs, tf.float32)
        error = tf.reduce_max(tf.abs(tf.cast(ours, tf.float32) - theirs)) / tf.reduce_max(tf.abs(theirs))
        assert error < tolerance, (case, dtype, float(error))


def test_trained_convolution():
    """Fails if a fast form changes a value or a gradient by more than rounding."""
    for case in CASES:
        check(case, tf.float32, 2e-6)
        check(case, tf.bfloat16, 2e-2)
