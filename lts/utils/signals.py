"""Ctrl-C and SIGTERM as a request to stop at the next step or batch."""

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
    """Whether to stop, and by which signal."""

    def __init__(self):
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While in the block, SIGINT and SIGTERM set the request; a second one of them stops at once."""
    request = StopRequest()

    def handle(number, frame):
        if request:
            raise KeyboardInterrupt
        request.signal = number

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread: nothing to catch there
                before[number] = signal.signal(number, handle)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reraise_signal(number: int | None) -> None:
    """Ends the process by a signal that a training run caught and reported.

    Args:
      number: the signal; None does nothing.

    Raises:
      KeyboardInterrupt: the signal is ignored, for example SIGINT in a background job of a shell.
    """
    if number is not None:
        signal.raise_signal(number)
        raise KeyboardInterrupt
