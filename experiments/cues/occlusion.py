"""Occlusion maps: where in an image the score comes from.

A square of the image's mean colour slides over the image, and the change of the score is drawn at its place (Zeiler and
Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.2; theirs is grey and shows the
probability of the class). Here the squares are centred on the cells of the keep mask, so that both can be compared.
"""

from collections.abc import Callable

import numpy as np

LARGEST_PROBABILITY = 1 - 1e-7  # float32 has no finite log-odds above


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) in float64; a probability hardly moves where the model is certain."""
    clipped = np.clip(np.asarray(probability, np.float64), 1 - LARGEST_PROBABILITY, LARGEST_PROBABILITY)
    return np.log(clipped) - np.log1p(-clipped)


def cover(image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return an image with a square of its mean colour.

    Args:
      image: uint8 [H, W, 3].
      top: first row of the square. Parts outside of the image are cut off.
      left: first column.
      side: of the square in pixels.
    """
    covered = image.copy()
    rows = slice(max(0, top), max(0, top + side))
    columns = slice(max(0, left), max(0, left + side))
    covered[rows, columns] = image.mean(axis=(0, 1)).round().astype(np.uint8)
    return covered


def squares(size: int, grid: int, side: int) -> list[tuple[int, int]]:
    """Return the first row and column of each square.

    Args:
      size: side of the image in pixels.
      grid: cells per side; there is one square centred on each, row by row.
      side: of the squares in pixels.
    """
    firsts = [round((cell + 0.5) * size / grid - side / 2) for cell in range(grid)]
    return [(top, left) for top in firsts for left in firsts]


def occlusion_map(
    probability: Callable[[np.ndarray], np.ndarray], image: np.ndarray, grid: int, side: int
) -> np.ndarray:
    """Return what each place contributes to the call "repaired".

    Args:
      probability: maps uint8 [B, H, W, 3] to the probabilities [B] that images were repaired.
      image: uint8 [H, W, 3], square.
      grid: cells per side of the map.
      side: of the covering square in pixels.

    Returns:
      float64 [grid, grid]: log-odds of the image minus those with the square. Positive where the covered pixels speak
      for "repaired", negative where they speak for "real".
    """
    covered = [cover(image, top, left, side) for top, left in squares(len(image), grid, side)]
    scores = log_odds(probability(np.stack([image, *covered])))
    return (scores[0] - scores[1:]).reshape(grid, grid)
