"""Progress of long loops: a bar on terminals, lines in logs."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping

import tqdm

from lts.utils.run_log import TIME_FORMAT

LOG_SECONDS = 10  # between two lines in a log
PROBE = "probe_"  # begins the names of an online evaluation
TIME = "00:00:00 "  # in front of the lines of a log


def progress_text(values: Mapping[str, float], columns: int) -> str:
    """Return the values that fit into some columns, the most important first.

    Example:
      >>> progress_text({"mask": 0.05, "accuracy_real": 0.98, "accuracy_mask": 0.54, "images_per_second": 290}, 50)
      'accuracy real 98% mask 54% | 290 images/s'
    """
    # Accuracies tell whether the training works, and are compared with chance.
    accuracies = []
    others = []
    for name, value in values.items():
        if name.startswith("accuracy"):
            accuracies.append(" ".join([*name.split("_"), f"{100 * value:.0f}%"]).removeprefix("accuracy "))
        elif name == "images_per_second":
            others.insert(0, f"{value:.0f} images/s")
        else:
            others.append(f"{name} {value:.3g}")
    parts = [f"accuracy {' '.join(accuracies)}"] if accuracies else []
    # Without accuracies the first loss is the most important value.
    if not accuracies and len(others) > 1:
        others[:2] = reversed(others[:2])
    return _joined([*parts, *others], columns)


def probe_text(values: Mapping[str, float], columns: int) -> str:
    """Return the values of an online evaluation that fit into some columns.

    Example:
      >>> probe_text({"probe_knn_accuracy": 0.431, "probe_rank": 31.24}, 80)
      'kNN 43.1% | rank 31.2'
    """
    parts = []
    for name, value in values.items():
        if name == "probe_knn_accuracy":
            parts.append(f"kNN {100 * value:.1f}%")
        else:
            parts.append(f"{name.removeprefix(PROBE)} {value:.3g}")
    return _joined(parts, columns)


def print_with_time(line: str) -> None:
    """Print a line of a long run with the time of day, such as "17:28:26 gan step 50/9000"."""
    print(f"{time.strftime(TIME_FORMAT)} {line}", flush=True)


@contextlib.contextmanager
def terminal_note(text: str) -> Iterator[None]:
    """Show a line while a block of unknown length runs; on terminals only."""
    shown = sys.stderr.isatty()
    if shown:
        _draw(text)
    try:
        yield
    finally:
        if shown:
            _draw(" " * len(text))


def _draw(text: str) -> None:
    """Draw over the line of the terminal."""
    # NB: one write that begins with a carriage return, which `lts.utils.run_log` keeps out of logs.
    sys.stderr.write(f"\r{text}\r")
    sys.stderr.flush()


def _joined(parts: Iterable[str], columns: int) -> str:
    """Return the first parts that fit into some columns."""
    text = ""
    for part in parts:
        longer = f"{text} | {part}" if text else part
        if len(longer) > columns:
            break
        text = longer
    return text


class Progress:
    """Progress counter.

    A context manager: leaving it without an error prints the total time (`summary`). On a terminal it shows a tqdm bar.
    In a log it prints one line every ten seconds, because the control characters of a bar make logs unreadable.

    Args:
      title: name of the work.
      total: number of items.
      unit: plural name of the items.
      first: number of items that an earlier run finished.
      summary: whether to print the total time at the end.

    Example:
      >>> with Progress("spotting", 1000) as progress:
      ...     progress.advance(32)
    """

    def __init__(self, title: str, total: int, unit: str = "images", first: int = 0, summary: bool = True):
        self.title = title
        self.total = total
        self.unit = unit
        self.done = first
        self._first = first
        self._summary = summary
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
            print_with_time(f"{self.title}: {counts}, {rate:.0f} {self.unit}/s, {seconds_left:.0f} s left")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, *_) -> None:
        self._bar.close()
        if kind is None and self._summary:
            seconds = time.monotonic() - self._start
            print(f"{self.title}: {self.done} {self.unit}, {seconds:.1f} s", flush=True)
