"""Files that are whole or absent: written beside, then renamed. Folders that one process holds."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from lts.utils.errors import UserError

PARTIAL = ".partial-"  # in the names of what is being written


class OutputError(UserError):
    """A place that nothing is written to, because something else is there."""


class InUse(Exception):
    """Another process holds a folder; says which, as far as is known."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Holds a folder for this process by a file `lock` in it; the kernel lets go of it however the process ends.

    Raises:
      InUse: another process holds it.
    """
    path = pathlib.Path(folder) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(file.read().strip() or "another process") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A path beside `path` to write a file or a folder to; it takes the place of `path` when the block ends well.

    What was at `path` before is gone then; when the block raises, it is untouched.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL}", dir=path.parent))
    try:
        yield room / path.name
        if path.is_dir() and not path.is_symlink():
            os.replace(path, room / "old")
        os.replace(room / path.name, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def check_replaceable(folder: str | os.PathLike, marker: str) -> None:
    """Refuses a folder that `atomic_write` would delete although it holds something else than an earlier output.

    Args:
      folder: may be missing or empty.
      marker: name of a file that every earlier output holds.

    Raises:
      OutputError: a file, or a folder of other things.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not (folder / marker).exists() and (folder.is_file() or any(folder.iterdir())):
        raise OutputError(
            f"{folder} exists and holds no {marker} of an earlier run: give another --output or remove it"
        )


def check_folder(folder: str | os.PathLike) -> None:
    """Refuses a place where no folder can be, before hours of work find out; creates nothing.

    Args:
      folder: may be missing.

    Raises:
      OutputError: it, or what is above it, is a file, or may not be written to.
    """
    place = pathlib.Path(folder).absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir():
        raise OutputError(f"{folder} should be a folder, but {there} is a file: give another --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} should be a folder to write to, but {there} is not: give another --output")


def remove_partial(folder: str | os.PathLike) -> None:
    """Removes what writers left in a folder that were killed; nobody may be writing there."""
    for room in pathlib.Path(folder).glob(f".*{PARTIAL}*"):
        shutil.rmtree(room, ignore_errors=True)


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder; it is gone at once, not file by file."""
    path = pathlib.Path(path)
    room = path.with_name(f".{path.name}{PARTIAL}removed")  # a new name needs no room on a full disk
    os.replace(path, room)
    shutil.rmtree(room, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a binary file, whole or not at all."""
    with atomic_write(path) as beside:
        beside.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
