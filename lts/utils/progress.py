"""How far long work is: a bar on a terminal, plain lines in a log."""

import sys
import time

import tqdm

SECONDS = 10  # between two lines of a log


class Progress:
    """Counts what is done; a context manager that ends with its line.

    Args:
      title: what is going on.
      total: how many there are.
      unit: what is counted.
      first: so many were done before.

    Example:
      >>> with Progress("spotting", 1000) as progress:
      ...     progress.advance(32)
    """

    def __init__(self, title: str, total: int, unit: str = "images", first: int = 0):
        self.title, self.total, self.unit = title, total, unit
        self.done, self._first, self._began = first, first, time.monotonic()
        self._spoke = self._began
        silent = not sys.stderr.isatty()
        look = {"desc": title, "unit": f" {unit}", "disable": silent, "leave": False, "dynamic_ncols": True}
        self._bar = tqdm.tqdm(total=total, initial=first, **look)

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and self.done < self.total and now - self._spoke >= SECONDS:
            self._spoke, rate = now, (self.done - self._first) / (now - self._began)
            left = (self.total - self.done) / rate
            print(
                f"{self.title}: {self.done} of {self.total} {self.unit}, {rate:.0f} a second, {left:.0f} s left",
                flush=True,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, *_) -> None:
        self._bar.close()
        if kind is None:
            seconds = time.monotonic() - self._began
            print(f"{self.title}: {self.done} {self.unit}, {seconds:.1f} s", flush=True)
