"""One self-contained HTML file: text, tables and pictures inside, no network needed. And the figures that go in."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lts import files

STYLE = """
body { max-width: 74rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222; }
h1, h2 { line-height: 1.2; margin: 2rem 0 0.5rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f6f6f6; padding: 0.75rem; overflow-x: auto; font-size: 0.8rem; }
"""


class Report:
    """Collects the parts of a page in their order; all text is escaped.

    Example:
      >>> report = Report("Quickstart")
      >>> report.heading("Filters")
      >>> report.picture(montage, "conv_1", scale=4)
      >>> report.write("runs/quickstart/report.html")
    """

    def __init__(self, title: str):
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begins a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """A paragraph of plain text."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def preformatted(self, text: str) -> None:
        """Text with its line breaks, as a configuration."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table; the first row is its header."""
        cells = [[html.escape(str(cell)) for cell in row] for row in rows]
        head = "".join(f"<th>{cell}</th>" for cell in cells[0])
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[1:])
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        self._parts.append(f'<div class="scroll">{table}</div>')

    def picture(self, picture: np.ndarray | Figure, caption: str, scale: int = 1) -> None:
        """A picture with its caption.

        Args:
          picture: uint8 [H, W, 3], or a matplotlib figure.
          caption: plain text below it, and what is read out in its place.
          scale: enlarges an array by whole pixels, so that small images stay sharp.
        """
        stream = io.BytesIO()
        if isinstance(picture, Figure):
            picture.savefig(stream, format="png", dpi=120)
        else:
            Image.fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1)).save(stream, format="png")
        data, text = base64.b64encode(stream.getvalue()).decode(), html.escape(caption)
        image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
        self._parts.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")

    def write(self, path: str | os.PathLike) -> None:
        """Writes the page, whole or not at all."""
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        title, body = html.escape(self.title), "\n".join(self._parts)
        page = f'<html lang="en"><head>{head}<title>{title}</title></head>\n<body>\n{body}\n</body></html>'
        files.write_text(path, f"<!doctype html>\n{page}\n")


def montage(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images in rows: uint8 [N, H, W, 3] becomes one uint8 picture with white gaps, the last row filled with white."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    cells = np.full([rows * columns, height + gap, width + gap, 3], 255, np.uint8)
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, height + gap, width + gap, 3).swapaxes(1, 2)
    picture = cells.reshape(rows * (height + gap), columns * (width + gap), 3)
    return picture[: len(picture) - gap, : picture.shape[1] - gap]


def filter_montage(kernel: np.ndarray, columns: int = 12) -> np.ndarray:
    """First-layer filters as pictures, each stretched to its own range around grey.

    Args:
      kernel: float [k, k, 3, n].
      columns: filters in a row.

    Returns:
      uint8 [rows * (k + 1) - 1, columns * (k + 1) - 1, 3]: a weight of 0 is grey.
    """
    filters = np.moveaxis(np.asarray(kernel, np.float32), -1, 0)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * filters / np.maximum(largest, 1e-12)
    return montage((255 * scaled).round().astype(np.uint8), columns)


def artifact_overlay(images: np.ndarray, dropped: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """Images with a heat map over them: where the discriminator thinks that cells were dropped.

    Args:
      images: uint8 [B, H, W, 3].
      dropped: float [B, h, w]: predicted probability that a cell was dropped; h divides H, w divides W or nearly.
      strength: opacity of a cell that was surely dropped; a cell that was surely kept is left as it is.

    Returns:
      uint8 [B, H, W, 3].
    """
    _, height, width, _ = images.shape
    rows = np.arange(height) * dropped.shape[1] // height
    columns = np.arange(width) * dropped.shape[2] // width
    dropped = np.asarray(dropped, np.float32)[:, rows][:, :, columns, None]  # [B, H, W, 1]
    heat = matplotlib.colormaps["inferno"](dropped[..., 0])[..., :3] * 255
    opacity = strength * dropped
    return (images * (1 - opacity) + heat * opacity).round().astype(np.uint8)


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
