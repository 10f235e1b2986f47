"""The HTML page is one file, well formed and escaped."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lts.visualization.html import Panel, Report, Tile


class Outline(html.parser.HTMLParser):
    """Tags, attribute values and text of a page.

    Fails on a tag that is closed in the wrong order.
    """

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.values = []
        self.text = ""
        self.open = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += [value for _, value in attributes]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(tmp_path):
    """The text of a page with every kind of part, in tmp_path/deep/report.html."""
    report = Report("a < b & c")
    report.heading("<script>alert(1)</script>")
    report.paragraph('say "no" to <b>')
    report.preformatted("line 1\n<line 2>")
    report.table([["name", "value"], ["<i>", 3]])
    report.picture(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 'a "small" <picture>', scale=3)
    report.picture(Figure(figsize=(1, 1)), "a figure")
    tiles = [Tile(np.full([4, 4, 3], 9, np.uint8), 'tile "1" <a>', "query"), Tile(np.zeros([4, 4, 3], np.uint8), "b")]
    report.panels([Panel("<panel>", [tiles, tiles[:1]]), Panel("figure", Figure(figsize=(1, 1)))], width=20)
    report.write(tmp_path / "deep" / "report.html")
    return (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed_and_escaped(page):
    """Fails if text is taken as HTML, or if a tag stays open."""
    outline = Outline(page)
    assert outline.open == []
    assert "script" not in outline.tags
    assert {"a", "b", "i", "panel", "picture"}.isdisjoint(outline.tags)
    for text in ("<script>alert(1)</script>", 'say "no" to <b>', "line 1\n<line 2>", "<i>", "<panel>"):
        assert text in outline.text
    assert {'a "small" <picture>', 'tile "1" <a>'} <= set(outline.values)
    # Rows with fewer tiles have tiles of the same size.
    assert outline.values.count("--columns: 2") == 2


def test_page_needs_no_other_file(page, tmp_path):
    """Fails if the page loads anything, or if a picture is not inside it."""
    assert not re.search(r"https?:|//|<link|@import|url\(", re.sub(r"base64,[^\"]*", "", page))
    sources = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]*)"', page)
    assert len(sources) == page.count("<img") == 6
    small = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0]))))
    np.testing.assert_array_equal(small[::3, ::3], np.arange(12).reshape(2, 2, 3))
    assert small.shape == (6, 6, 3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
