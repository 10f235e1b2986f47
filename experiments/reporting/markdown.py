"""Cells of the result tables.

`lts.utils.markdown.table` joins the cells to a table. A blank cell stands for a figure that was not measured.
"""

from collections.abc import Sequence

from lts.utils.markdown import Markup, escape


def number(value: float | None, sign: str = "") -> str:
    """Return a number with one decimal; "+" signs it."""
    # A figure that is not known gives a blank.
    if value is None:
        return ""
    rounded = round(value, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:{sign}.1f}"


def percent(fraction: float | None, sign: str = "") -> str:
    """Return a fraction in percent; arguments as `number`."""
    return "" if fraction is None else number(100 * fraction, sign)


def percent_interval(fraction: float, interval: Sequence[float], sign: str = "") -> str:
    """Return a fraction in percent with its interval.

    Example:
      >>> percent_interval(0.1, (0.05, 0.15), "+")
      '+10.0 [5.0, 15.0]'
    """
    low, high = interval
    return f"{percent(fraction, sign)} [{percent(low)}, {percent(high)}]"


def fraction_interval(fraction: float | None, interval: Sequence[float] | None = None) -> str:
    """Return a fraction with three decimals.

    Example:
      >>> fraction_interval(0.5, (0.4, 0.6))
      '0.500 [0.400, 0.600]'
    """
    if fraction is None:
        return ""
    if not interval:
        return f"{fraction:.3f}"
    low, high = interval
    return f"{fraction:.3f} [{low:.3f}, {high:.3f}]"


def bold(row: Sequence[str]) -> list[str]:
    """Return a row in bold; blanks stay blank."""
    return [Markup(f"**{escape(cell)}**") if cell else "" for cell in row]
