"""Ctrl-C and SIGTERM as a request to stop."""

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
    """Request to stop; true after a signal arrived.

    Attributes:
      signal: number of the signal, or None.
    """

    def __init__(self):
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop.

    Loops check the request after each step or batch. A second signal raises KeyboardInterrupt at once.

    Yields:
      The request.
    """
    request = StopRequest()

    def handle(number, frame):
        if request:
            raise KeyboardInterrupt
        request.signal = number

    previous = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Python sets handlers in the main thread only; other threads receive no signals anyway.
            with contextlib.suppress(ValueError):
                previous[number] = signal.signal(number, handle)
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def reraise_signal(number: int | None) -> None:
    """End the process by a signal that was caught.

    Callers save and report first.

    Args:
      number: the signal; None does nothing.

    Raises:
      KeyboardInterrupt: the signal is ignored, for example SIGINT in a background job of a shell.
    """
    if number is not None:
        signal.raise_signal(number)
        raise KeyboardInterrupt
