"""Self-contained HTML reports.

Text, tables and pictures are inside one file that needs no network. It follows the light or dark scheme of the browser.
"""

import base64
import dataclasses
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
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--width)), 1fr));
  gap: 1rem 1.5rem; margin: 1rem 0; }
.panels > figure { margin: 0; max-width: 48rem; display: flex; flex-direction: column; }
.panels .drawn { margin-top: auto; padding-top: 0.3rem; }
.tiles { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 3px; margin: 0.3rem 0; }
.tiles img { width: 100%; display: block; border-radius: 2px; border-bottom: 4px solid transparent; }
.tiles:has(.query) { grid-template-columns: 1fr 0.4rem repeat(calc(var(--columns) - 1), 1fr); }
.tiles .query + img { grid-column: 3; }
.tiles .same { border-color: #2a9d5c; }
.panels strong { color: var(--text); }
figcaption, .note { color: var(--note); font-size: 0.9rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
pre { background: var(--box); padding: 0.75rem; font-size: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""

DPI = 120  # of figures
READABLE = 0.9  # least size of a figure, as a share of its full size; text of 8 points then has 12 pixels


def escape(text: str) -> str:
    """Return plain text as HTML; line breaks stay."""
    return html.escape(printable(text, keep="\n"))


def page(title: str, body: str, style: str = "") -> str:
    """Return an HTML page; `title` is plain text."""
    # Without the viewport, telephones would show the page at desktop width.
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style>'
    document = f'<html lang="en"><head>{head}<title>{escape(title)}</title></head>\n<body>\n{body}\n</body></html>'
    return f"<!doctype html>\n{document}\n"


@dataclasses.dataclass(frozen=True)
class Tile:
    """Small picture in a grid of many."""

    picture: np.ndarray  # uint8 [h, w, 3]
    text: str  # shown under the pointer, and read by screen readers
    mark: str = ""  # "query": the picture that the others are compared with | "same": a green line below | ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """Rows of tiles, or a figure, below a title and a text."""

    title: str
    content: Sequence[Sequence[Tile]] | Figure
    text: str = ""


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
        text = escape(caption)
        if isinstance(picture, Figure):
            # On a narrow screen a figure scrolls: at its width the text in it would be too small to read.
            png = figures.png(picture, dpi=DPI)
            width = round(READABLE * DPI * picture.get_figwidth())
            drawn = _image(png, "png", text, f'class="drawn" style="min-width: {width}px"')
            image = f'<div class="scroll">{drawn}</div>'
        else:
            png = _encoded(picture.repeat(scale, axis=0).repeat(scale, axis=1), format="png")
            image = _image(png, "png", text)
        self._parts.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")

    def panels(self, panels: Sequence[Panel], width: float) -> None:
        """Add panels next to each other, and below each other where the screen is narrow.

        Args:
          panels: of any number.
          width: least width of a panel in rem, units of 16 pixels.
        """
        # Tiles have one size in all panels, also in a row that holds fewer.
        columns = max((len(row) for panel in panels for row in _tiles(panel)), default=1)
        parts = []
        for panel in panels:
            title = escape(panel.title)
            if isinstance(panel.content, Figure):
                content = _image(figures.png(panel.content, dpi=DPI), "png", title, 'class="drawn"')
            else:
                content = "".join(_row(tiles, columns) for tiles in panel.content)
            caption = f"<figcaption><strong>{title}</strong> {escape(panel.text)}</figcaption>"
            parts.append(f"<figure>{caption}{content}</figure>")
        self._parts.append(f'<div class="panels" style="--width: {width:g}rem">{"".join(parts)}</div>')

    def write(self, path: str | os.PathLike) -> None:
        """Write the page atomically."""
        files.write_text(path, page(self.title, "\n".join(self._parts)))


def _tiles(panel: Panel) -> Sequence[Sequence[Tile]]:
    """Return the rows of tiles of a panel; none if it holds a figure."""
    return () if isinstance(panel.content, Figure) else panel.content


def _row(tiles: Sequence[Tile], columns: int) -> str:
    """Return a row of tiles."""
    # Photographs as JPEG: a page of hundreds of tiles would have many times the size as PNG.
    images = []
    for tile in tiles:
        text = escape(tile.text)
        encoded = _encoded(tile.picture, format="jpeg", quality=90)
        images.append(_image(encoded, "jpeg", text, f'title="{text}" class="{tile.mark}"'))
    return f'<div class="tiles" style="--columns: {columns}">{"".join(images)}</div>'


def _image(encoded: bytes, kind: str, text: str, attributes: str = "") -> str:
    """Return an encoded picture as HTML; `text` is escaped, and `attributes` are those of HTML."""
    # Pictures are data URLs, so that the page is one file.
    data = base64.b64encode(encoded).decode()
    return f'<img alt="{text}" {attributes} src="data:image/{kind};base64,{data}">'


def _encoded(picture: np.ndarray, **options) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return file.getvalue()
