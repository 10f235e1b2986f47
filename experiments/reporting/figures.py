"""The figures that go into a report, and the report itself (`lts.visualization.html`)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lts.visualization.html import Report
from lts.visualization.overlay import blend

__all__ = ["Report", "artifact_figure", "artifact_overlay", "curves_figure"]


def artifact_overlay(images: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Images with a heat map over them: where the discriminator thinks that cells were dropped.

    Args:
      images: uint8 [B, H, W, 3].
      dropped: float [B, h, w]: predicted probability that a cell was dropped; h divides H, w divides W or nearly.

    Returns:
      uint8 [B, H, W, 3].
    """
    _, height, width, _ = images.shape
    rows = np.arange(height) * dropped.shape[1] // height
    columns = np.arange(width) * dropped.shape[2] // width
    return blend(images, np.asarray(dropped, np.float32)[:, rows][:, :, columns])


def artifact_figure(
    images: np.ndarray, dropped: np.ndarray, probability: np.ndarray, names: Sequence[str] = ()
) -> Figure:
    """A column for each image: the image, its artifact map, and the probability that it was repaired.

    Args:
      images: uint8 [B, H, W, 3].
      dropped: float [B, h, w], see `artifact_overlay`.
      probability: float [B].
      names: what stands above each image; nothing if empty.
    """
    count = len(images)
    figure = Figure(figsize=(1.35 * count, 3.2), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for column, (image, overlay) in enumerate(zip(images, artifact_overlay(images, dropped), strict=True)):
        axes[0, column].imshow(image)
        axes[1, column].imshow(overlay)
        axes[0, column].set_title(names[column] if names else "", fontsize=8)
        axes[1, column].set_title(f"repaired: {100 * probability[column]:.0f} %", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def curves_figure(steps: Sequence[float], curves: Mapping[str, Sequence[float]], columns: int = 3) -> Figure:
    """Small plots side by side, one a curve, over the training steps; values that are not finite leave a gap."""
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (name, values) in zip(axes, curves.items(), strict=False):
        axis.plot(steps, values, linewidth=1.2)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(figure.axes)[len(curves) :]:
        axis.set_axis_off()
    return figure
