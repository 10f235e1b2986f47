"""Progress of long loops: a bar on terminals, lines in logs."""

import sys
import time

import tqdm

LOG_SECONDS = 10  # between two lines in a log


class Progress:
    """Progress counter.

    A context manager: leaving it without an error prints the total time. On a terminal it shows a tqdm bar. In a log
    it prints one line every ten seconds, because the control characters of a bar make logs unreadable.

    Args:
      title: name of the work.
      total: number of items.
      unit: plural name of the items.
      first: number of items that an earlier run finished.

    Example:
      >>> with Progress("spotting", 1000) as progress:
      ...     progress.advance(32)
    """

    def __init__(self, title: str, total: int, unit: str = "images", first: int = 0):
        self.title = title
        self.total = total
        self.unit = unit
        self.done = first
        self._first = first
        self._start = time.monotonic()
        self._last_line = self._start
        silent = not sys.stderr.isatty()
        options = {"unit": f" {unit}", "leave": False, "dynamic_ncols": True, "disable": silent}
        self._bar = tqdm.tqdm(desc=title, total=total, initial=first, **options)

    def advance(self, count: int) -> None:
        """Count `count` more items as done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and self.done < self.total and now - self._last_line >= LOG_SECONDS:
            self._last_line = now
            rate = (self.done - self._first) / (now - self._start)
            seconds_left = (self.total - self.done) / rate
            counts = f"{self.done} of {self.total} {self.unit}"
            print(f"{self.title}: {counts}, {rate:.0f} {self.unit}/s, {seconds_left:.0f} s left", flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, *_) -> None:
        self._bar.close()
        if kind is None:
            seconds = time.monotonic() - self._start
            print(f"{self.title}: {self.done} {self.unit}, {seconds:.1f} s", flush=True)
