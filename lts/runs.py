"""The training runs below a folder, as a table. Imports no TensorFlow."""

import contextlib
import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Mapping

from lts.config import SECTIONS, Config, describe
from lts.config.stages import section_of
from lts.utils.checkpoint_names import newest_first, step_of
from lts.utils.errors import first_line
from lts.utils.json_files import NUMBER, read_json, read_json_lines
from lts.utils.progress import PROBE, probe_text, progress_text
from lts.utils.text import printable

COLUMNS = 80
CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
PARTS = (CHECKPOINTS, "pictures", "tensorboard")  # folders of a run, in which there are no other runs
SHAPE = {"stage": str, "config": dict, "data?": {"images": int}}  # of config.json, see `lts.training.run_record`


@dataclasses.dataclass(frozen=True)
class Run:
    """What a table shows of a run.

    Attributes:
      path: folder of the run.
      stage: kind of training.
      settings: preset, and the fields that differ from it.
      step: of the newest checkpoint; 0 if there is none.
      total_steps: of the whole run; 0 if its images are not known yet.
      metrics: the last line of metrics.jsonl.
      size: bytes on the disk.
    """

    path: pathlib.Path
    stage: str
    settings: str
    step: int
    total_steps: int
    metrics: Mapping[str, float]
    size: int


def find(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Return the folders of the runs in a folder, at any depth, sorted."""
    runs = []
    for place, folders, names in os.walk(folder):
        is_run = CONFIG in names and (CHECKPOINTS in folders or "metrics.jsonl" in names)
        if is_run:
            runs.append(pathlib.Path(place))
        folders[:] = [name for name in folders if not name.startswith(".") and not (is_run and name in PARTS)]
    return sorted(runs)


def read(path: pathlib.Path) -> Run:
    """Return what a table shows of a run.

    Raises:
      ValueError, OSError: a file of the run cannot be read.
    """
    values = read_json(path / CONFIG, SHAPE)
    config = Config.from_dict(values["config"])
    stage = values["stage"]
    section = section_of(stage)
    images = (values.get("data") or {}).get("images", 0)
    newest = next(iter(newest_first(path / CHECKPOINTS)), None)
    lines = read_json_lines(path / "metrics.jsonl", {str: NUMBER}) if (path / "metrics.jsonl").exists() else []
    return Run(
        path=path,
        stage=stage,
        settings=describe(config, *SECTIONS, section),
        step=(step_of(newest) or 0) if newest else 0,
        total_steps=getattr(config, section).steps_on(images),
        metrics=lines[-1] if lines else {},
        size=size_of(path),
    )


def size_of(folder: pathlib.Path) -> int:
    """Return the bytes of all files in a folder; links are not followed."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a run that trains removes files
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def megabytes(size: int) -> str:
    """Return a number of bytes in megabytes.

    Example:
      >>> megabytes(12_345_678)
      '12.3 MB'
    """
    return f"{size / 1e6:,.1f} MB"


def table(folder: str | os.PathLike) -> str:
    """Return the runs in a folder as text of 80 columns.

    Each run has a line, then its settings, then its last metrics. A run that cannot be read has a line with the reason.
    """
    lines = [_row("run", "stage", "steps", "size")]
    total = 0
    paths = find(folder)
    for path in paths:
        name = printable(os.path.relpath(path, folder))
        try:
            run = read(path)
        except (ValueError, OSError) as error:
            lines.append(_row(name, "?", "?", megabytes(size_of(path))))
            lines.append(_indented(printable(first_line(error))))
            continue
        total += run.size
        steps = f"{run.step:,} of {run.total_steps:,}"
        lines.append(_row(name, run.stage, steps, megabytes(run.size)))
        lines.append(_indented(printable(run.settings)))
        scalars = {key: value for key, value in run.metrics.items() if key != "step" and not key.startswith(PROBE)}
        probe = {key: value for key, value in run.metrics.items() if key.startswith(PROBE)}
        for text in (progress_text(scalars, COLUMNS - 2), probe_text(probe, COLUMNS - 2)):
            if text:
                lines.append(f"  {text}")
    lines.append(f"{megabytes(total)} in {len(paths)} runs")
    return "\n".join(lines)


def _row(name: str, stage: str, steps: str, size: str) -> str:
    """Return one line of 80 columns; of a long name its end."""
    shown = name if len(name) <= 32 else f"...{name[-29:]}"
    return f"{shown:<33}{stage[:12]:<13}{steps:>22}{size:>12}"


def _indented(text: str) -> str:
    """Return text in lines that are indented."""
    return textwrap.fill(text, COLUMNS, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
