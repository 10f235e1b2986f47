"""Standard output and error that may be closed, full, or piped to a reader that leaves.

A program that trains for days must not lose its steps to `| head -14`, a closed terminal or a full log disk. What it
prints goes through one `ProgramStream` per descriptor, which escapes names, follows `--quiet` and keeps the log.
"""

import errno
import os
import sys
from typing import Any, TextIO

from lts.utils.run_log import RunLog
from lts.utils.text import printable

# Nobody reads the output any more: a pipe was closed, a terminal hung up.
READER_LEFT = (errno.EPIPE, errno.EIO)


class TolerantStream:
    """Text stream that goes to the null device after its first error.

    Attributes:
      error: the first error, or None.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def writelines(self, lines) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what was written, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.error = self.error or error
        # NB: the descriptor is replaced, because the stream keeps its buffer and TensorFlow writes to the descriptor.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._stream.flush()


def tolerate_lost_output() -> None:
    """Make `sys.stdout` and `sys.stderr` tolerant for the rest of the program."""
    # NB: a closed descriptor would be given to the next file that is opened, and prints would end in that file.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python sets a stream to None if its descriptor is closed at the start.
    sys.stdout = TolerantStream(sys.stdout or open(1, "w", closefd=False))  # noqa: SIM115
    sys.stderr = TolerantStream(sys.stderr or open(2, "w", closefd=False))  # noqa: SIM115


def lost_output() -> OSError | None:
    """Flush both streams; return the error by which output was lost.

    Output that nobody reads any more is not lost.
    """
    sys.stderr.flush()
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    return None if error is None or error.errno in READER_LEFT else error


class ProgramStream:
    """Output of a program: without control characters, recorded in the log, silent with `--quiet`.

    Args:
      stream: a text stream.
      log: gets every line, also silent ones.
      silent: drop everything but the result.
      is_quiet: whether `--quiet` was given; a quiet stream is no terminal, so that no bar is drawn.
    """

    def __init__(self, stream: Any, log: RunLog, silent: bool = False, is_quiet: bool = False):
        self._stream = stream
        self._line = log.add_stream()
        self.log = log
        self.silent = silent
        self.is_quiet = is_quiet
        self._result: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Return whether bars may be drawn."""
        return not self.is_quiet and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write a text without control characters, and record it."""
        # NB: names may hold escape sequences, which a terminal would obey. Progress bars need "\r".
        safe = printable(text, keep="\n\r\t")
        if not self.silent:
            self._stream.write(safe)
        self._line.write(safe)
        return len(text)

    def writelines(self, lines) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def keep_result(self, text: str) -> None:
        """Keep a text for `print_kept_result`, if this stream is silent."""
        if self.silent:
            self._result = text

    def print_kept_result(self) -> None:
        """Print the last text of `keep_result`."""
        if self._result is not None:
            text = self._result.strip("\n")  # but not the spaces in front of a table
            self._stream.write(printable(f"{text}\n", keep="\n\t"))
            self._result = None


def open_program_streams(quiet: bool) -> None:
    """Replace `sys.stdout` and `sys.stderr` by the streams of a program."""
    log = RunLog()
    streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
    for stream in streams:
        # File names may hold characters that the locale cannot show.
        stream.reconfigure(errors="backslashreplace")
    sys.stdout = ProgramStream(sys.stdout, log, silent=quiet, is_quiet=quiet)
    sys.stderr = ProgramStream(sys.stderr, log, is_quiet=quiet)


def begin_log(workdir: str | os.PathLike) -> None:
    """Begin the log of a run in a locked folder. Only programs that called `open_program_streams` have one."""
    if isinstance(sys.stdout, ProgramStream):
        sys.stdout.log.begin(workdir)


def end_log() -> None:
    """End the log of a run."""
    if isinstance(sys.stdout, ProgramStream):
        sys.stdout.log.end()


def write_to_log(line: str) -> None:
    """Write a line to the log of the run alone, for example where the terminal shows a bar."""
    if isinstance(sys.stdout, ProgramStream):
        sys.stdout.log.write_line(line)


def print_result(text: str) -> None:
    """Print what a program was started for. With `--quiet` the last such text is printed at the end.

    Args:
      text: one line or a table.
    """
    print(text, flush=True)
    if isinstance(sys.stdout, ProgramStream):
        sys.stdout.keep_result(text)


def print_kept_result() -> None:
    """Print the result that `--quiet` has kept until the end."""
    if isinstance(sys.stdout, ProgramStream):
        sys.stdout.print_kept_result()
