"""Pictures for people: many images in one, and the first layer's kernels in one. Pure NumPy."""

import numpy as np


def montage(images, rows: int, columns: int) -> np.ndarray:
    """Images side by side, row by row (release).

    Six [4, 5, 3] images in 2 rows and 3 columns become [1, 8, 15, 3]; image 3 begins the second row.

    Args:
      images: [N, h, w, c]; the first `rows * columns` are shown.
      rows: images from top to bottom.
      columns: images from left to right.

    Returns:
      [1, rows * h, columns * w, c], dtype of `images`.

    Raises:
      ValueError: fewer images than places.
    """
    images = np.asarray(images)
    number, height, width, channels = images.shape
    if number < rows * columns:
        raise ValueError(f"images must be at least rows * columns = {rows * columns}. Received: {number} images")
    grid = images[: rows * columns].reshape(rows, columns, height, width, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(1, rows * height, columns * width, channels)


def weights_montage(weights, rows: int, columns: int, pad: int = 1) -> np.ndarray:
    """Kernels side by side as bytes, each scaled to its own range, on white (release).

    Six 3x3 kernels of 3 channels in 2 rows and 3 columns, with a frame of 1, become [1, 10, 15, 3]. The order is
    column by column: kernel 1 stands below kernel 0.

    Args:
      weights: [k, k, c, n] with n = rows * columns; c = 1 or 3 to be seen.
      rows: kernels from top to bottom.
      columns: kernels from left to right.
      pad: white pixels on each side of every kernel.

    Returns:
      uint8 [1, rows * (k + 2 * pad), columns * (k + 2 * pad), c].

    Raises:
      ValueError: a number of kernels that is not `rows * columns`.
    """
    weights = np.asarray(weights, np.float32)
    number = weights.shape[-1]
    if number != rows * columns:
        raise ValueError(f"weights must hold rows * columns = {rows * columns} kernels. Received: {number} kernels")
    least, most = (extreme(weights, axis=(0, 1, 2), keepdims=True) for extreme in (np.min, np.max))
    span = np.where(most > least, most - least, np.float32(1))  # a constant kernel becomes black
    scaled = (weights - least) / span * np.float32(255.5)  # rounded down: the release's conversion to bytes
    framed = np.pad(scaled.astype(np.uint8), ((pad, pad), (pad, pad), (0, 0), (0, 0)), constant_values=255)
    by_row = framed.transpose(3, 0, 1, 2).reshape(columns, rows, *framed.shape[:3]).swapaxes(0, 1)
    return montage(by_row.reshape(number, *framed.shape[:3]), rows, columns)
