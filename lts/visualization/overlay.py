"""Artifact maps as colours over images. Pure NumPy and Pillow."""

import matplotlib
import numpy as np
from PIL import Image

from lts.visualization.montage import montage

COLOURS = "inferno"  # perceptually uniform: dark for 0, bright for 1, also without colour vision
STRENGTH = 0.65  # opacity where the map is 1; where it is 0 the image is left as it is
TABLE = (255 * matplotlib.colormaps[COLOURS](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)
GAP = 4  # white pixels between an image and its overlay


def blend(images: np.ndarray, artifact: np.ndarray) -> np.ndarray:
    """Images with a heat map over them, the stronger the larger the map is.

    Args:
      images: uint8 [..., H, W, 3].
      artifact: float [..., H, W] in [0, 1]: probability that the place was repaired.

    Returns:
      uint8 [..., H, W, 3]; where the map is 0, the image itself.
    """
    artifact = np.clip(np.asarray(artifact, np.float32), 0, 1)
    heat = TABLE[(255 * artifact).round().astype(np.uint8)].astype(np.float32)
    opacity = np.float32(STRENGTH) * artifact[..., None]
    return (images + (heat - images) * opacity).round().astype(np.uint8)


def overlay(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """An image under its artifact map, of any size and proportions.

    Args:
      image: uint8 [H, W, 3].
      cells: float [h, w], the map on its own grid; resized bilinearly.
    """
    smooth = Image.fromarray(np.asarray(cells, np.float32)).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return blend(image, np.asarray(smooth))


def side_by_side(image: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The image and its overlay in one picture: [H, W, 3] becomes [H, 2 * W + GAP, 3]."""
    return montage([image, overlay(image, cells)], columns=2, gap=GAP)


def css_gradient(stops: int = 17) -> str:
    """The colours as a CSS gradient from 0 to 1, each as see-through as it is over an image."""
    at = np.linspace(0, 1, stops)
    colours = [
        f"rgb({r} {g} {b} / {STRENGTH * value:.3f})"
        for value, (r, g, b) in zip(at, TABLE[(255 * at).round().astype(int)], strict=True)
    ]
    return f"linear-gradient(to right, {', '.join(colours)})"
