"""The log in the folder of a run."""

import errno
import io
import os
import re
import sys

import pytest

from lts.utils import run_log, streams
from lts.utils.progress import print_with_time
from lts.utils.text import warn

ENTRY = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.+)")


def open_terminal(monkeypatch) -> io.TextIOWrapper:
    """Return what a program prints, in place of both of its streams."""
    # NB: no fixture: pytest replaces the streams between fixtures and test.
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, terminal)
    streams.open_program_streams(quiet=False)
    return terminal


def shown(terminal: io.TextIOWrapper) -> str:
    return terminal.buffer.getvalue().decode()


def entries(workdir) -> list[str]:
    """Return the entries of a log without their times."""
    header, *lines = (workdir / run_log.NAME).read_text(encoding="utf-8").splitlines()
    assert f"{header}\n" == run_log.HEADER
    return [ENTRY.fullmatch(line)[1] for line in lines]


def test_lines_are_recorded(monkeypatch, tmp_path):
    """Fails if a line lacks, a name is not escaped, a bar is recorded, or a resumed run loses the first lines."""
    terminal = open_terminal(monkeypatch)
    print("opened \x1b[31mphotos")
    streams.begin_log(tmp_path)
    print_with_time("gan step 50/100")
    print("\rgan 51/100 51%", end="", file=sys.stderr)
    print("\rgan 52/100 52%", end="", file=sys.stderr)
    streams.write_to_log("gan step 52/100")
    print("\r               \r", end="", file=sys.stderr)
    print("gan step 52/100 kNN 43.1%")
    print("\rgan 53/100 53%", end="", file=sys.stderr)
    warn("a\nb")
    print("\rgan 100/100 100%", end="", file=sys.stderr)
    print(file=sys.stderr)
    print("over\rwritten")
    streams.end_log()
    print("between two runs")
    with (tmp_path / run_log.NAME).open("a") as log:
        log.write("cut off by a kil")  # no entry: the next one begins a new line
    streams.begin_log(tmp_path)
    print("resuming", end="")
    print(" at step 52")
    text = (tmp_path / run_log.NAME).read_text().replace("cut off by a kil\n", "")
    (tmp_path / run_log.NAME).write_text(text)
    first = ["opened \\x1b[31mphotos", "gan step 50/100", "gan step 52/100", "gan step 52/100 kNN 43.1%"]
    assert entries(tmp_path) == [*first, "warning: a\\nb", "written", "between two runs", "resuming at step 52"]
    assert "gan step 52/100\n" not in shown(terminal)


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "pipe", "link"])
def test_files_of_the_user_stay(monkeypatch, tmp_path, kind):
    """Fails if another file of this name is changed, opened or followed, or stops the training."""
    path = tmp_path / run_log.NAME
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("my notes\n" if kind == "text" else "")
    before = path.read_text() if path.is_file() else None
    terminal = open_terminal(monkeypatch)
    streams.begin_log(tmp_path)
    print("step 1")
    assert shown(terminal).splitlines()[0].endswith("is not a log of this program; it stays, and no log is written")
    assert before is None or path.read_text() == before
    assert sorted(os.listdir(tmp_path)) == [run_log.NAME]


@pytest.mark.parametrize("begun", [False, True])
def test_a_full_disk_stops_nothing(monkeypatch, tmp_path, begun):
    """Fails if a log that cannot be written raises, is reported twice, or leaves a file that no later start accepts."""

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    terminal = open_terminal(monkeypatch)
    if begun:
        streams.begin_log(tmp_path)
        print("step 1")
    with monkeypatch.context() as patch:
        patch.setattr(run_log.os, "write", full)
        if not begun:
            streams.begin_log(tmp_path)
        print("step 2")
        print("step 3")
    assert shown(terminal).count("No space left on device") == 1
    assert shown(terminal).count("step") == 2 + begun
    assert (tmp_path / run_log.NAME).exists() == begun
    streams.begin_log(tmp_path)
    print("step 4")
    assert entries(tmp_path)[-1] == "step 4"
