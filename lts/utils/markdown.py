"""Markdown tables: the only writer of them."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table.

    Args:
      rows: the header first; vertical bars in cells are escaped.

    Returns:
      The table without a line break at its end.

    Raises:
      ValueError: a row is not as long as the header.
    """
    lines = []
    for row in rows:
        if len(row) != len(rows[0]):
            raise ValueError(f"rows must be as long as the header. Received: {len(row)} and {len(rows[0])} cells")
        cells = [f" {cell.replace('|', chr(92) + '|')} |" if cell else " |" for cell in row]
        lines.append("|" + "".join(cells))
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
