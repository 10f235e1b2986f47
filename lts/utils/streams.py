"""Standard output and error that may be closed, full, or piped to a reader that leaves.

A program that trains for days must not lose its steps to `| head -14`, a closed terminal or a full log disk.
"""

import errno
import os
import sys
from typing import Any, TextIO

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
