"""Ctrl-C, SIGTERM and SIGHUP as a request to stop."""

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


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a program."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    # `nohup` ignores SIGHUP, which a closed terminal sends: such a program must run on.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the signals of `stop_signals` into a request to stop.

    Loops check the request after each step or batch. A second SIGINT or SIGTERM raises KeyboardInterrupt at once.

    Yields:
      The request.
    """
    request = StopRequest()

    def handle(number, frame):
        # NB: a closed terminal may send SIGHUP twice, from the shell and from the kernel.
        if request and number == signal.SIGHUP:
            return
        if request:
            raise KeyboardInterrupt
        request.signal = number

    previous = {}
    try:
        for number in stop_signals():
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
