"""Markdown of tables and of text of users."""

import pytest

from lts.utils.markdown import Markup, code, escape, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv_1 [48.1, 52.0]", "conv_1 [48.1, 52.0]"),
        ("a **b** `c` ~d~", r"a \*\*b\*\* \`c\` \~d\~"),
        ("_runs_/x_y", r"\_runs\_/x_y"),
        ("[x](http://e)", r"[x\](http://e)"),
        ("![x][y]", r"![x\][y]"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("&lt; a & b", "&amp;lt; a & b"),
        ("$a$", r"\$a\$"),
        ("a\n# b", r"a\\n# b"),
        ("a\\", "a\\\\"),
    ],
)
def test_plain_text_has_no_markup(text, expected):
    """Fails if the name of a class or file changes the page, or ordinary text is cluttered."""
    assert escape(text) == expected
    assert escape(escape(text)) == expected


def test_tables_escape_all_but_markup():
    """Fails if a cell breaks its row or brings markup, or if markup of the program is escaped."""
    text = table([["<b>", "a|b"], [Markup("**1**"), code("x|`y")], ["a\nb", ""]])
    lines = ["| &lt;b&gt; | a\\|b |", "|---|---|", "| **1** | `` x\\|`y `` |", r"| a\\nb | |"]
    assert text == "\n".join(lines)


def test_rows_of_another_length():
    """Fails if a row with a missing cell shifts the columns."""
    with pytest.raises(ValueError, match="as long as the header"):
        table([["a", "b"], ["c"]])


@pytest.mark.parametrize("text", ["a", "`a", "a``b", "$a$ <b>"])
def test_code_ends_where_it_should(text):
    """Fails if backticks of a name end its code span."""
    span = code(text)
    fence = span[: len(span) - len(span.lstrip("`"))]
    assert fence not in span[len(fence) : -len(fence)]
    assert span.strip("`").strip() == text.strip("`") or text in span
