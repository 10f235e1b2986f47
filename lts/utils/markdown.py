"""Markdown: the only writer of tables, and escapes for text of users."""

import re
from collections.abc import Sequence

from lts.utils.text import printable

# Characters that begin markup: emphasis, code, formulas, links, HTML and entities. An underscore within a word and
# brackets that begin no link are plain text.
MARKUP = re.compile(r"[\\`*$~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[:])")


class Markup(str):
    """Text that is Markdown, such as a bold number; tables do not escape it."""

    __slots__ = ()


def escape(text: str) -> str:
    r"""Return plain text as Markdown.

    Example:
      >>> escape("**a** <b>_c_")
      '\\*\\*a\\*\\* &lt;b&gt;\\_c\\_'
    """
    if isinstance(text, Markup):
        return text
    escaped = MARKUP.sub(r"\\\g<0>", printable(text))
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", escaped)
    return Markup(escaped.replace("<", "&lt;").replace(">", "&gt;"))


def code(text: str) -> Markup:
    """Return plain text as a code span."""
    text = printable(text)
    # A span ends at as many backticks as it begins with.
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest else ""
    return Markup(f"{fence}{padding}{text}{padding}{fence}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table.

    Args:
      rows: the header first. Cells are plain text, which is escaped, or `Markup`.

    Returns:
      The table without a line break at its end.

    Raises:
      ValueError: a row is not as long as the header.
    """
    lines = []
    for row in rows:
        if len(row) != len(rows[0]):
            raise ValueError(f"rows must be as long as the header. Received: {len(row)} and {len(rows[0])} cells")
        # Vertical bars separate cells, also within code.
        cells = [escape(cell).replace("|", r"\|") for cell in row]
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
