"""Atomic writes, and locks on folders.

A reader sees either the previous file or the complete new one, however the writing process ends.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

from lts.utils.errors import UserError
from lts.utils.text import printable, utf8

PARTIAL = ".partial-"  # marks the names of temporary folders


class OutputError(UserError):
    """Output path that must not or cannot be written."""


class InUse(Exception):
    """Folder locked by another process, which the message names."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Lock a folder for this process; creates the folder if necessary.

    The lock is a file `lock` in the folder. The kernel releases it however the process ends.

    Raises:
      InUse: another process holds the lock.
    """
    path = pathlib.Path(folder) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # NB: mode "w" would erase the holder's name before the lock is ours.
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
    """Replace a file or a folder atomically.

    The block writes to a temporary path on the same disk. If it raises, `path` stays untouched.

    Example:
      >>> with atomic_write("runs/report.html") as temporary:
      ...     temporary.write_text("<html></html>")
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL}", dir=path.parent))
    try:
        yield temporary / path.name
        # A rename cannot replace a folder that is not empty: move the previous one away first.
        if path.is_dir() and not path.is_symlink():
            os.replace(path, temporary / "old")
        os.replace(temporary / path.name, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(folder: str | os.PathLike, marker: str) -> None:
    """Raise `OutputError` unless a folder is free or an earlier output.

    `atomic_write` deletes the folder, so it must hold nothing else. Every earlier output holds a file named `marker`.
    """
    folder = pathlib.Path(folder)
    if not folder.exists() or (folder / marker).exists():
        return
    if folder.is_file() or any(folder.iterdir()):
        raise OutputError(
            f"the output folder holds no {marker} of an earlier run. Received: output={folder}. "
            "Give another --output or remove the folder."
        )


def check_folder(folder: str | os.PathLike) -> None:
    """Raise `OutputError` if a folder cannot be created or written.

    Called before hours of work; creates nothing.
    """
    check_utf8(folder)
    absolute = pathlib.Path(folder).absolute()
    existing = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not existing.is_dir():
        raise OutputError(f"{existing} is a file, not a folder. Received: output={folder}. Give another --output.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing} is not writable. Received: output={folder}. Give another --output.")


def check_utf8(path: str | os.PathLike) -> None:
    """Raise `OutputError` if TensorFlow cannot write to a path because its name is no UTF-8."""
    if utf8(str(path)) != str(path):
        raise OutputError(
            f"TensorFlow can write only to paths in UTF-8. Received: {printable(str(path))}. Give a folder of another "
            "name."
        )


def remove_partial(folder: str | os.PathLike) -> None:
    """Remove temporary folders of killed writers."""
    # NB: the caller holds the lock; another writer would lose its work.
    for temporary in pathlib.Path(folder).glob(f".*{PARTIAL}*"):
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: str | os.PathLike) -> None:
    """Remove a folder at once, not file by file."""
    path = pathlib.Path(path)
    renamed = path.with_name(f".{path.name}{PARTIAL}removed")  # a rename works on a full disk, too
    os.replace(path, renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a binary file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def check_regular(path: str | os.PathLike) -> None:
    """Raise `OSError` unless a path leads to a regular file.

    Opening a named pipe would wait forever, and a device may never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
