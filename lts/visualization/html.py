"""One self-contained HTML file: text, tables and pictures inside, no network needed. Light and dark."""

import base64
import html
import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lts.utils import files

STYLE = """
:root { color-scheme: light dark; --text: #222; --note: #555; --line: #ddd; --box: #f6f6f6; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --note: #aaa; --line: #444; --box: #262626; --page: #181818; }
}
body { max-width: 74rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--page); }
h1, h2 { line-height: 1.2; margin: 2rem 0 0.5rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { color: var(--note); font-size: 0.9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: var(--box); padding: 0.75rem; overflow-x: auto; font-size: 0.8rem; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole HTML page.

    Args:
      title: plain text.
      body: HTML.
      style: CSS behind that of all pages.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style>'
    whole = f'<html lang="en"><head>{head}<title>{html.escape(title)}</title></head>\n<body>\n{body}\n</body></html>'
    return f"<!doctype html>\n{whole}\n"


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
        files.write_text(path, page(self.title, "\n".join(self._parts)))
