"""Text of users: control characters, bytes that are no UTF-8, formulas."""

import csv
import io
import os

import pytest

from lts.utils.text import csv_table, printable, utf8, warn

NOT_UTF8 = os.fsdecode(b"gr\xf6n.png")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Käse 日本 😀.png", "Käse 日本 😀.png"),
        ("a\x1b[31m.png", r"a\x1b[31m.png"),
        ("a\x9b31m.png", r"a\x9b31m.png"),
        ("a\nb\rc\td\x07\x7f", r"a\nb\rc\td\x07\x7f"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\u2028b", r"a\u2028b"),
        (NOT_UTF8, r"gr\xf6n.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(text, expected):
    """Fails if a name reaches a terminal with an escape sequence, a line break or bytes that are no UTF-8."""
    assert printable(text) == expected
    expected.encode()


def test_kept_characters():
    """Fails if a stream loses its line breaks, or keeps other control characters."""
    assert printable("a\n\x1b\rb", keep="\n\r") == "a\n\\x1b\rb"


def test_utf8_keeps_control_characters():
    """Fails if a name in a file of records is not the name of the image."""
    assert utf8("a\nb\x1b") == "a\nb\x1b"
    assert utf8(NOT_UTF8) == r"gr\xf6n.png"
    assert utf8("\ud800") == r"\ud800"


def test_a_warning_is_one_line(capsys):
    """Fails if a name forges further lines of a log."""
    warn("a\nerror: b\x1b[2J")
    assert capsys.readouterr().err == "warning: a\\nerror: b\\x1b[2J\n"


@pytest.mark.parametrize("name", ["=cmd|calc!A1.png", "+1.png", "-1.png", "@x.png", "\tx.png", "\r=x.png", " =1.png"])
def test_formulas_become_text(name):
    """Fails if a spreadsheet runs the name of a file as a formula."""
    text = csv_table([["image", "score"], [name, -0.5]])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["image", "score"], ["'" + name.replace("\r", "\\r"), "-0.5"]]


def test_other_cells_stay():
    """Fails if a name without a formula changes, or cannot be written."""
    names = ["a=b.png", 'a,"b".png', "a\nb.png", "'=x.png"]
    rows = list(csv.reader(io.StringIO(csv_table([[name] for name in [*names, NOT_UTF8]]), newline="")))
    assert rows == [[name] for name in [*names, r"gr\xf6n.png"]]
