"""Montages of images and of first-layer kernels.

Both functions return uint8 pictures or pictures of the input's dtype; nothing here depends on TensorFlow.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TITLE_FONT = 14  # pixels
TITLE_MARGIN = 6  # pixels around titles


def montage(images: Sequence[np.ndarray], columns: int, gap: int = 0, titles: Sequence[str] = ()) -> np.ndarray:
    """Return images side by side, row by row.

    Bit-identical to the release's montage when `gap` is 0 and all images have one size.

    Shapes: six images [4, 5, 3] in 3 columns give [8, 15, 3]; image 3 begins the second row.

    Args:
      images: pictures [h, w, 1 or 3] of any sizes. Places that are not covered stay white.
      columns: number of images per row; the last row may hold fewer.
      gap: white pixels between neighbours.
      titles: text above the columns; requires uint8 images.

    Returns:
      [H, W, c] in the dtype of the images.
    """
    # A row is as high as its highest image, a column as wide as its widest.
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    widths = [max(image.shape[1] for image in images[column::columns]) for column in range(min(columns, len(images)))]
    header = TITLE_FONT + 2 * TITLE_MARGIN if titles else 0
    tops = header + np.cumsum([0, *heights]) + gap * np.arange(len(heights) + 1)
    lefts = np.cumsum([0, *widths]) + gap * np.arange(len(widths) + 1)
    channels = max(image.shape[2] for image in images)
    canvas = np.full([tops[-1] - gap, lefts[-1] - gap, channels], 255, images[0].dtype)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        window = canvas[tops[row] : tops[row] + image.shape[0], lefts[column] : lefts[column] + image.shape[1]]
        window[:] = image  # one channel broadcasts to three
    if titles:
        _draw_titles(canvas[:header], titles, lefts)
    return canvas


def filter_montage(kernel: np.ndarray, pad: int = 1) -> np.ndarray:
    """Return filters in the most square grid (release).

    Each filter is scaled to its own range: its smallest weight is black and its largest weight is white. The order is
    column by column: filter 1 stands below filter 0. A frame of `pad` white pixels surrounds every filter.

    Shapes: six 3x3 filters [3, 3, 3, 6] give two rows and three columns, [10, 15, 3].

    Args:
      kernel: weights [k, k, 1 or 3, n].
      pad: width of the frame in pixels.

    Returns:
      uint8 [rows * (k + 2 * pad), columns * (k + 2 * pad), 1 or 3], with rows <= columns.
    """
    filters = np.moveaxis(np.asarray(kernel, np.float32), -1, 0)
    smallest = filters.min(axis=(1, 2, 3), keepdims=True)
    largest = filters.max(axis=(1, 2, 3), keepdims=True)
    span = np.where(largest > smallest, largest - smallest, np.float32(1))  # a constant filter becomes black
    # The release converts by truncation, so 255.5 instead of rounding 255.
    scaled = ((filters - smallest) / span * np.float32(255.5)).astype(np.uint8)
    framed = np.pad(scaled, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=255)

    # The most square grid: the largest divisor that is not above the square root.
    count = len(framed)
    rows = max(rows for rows in range(1, count + 1) if count % rows == 0 and rows * rows <= count)
    order = np.arange(count).reshape(-1, rows).T.reshape(-1)  # column by column
    return montage(framed[order], count // rows)


def _draw_titles(header: np.ndarray, titles: Sequence[str], lefts: np.ndarray) -> None:
    """Write the column titles into the header."""
    picture = Image.fromarray(header)
    draw = ImageDraw.Draw(picture)
    for title, left in zip(titles, lefts[: len(titles)], strict=True):
        position = (int(left) + TITLE_MARGIN // 2, TITLE_MARGIN)
        draw.text(position, title, "black", font=ImageFont.load_default(TITLE_FONT))
    header[:] = np.asarray(picture)
