"""Checkpoints of a run by the names of their folders. Imports no TensorFlow."""

import pathlib
import re


def step_of(path: pathlib.Path) -> int | None:
    """Return the step in a checkpoint's name; None for any other name."""
    name = re.fullmatch(r"step_([0-9]+)", path.name)
    return int(name[1]) if name else None


def newest_first(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the checkpoints of a folder, the newest first."""
    # NB: everything else belongs to the user, such as a copy `step_00000020.bak` or a link: it is neither read nor
    # removed. Steps of nine digits sort as numbers, not as names.
    steps = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        step = step_of(path)
        if step is not None and path.is_dir() and not path.is_symlink():
            steps[path] = step
    return sorted(steps, key=lambda path: steps[path], reverse=True)
