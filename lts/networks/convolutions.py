"""Convolutions in the form that is fastest on CPUs.

Each function computes what `tf.nn.conv2d` computes, up to rounding. Where a GPU is visible, TensorFlow's own gradients
are used, because the others were measured on CPUs alone. The times in the comments are CPU milliseconds on
an AMD EPYC (TensorFlow 2.21 with oneDNN, batch 16), float32 | bfloat16.
"""

import tensorflow as tf

SMALL_MAP = 12 * 12  # cells: up to here products of matrices give the gradient of a 3x3 kernel
FEW_CHANNELS = 8  # up to here the input gradient of a strided convolution is computed on blocks


def convolution(x, kernel, stride: int, padding: str):
    """Return the convolution of x [B, h, w, channels] with a kernel."""
    height, width, channels, _ = kernel.shape
    if padding == "SAME" or tuple(x.shape[1:3]) != (height, width):
        return tf.nn.conv2d(x, kernel, stride, padding)
    # A kernel that covers its whole input (fc_1, fc_2) is a matrix product, three times as fast: forward and backward
    # of fc_1, [64, 6, 6, 256] to 4096 units, take 99 ms instead of 322.
    return _product(tf.reshape(x, [-1, 1, 1, height * width * channels]), kernel)


def gpu_is_visible() -> bool:
    """Return whether TensorFlow's own gradients are used."""
    return bool(tf.config.list_physical_devices("GPU"))


def trained_convolution(x, kernel, stride: int, padding: str, constant=None):
    """Return the convolution with fast gradients.

    Args:
      x: [B, h, w, channels].
      kernel: [kh, kw, channels + n, filters].
      stride: of the convolution.
      padding: "SAME" or "VALID".
      constant: [B, h, w, n], channels after those of x which need no gradient.
    """
    if gpu_is_visible():
        return convolution(x if constant is None else tf.concat([x, constant], -1), kernel, stride, padding)
    if constant is None and _is_product_of_blocks(x, kernel, stride):
        # Windows of 2x2 with stride 2 (encoder): 256 to 512 channels at 12x12 take 4.2 ms instead of 5.2 | 2.6 instead
        # of 3.1, and the gradient of the kernel 4.1 instead of 5.8 | 2.5 instead of 9.1.
        return _product(tf.nn.space_to_depth(x, stride), kernel)
    is_special = _is_small_map(x, kernel, stride, padding) or _has_block_gradient(x, kernel, stride, padding)
    if constant is None and not is_special:
        return convolution(x, kernel, stride, padding)

    @tf.custom_gradient
    def convolve(x, kernel):
        joined = x if constant is None else tf.concat([x, constant], -1)

        def gradient(upstream):
            return (
                _input_gradient(x, kernel, upstream, stride, padding),
                _kernel_gradient(joined, kernel, upstream, stride, padding),
            )

        return tf.nn.conv2d(joined, kernel, stride, padding), gradient

    return convolve(x, kernel)


def _product(windows, kernel):
    """Return the product of every window [B, h, w, kh * kw * channels] with a kernel."""
    filters = kernel.shape[-1]
    y = tf.matmul(tf.reshape(windows, [-1, windows.shape[-1]]), tf.reshape(kernel, [-1, filters]))
    return tf.reshape(y, [-1, *windows.shape[1:3], filters])


def _is_product_of_blocks(x, kernel, stride: int) -> bool:
    """Return whether the windows are blocks that tile the map."""
    return kernel.shape[:2] == (stride, stride) and stride > 1 and _is_divisible(x, stride)


def _is_small_map(x, kernel, stride: int, padding: str) -> bool:
    """Return whether matrix products give the kernel's gradient."""
    height, width = x.shape[1:3]
    is_known = height is not None and width is not None
    is_3x3 = kernel.shape[:2] == (3, 3) and stride == 1 and padding == "SAME"
    return is_known and is_3x3 and height * width <= SMALL_MAP


def _has_block_gradient(x, kernel, stride: int, padding: str) -> bool:
    """Return whether the input's gradient is computed on blocks."""
    height, width, channels, _ = kernel.shape
    is_strided = height == width > stride > 1 and padding == "SAME"
    return is_strided and channels <= FEW_CHANNELS and _is_divisible(x, stride)


def _is_divisible(x, stride: int) -> bool:
    height, width = x.shape[1:3]
    is_known = height is not None and width is not None
    return is_known and height % stride == 0 and width % stride == 0


def _input_gradient(x, kernel, upstream, stride: int, padding: str):
    """Return the gradient to x."""
    # A kernel without the constant channels: 32 + 1 to 32 channels at 96x96 take 14.5 ms instead of 20.9 | 8.6 instead
    # of 12.1, because oneDNN computes channels in groups of 16 and the gradient need not be split.
    own_kernel = kernel[:, :, : x.shape[-1]]
    if not _has_block_gradient(x, own_kernel, stride, padding):
        return tf.compat.v1.nn.conv2d_backprop_input(tf.shape(x), own_kernel, upstream, [1, stride, stride, 1], padding)
    # A strided convolution of pixels is a convolution of blocks of stride x stride pixels, with more channels. For
    # conv_1 of AlexNet, 11x11 with 3 channels and stride 4, this takes 8.1 ms instead of 33.3 | 5.2 instead of 19.7.
    block_kernel = _block_kernel(own_kernel, stride)
    batch, height, width = tf.unstack(tf.shape(x)[:3])
    shape = [batch, height // stride, width // stride, block_kernel.shape[2]]
    blocks = tf.compat.v1.nn.conv2d_backprop_input(shape, block_kernel, upstream, [1, 1, 1, 1], "SAME")
    return tf.nn.depth_to_space(blocks, stride)


def _block_kernel(kernel, stride: int):
    """Return the kernel that acts on blocks.

    Shapes: [11, 11, 3, 96] and stride 4 give [3, 3, 48, 96].
    """
    size, _, channels, filters = kernel.shape
    before = (size - stride) // 2  # pixels of a "SAME" window before its first block
    before_blocks = -(-before // stride)
    zeros_before = before_blocks * stride - before
    count = -(-(zeros_before + size) // stride)
    zeros_after = count * stride - zeros_before - size
    edges = [zeros_before, zeros_after]
    kernel = tf.pad(kernel, [edges, edges, [0, 0], [0, 0]])
    kernel = tf.reshape(kernel, [count, stride, count, stride, channels, filters])
    kernel = tf.transpose(kernel, [0, 2, 1, 3, 4, 5])
    return tf.reshape(kernel, [count, count, stride * stride * channels, filters])


def _kernel_gradient(x, kernel, upstream, stride: int, padding: str):
    """Return the gradient to a kernel."""
    if not _is_small_map(x, kernel, stride, padding):
        return tf.compat.v1.nn.conv2d_backprop_filter(x, kernel.shape, upstream, [1, stride, stride, 1], padding)
    # oneDNN adds the images one by one, and passes over the whole gradient for each. A matrix product adds all images
    # in one pass: 513 to 512 channels at 6x6 take 15.3 ms instead of 25.4 | 8.2 instead of 19.6.
    _, height, width, channels = x.shape
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    upstream = tf.reshape(upstream, [-1, kernel.shape[-1]])
    products = []
    for row in range(3):
        for column in range(3):
            shifted = padded[:, row : row + height, column : column + width]
            products.append(tf.matmul(tf.reshape(shifted, [-1, channels]), upstream, transpose_a=True))
    return tf.reshape(tf.stack(products), kernel.shape)
