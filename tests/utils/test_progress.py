"""Lines that a terminal shows while the program is silent."""

import io
import sys

import pytest

from lts.utils.progress import terminal_note
from lts.utils.run_log import RunLog
from lts.utils.streams import ProgramStream


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


def test_note_is_not_logged(tmp_path, monkeypatch):
    """Fails if the log of a run holds a note, in front of the next line."""
    log = RunLog()
    monkeypatch.setattr("sys.stderr", ProgramStream(Terminal(), log))
    log.begin(tmp_path)
    with terminal_note("loading"):
        pass
    print("a warning", file=sys.stderr)
    log.end()
    text = (tmp_path / "train.log").read_text()
    assert "a warning" in text
    assert "loading" not in text
    assert "  a warning" not in text
