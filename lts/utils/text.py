"""Text of users for terminals, tables and pages.

Names of files, classes and data sets may hold any character. Control characters move the cursor of a terminal, change
its colours or forge lines of a log. This module imports no TensorFlow.
"""

import csv
import io
import sys
import unicodedata
from collections.abc import Sequence

# Unicode categories of control characters, and of line and paragraph separators.
CONTROLS = ("Cc", "Zl", "Zp")
# Format characters that reverse the order of the text after them.
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# A cell that begins with one of these is a formula for a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    r"""Return text as valid UTF-8 without control characters.

    Control characters, line breaks, bidirectional overrides and bytes of a file name that are no UTF-8 are escaped.

    Args:
      text: for example the name of a file, a class or a data set.
      keep: control characters that stay, such as a line break.

    Example:
      >>> printable("a\x1b[31m.png")
      'a\\x1b[31m.png'
    """
    # NB: most text is plain, and terminals get every line of a run through this function.
    if text.isprintable():
        return text
    characters = []
    for character in utf8(text):
        if character not in keep and (character in BIDI or unicodedata.category(character) in CONTROLS):
            character = character.encode("unicode_escape").decode("ascii")
        characters.append(character)
    return "".join(characters)


def utf8(text: str) -> str:
    r"""Return text as valid UTF-8, for files that other programs read.

    Names of files are bytes. Python gives those that are no UTF-8 as surrogates, which are escaped here.

    Example:
      >>> utf8(os.fsdecode(b"gr\xf6n.png"))
      'gr\\xf6n.png'
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def warn(message: str) -> None:
    """Print a warning of one line to stderr."""
    print(f"warning: {printable(message)}", file=sys.stderr, flush=True)


def csv_table(rows: Sequence[Sequence[object]]) -> str:
    r"""Return rows of cells as CSV: the only writer of it.

    Texts that a spreadsheet would run as a formula get an apostrophe in front. Numbers stay.

    Example:
      >>> csv_table([["image", "score"], ["=1+1.png", -0.5]])
      "image,score\n'=1+1.png,-0.5\n"
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: object) -> object:
    """Return a value as a cell of CSV."""
    if not isinstance(value, str):
        return value
    cell = utf8(value).replace("\r", r"\r")  # NB: the csv module does not quote it
    # Spreadsheets skip spaces in front of a formula.
    return f"'{cell}" if value.lstrip(" ").startswith(FORMULA) else cell
