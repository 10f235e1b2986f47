"""Lines that a terminal shows while the program is silent."""

import io

import pytest

from lts.utils.progress import terminal_note


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "written"), [(Terminal(), "\rloading\r\r       \r"), (io.StringIO(), "")], ids=["terminal", "log"]
)
def test_note(stream, written, monkeypatch):
    """Fails if a note stays on the terminal, also after an error, or reaches a log."""
    monkeypatch.setattr("sys.stderr", stream)

    def fail():
        with terminal_note("loading"):
            assert stream.getvalue() == written[:9]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stream.getvalue() == written
