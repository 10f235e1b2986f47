"""The page is one file, complete and escaped; the figures show what they are given."""

import base64
import html.parser
import io
import re

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from experiments.reporting import figures


class _Outline(html.parser.HTMLParser):
    """Collects tags, the values of attributes, and text; notices tags that are not closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.values, self.text, self.open = [], [], "", []
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


def _page(tmp_path):
    report = figures.Report("a < b & c")
    report.heading("<script>alert(1)</script>")
    report.paragraph('say "no" to <b>')
    report.preformatted("line 1\n<line 2>")
    report.table([["name", "value"], ["<i>", 3]])
    report.picture(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 'a "small" <picture>', scale=3)
    report.picture(Figure(figsize=(1, 1)), "a figure")
    report.write(tmp_path / "deep" / "report.html")
    return (tmp_path / "deep" / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed_and_escaped(tmp_path):
    outline = _Outline(_page(tmp_path))
    assert outline.open == []
    assert "script" not in outline.tags
    assert {"b", "i", "picture"}.isdisjoint(outline.tags)
    for text in ("<script>alert(1)</script>", 'say "no" to <b>', "line 1\n<line 2>", "<i>", 'a "small" <picture>'):
        assert text in outline.text
    assert 'a "small" <picture>' in outline.values


def test_page_needs_no_other_file(tmp_path):
    page = _page(tmp_path)
    assert not re.search(r"https?:|//|<link|@import|url\(", re.sub(r"base64,[^\"]*", "", page))
    sources = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert len(sources) == page.count("<img") == 2
    small = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0]))))
    np.testing.assert_array_equal(small[::3, ::3], np.arange(12).reshape(2, 2, 3))
    assert small.shape == (6, 6, 3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_overlay_leaves_kept_cells_alone():
    images = np.full([1, 4, 4, 3], 100, np.uint8)
    dropped = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    overlay = figures.artifact_overlay(images, dropped)
    changed = (overlay != images).any(axis=-1)[0]
    expected = np.zeros([4, 4], bool)
    expected[:2, 2:] = True
    np.testing.assert_array_equal(changed, expected)


def test_figures_can_be_drawn():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    artifacts = figures.artifact_figure(images, generator.random((3, 2, 2)), np.array([0.0, 0.5, 1.0]))
    curves = figures.curves_figure([1, 2, 3], {name: [1, float("nan"), 2] for name in "abcd"})
    report = figures.Report("figures")
    report.picture(artifacts, "artifacts")
    report.picture(curves, "curves")
    assert [axis.get_title() for axis in artifacts.axes[3:]] == ["repaired: 0 %", "repaired: 50 %", "repaired: 100 %"]
    assert sum(axis.axison for axis in curves.axes) == 4
