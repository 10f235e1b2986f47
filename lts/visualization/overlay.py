"""Artifact maps drawn over images.

The functions take and return NumPy arrays; nothing here depends on TensorFlow.
"""

import matplotlib
import numpy as np
from PIL import Image

from lts.visualization.montage import montage

COLOURS = "inferno"  # perceptually uniform: dark for 0, bright for 1, also without colour vision
STRENGTH = 0.65  # opacity where the map is 1; where the map is 0 the image stays unchanged
TABLE = (255 * matplotlib.colormaps[COLOURS](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)
RED = np.float32([214, 39, 40])  # of positive cells in a signed map
BLUE = np.float32([31, 90, 200])  # of negative cells
GAP = 4  # white pixels between an image and its overlay


def blend(images: np.ndarray, artifact: np.ndarray) -> np.ndarray:
    """Return images with a heat map over them.

    Both the colour and the opacity grow with the map.

    Args:
      images: uint8 [..., H, W, 3].
      artifact: float [..., H, W] in [0, 1]: probability that a pixel was repaired. Values outside are clipped.

    Returns:
      uint8 [..., H, W, 3]; where the map is 0, the image itself.
    """
    artifact = np.clip(np.asarray(artifact, np.float32), 0, 1)
    heat = TABLE[(255 * artifact).round().astype(np.uint8)].astype(np.float32)
    opacity = np.float32(STRENGTH) * artifact[..., None]
    return (images + (heat - images) * opacity).round().astype(np.uint8)


def overlay(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return an image under its artifact map.

    Args:
      image: uint8 [H, W, 3], of any size and aspect ratio.
      cells: float [h, w], the map at the resolution of the discriminator; resized bilinearly.

    Returns:
      uint8 [H, W, 3].
    """
    smooth = Image.fromarray(np.asarray(cells, np.float32)).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return blend(image, np.asarray(smooth))


def signed_overlay(image: np.ndarray, cells: np.ndarray, limit: float) -> np.ndarray:
    """Return a grey image under a signed map.

    Positive cells are red, negative ones blue. The opacity grows with the absolute value; cells are not interpolated.

    Args:
      image: uint8 [H, W, 3].
      cells: float [h, w].
      limit: absolute value of the strongest colour; larger values are clipped.

    Returns:
      uint8 [H, W, 3].
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    strength = np.clip(cells / max(limit, 1e-12), -1, 1).astype(np.float32)
    enlarged = Image.fromarray(strength).resize(image.shape[1::-1], Image.Resampling.NEAREST)
    strength = np.asarray(enlarged)[..., None]
    colour = np.where(strength > 0, RED, BLUE)
    return (grey + (colour - grey) * np.float32(STRENGTH) * np.abs(strength)).round().astype(np.uint8)


def side_by_side(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return an image next to its overlay."""
    return montage([image, overlay(image, cells)], columns=2, gap=GAP)


def css_gradient(stops: int = 17) -> str:
    """Return the colours as a CSS gradient."""
    colours = []
    for value in np.linspace(0, 1, stops):
        red, green, blue = TABLE[round(255 * value)]
        colours.append(f"rgb({red} {green} {blue} / {STRENGTH * value:.3f})")
    return f"linear-gradient(to right, {', '.join(colours)})"
