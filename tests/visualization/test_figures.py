"""Figures with text of users."""

import warnings

import pytest
from matplotlib.figure import Figure

from lts.utils.errors import UserError
from lts.visualization import figures

TEXTS = ["$a_{$", "$x^^$y", "猫 é", "\\$5 and $10"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_drawn(text):
    """Fails if a name is read as a formula, or a picture cannot be drawn or prints warnings."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=figures.legend_label(text))
    axes.set_xticks([0, 1], [text, text])
    axes.set_title(text)
    axes.legend()
    figure.suptitle(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figures.png(figure, dpi=50).startswith(b"\x89PNG")


def test_legends_show_every_label():
    """Fails if a folder that begins with an underscore is missing in the legend."""
    axes = Figure().subplots()
    for name in ("_runs/features", "runs"):
        axes.plot([0, 1], label=figures.legend_label(name))
    assert [text.get_text().strip() for text in axes.legend().get_texts()] == ["_runs/features", "runs"]


def test_a_picture_that_fails_is_a_warning(capsys):
    """Fails if a picture costs the results, or errors of files and of users are hidden."""
    with figures.optional_picture("results.png"):
        raise ValueError("no\nglyph")
    assert capsys.readouterr().err == "warning: results.png was not drawn (no)\n"
    for error in (OSError("disk full"), UserError("wrong")):
        with pytest.raises(type(error)), figures.optional_picture("results.png"):
            raise error
