"""Figures of matplotlib with text of users."""

import contextlib
import io
import warnings
from collections.abc import Iterator

from matplotlib.figure import Figure
from matplotlib.text import Text

from lts.utils.errors import UserError, first_line
from lts.utils.text import warn


def png(figure: Figure, dpi: int) -> bytes:
    """Return a figure as a PNG file, with dollar signs as they are.

    matplotlib takes text between two dollar signs for a formula. Names of classes, files and data sets hold such text.
    NB: it cannot draw text that is no UTF-8, so names must be `printable`.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # Characters without a glyph, such as Chinese ones, become boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(picture, format="png", dpi=dpi)
    return picture.getvalue()


def legend_label(text: str) -> str:
    """Return a label that a legend shows."""
    # NB: matplotlib leaves out labels that begin with an underscore.
    return f" {text}" if text.startswith("_") else text


@contextlib.contextmanager
def optional_picture(name: str) -> Iterator[None]:
    """Print one warning if a picture cannot be drawn.

    A picture is drawn after the work, and its failure must not lose the results. Errors of files, and those that a user
    can cause, are raised.
    """
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:  # NB: matplotlib and Pillow raise nearly any type
        warn(f"{name} was not drawn ({first_line(error)})")
