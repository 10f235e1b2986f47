"""Log of a run: what its programs print, with times of day."""

import collections
import contextlib
import os
import pathlib
import re
import stat
import time

from lts.utils.errors import first_line
from lts.utils.text import warn

NAME = "train.log"
TIME_FORMAT = "%H:%M:%S"
HEADER = "# Log of a run of lts. Every start of a program appends to it.\n"
WAITING_LINES = 1000  # most lines that a run gets which were printed before it began


class LogLine:
    """The line that one stream is writing."""

    def __init__(self, log: "RunLog"):
        self._log = log
        self._text = ""

    def write(self, text: str) -> None:
        """Add a text; complete lines go to the log."""
        # A progress bar draws over itself, and other lines end its line.
        if text.startswith("\r") and "\n" not in text:
            return
        *lines, rest = text.split("\n")
        for line in lines:
            self._log.write_line(self._text + line)
            self._text = ""
        self._text += rest


class RunLog:
    """Log of a program, and of the runs that it trains one after the other.

    Lines wait in memory until a run begins. A file that cannot be written costs one warning, and training continues.
    """

    def __init__(self):
        self._waiting: collections.deque[str] = collections.deque(maxlen=WAITING_LINES)
        self._descriptor: int | None = None
        self._path: pathlib.Path | None = None

    def add_stream(self) -> LogLine:
        """Return the line of a further stream."""
        return LogLine(self)

    def begin(self, workdir: str | os.PathLike) -> None:
        """Append to WORKDIR/train.log from now on. The caller holds the lock of the folder."""
        self.end()
        path = pathlib.Path(workdir) / NAME
        try:
            self._descriptor = _open(path)
        except OSError as error:
            warn(f"{path} cannot be written ({first_line(error)}); training continues without a log")
            self._waiting.clear()
            return
        if self._descriptor is None:
            warn(f"{path} is not a log of this program; it stays, and no log is written")
            self._waiting.clear()
            return
        self._path = path
        while self._waiting:
            self._write(self._waiting.popleft())

    def end(self) -> None:
        """Close the file; further lines wait for the next run."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None

    def write_line(self, line: str) -> None:
        """Add a line with the time of day."""
        text = line.rstrip().rpartition("\r")[2]  # what a terminal shows
        if not text:
            return
        # Lines of a long run begin with the time.
        moment = "%Y-%m-%d" if re.match(r"\d\d:\d\d:\d\d ", text) else f"%Y-%m-%d {TIME_FORMAT}"
        entry = f"{time.strftime(moment)} {text}\n"
        if self._descriptor is None:
            self._waiting.append(entry)
        else:
            self._write(entry)

    def _write(self, entry: str) -> None:
        """Append a line to the file, if there still is one."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, entry.encode("utf-8", errors="backslashreplace"))
        except OSError as error:
            self.end()
            warn(f"{self._path} cannot be written ({first_line(error)}); training continues without a log")


def _open(path: pathlib.Path) -> int | None:
    """Return a descriptor that appends; None: the file is another program's."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        # NB: opening a FIFO would block.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with path.open("rb") as file:
            if file.read(len(HEADER)) != HEADER.encode():
                return None
            file.seek(-1, os.SEEK_END)
            is_complete = file.read() == b"\n"
        descriptor = os.open(path, flags)
        if not is_complete:  # the last process was killed, or the disk was full
            os.write(descriptor, b"\n")
        return descriptor
    try:
        os.write(descriptor, HEADER.encode())
    except OSError:  # a full disk: an empty file would be taken for another program's
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor
