"""Programs whose standard output or error is closed, full, or read by nobody."""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from lts.utils import streams
from tests.fixtures.runs import ROOT

# More lines than a pipe holds.
PROGRAM = """
import os, pathlib, sys
from lts.bin import common
def main():
    for line in range(20_000):
        print("line", line, file=[sys.stdout, sys.stderr][line % 2])
    pathlib.Path(os.environ["END"]).write_text("finished")
common.run(main)
"""


def run(tmp_path, redirection: str) -> subprocess.CompletedProcess:
    """Run the program in a shell that reports its status."""
    command = f'"{sys.executable}" -c "$PROGRAM" {redirection}'
    environment = {**os.environ, "PROGRAM": PROGRAM, "END": str(tmp_path / "end")}
    options = {"cwd": ROOT, "env": environment, "timeout": 300}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        ("2>ERR | head -1; exit ${PIPESTATUS[0]}", 0),
        ("2>&1 >/dev/null | head -1; exit ${PIPESTATUS[0]}", 0),
        (">&- 2>ERR", 0),
        (">/dev/null 2>&-", 0),
        (">&- 2>&- <&-", 0),
        ("2>/dev/full >/dev/null", 0),
        (">/dev/full 2>ERR", 1),
    ],
)
def test_program_runs_to_its_end(tmp_path, redirection, status):
    """Fails if a program ends early, shows a traceback, or hides that its output was lost."""
    done = run(tmp_path, redirection.replace("ERR", str(tmp_path / "err")))
    assert (tmp_path / "end").read_text() == "finished"
    assert done.returncode == status
    err = (tmp_path / "err").read_text() if (tmp_path / "err").exists() else ""
    unexpected = [line for line in err.splitlines() if not line.startswith("line ")]
    lost = f"standard output could not be written: {os.strerror(errno.ENOSPC)}"
    assert [line.partition(": ")[2] for line in unexpected] == ([lost] if status else [])


def test_quiet(tmp_path):
    """Fails if --quiet hides a warning, prints more than the last result, or prints one of a program that failed."""
    program = """
import sys
from lts.bin import common
from lts.utils.streams import print_result
from lts.utils.text import warn
def main():
    assert not sys.stderr.isatty()
    print("step 1")
    print_result("result of a first run")
    warn("odd")
    print_result("\\nresult\\nof two \x1b lines")
    print("next: another command")
    if WRONG:
        raise common.UserError("wrong")
common.run(main)
"""
    for wrong, out, err in [(False, "result\nof two \\x1b lines\n", ""), (True, "", "-c: wrong\n")]:
        command = [sys.executable, "-c", program.replace("WRONG", str(wrong)), "--quiet"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout, done.stderr) == (int(wrong), out, f"warning: odd\n{err}")


@pytest.mark.parametrize("option", ["--help", "--helpfull", "--version"])
def test_help_in_a_pipe(option):
    """Fails if `--help | head` shows a traceback or "Exception ignored"."""
    command = f"{sys.executable} -m lts.bin.train_gan {option} | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("", "")


def test_second_hangup_does_not_interrupt_the_first(tmp_path):
    """Fails if a closed terminal, which may send SIGHUP twice, ends a program during its cleaning up."""
    program = """
import signal
from lts.bin import common
def main():
    try:
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.raise_signal(signal.SIGHUP)
        print("cleaned up")
common.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (128 + signal.SIGHUP, "cleaned up\n")
    assert done.stderr.endswith(": the terminal was closed\n")
    assert done.stderr.count("\n") == 1


def test_stream_keeps_its_first_error(monkeypatch):
    """Fails if a later write raises, or the first reason is lost."""

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "full")

        def fileno(self):
            return write_end

    read_end, write_end = os.pipe()
    stream = streams.TolerantStream(Full())
    assert stream.write("text") == 4
    stream.writelines(["more", "lines"])
    stream.flush()
    assert stream.error.errno == errno.ENOSPC
    monkeypatch.setattr(sys, "stdout", stream)
    assert streams.lost_output() is stream.error
    os.close(read_end)
    os.close(write_end)
