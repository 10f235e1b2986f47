"""Self-contained HTML reports.

Text, tables and pictures are inside one file that needs no network. It follows the light or dark scheme of the browser.
"""

import base64
import html
import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lts.utils import files
from lts.utils.text import printable
from lts.visualization import figures

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


def escape(text: str) -> str:
    """Return plain text as HTML; line breaks stay."""
    return html.escape(printable(text, keep="\n"))


def page(title: str, body: str, style: str = "") -> str:
    """Return an HTML page; `title` is plain text."""
    # Without the viewport, telephones would show the page at desktop width.
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style>'
    document = f'<html lang="en"><head>{head}<title>{escape(title)}</title></head>\n<body>\n{body}\n</body></html>'
    return f"<!doctype html>\n{document}\n"


class Report:
    """HTML report, built part by part.

    All text is escaped.

    Example:
      >>> report = Report("Quickstart")
      >>> report.heading("Filters")
      >>> report.picture(filter_montage(kernel), "conv_1", scale=4)
      >>> report.write("runs/quickstart/report.html")
    """

    def __init__(self, title: str):
        self.title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def preformatted(self, text: str) -> None:
        """Add text that keeps its line breaks."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Add a table, its header first."""
        lines = []
        for index, row in enumerate(rows):
            tag = "td" if index else "th"
            cells = "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in row)
            lines.append(f"<tr>{cells}</tr>")
        table = f"<table><thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody></table>"
        self._parts.append(f'<div class="scroll">{table}</div>')

    def picture(self, picture: np.ndarray | Figure, caption: str, scale: int = 1) -> None:
        """Add a picture with its caption.

        Args:
          picture: uint8 [H, W, 3], or a matplotlib figure.
          caption: plain text below the picture; screen readers read it in place of the picture.
          scale: integer factor that enlarges an array; small images stay sharp.
        """
        png = io.BytesIO()
        if isinstance(picture, Figure):
            png.write(figures.png(picture, dpi=120))
        else:
            enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            Image.fromarray(enlarged).save(png, format="png")
        # Pictures are data URLs, so that the page is one file.
        data = base64.b64encode(png.getvalue()).decode()
        text = escape(caption)
        image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
        self._parts.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")

    def write(self, path: str | os.PathLike) -> None:
        """Write the page atomically."""
        files.write_text(path, page(self.title, "\n".join(self._parts)))
