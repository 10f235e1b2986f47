"""Atomic writes, and locks on folders.

A reader sees either the previous file or the complete new one, however the writing process ends. What is written
is in a temporary folder next to its final path until then:

    .NAME.partial-XXXXXXXX/owner  locked by the process that writes
                           new/   the new file or folder
                           old/   the previous folder, while it is replaced without an atomic exchange
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

from lts.utils import filesystem
from lts.utils.errors import UserError
from lts.utils.text import printable, utf8, warn

PARTIAL = ".partial-"  # marks the names of temporary folders
STARTING = ".starting-"  # the same before their owner is recorded
OWNER = "owner"
LOCK = "lock"
HOLDER = re.compile(r"process (\d+) on (.*)\n")  # content of both files
MAX_PREFIX = 50  # characters of a name in the name of its temporary folder


class OutputError(UserError):
    """Output path that must not or cannot be written."""


class InUse(Exception):
    """Folder locked by another process, which the message names."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Lock a folder for this process; creates the folder if necessary.

    The lock is a file `lock` in the folder. The kernel releases it however the process ends. On a file system without
    locks this prints a warning instead. The lock stays in the folder unless it is the only file there.

    Raises:
      InUse: another process holds the lock.
      OutputError: `lock` is a link, or a file that no lock has written.
    """
    path = pathlib.Path(os.path.realpath(folder)) / LOCK  # a link may lead to a folder that is not there yet
    created = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    # NB: a file of the user must not be erased, and a FIFO would block.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OutputError(f"{path} is not a lock of this program. Received: {folder}. Move it or use another folder.")
    # NB: mode "w" would erase the holder's name before the lock is ours.
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        holder = file.read(1000).strip("\0")  # zeros after a power cut
        if holder and not HOLDER.fullmatch(holder):
            raise OutputError(
                f"{path} is not a lock of this program. Received: {folder}. Move it or use another folder."
            )
        try:
            if not filesystem.try_lock(file):
                warn(f"{folder} lies on a file system without locks. Do not start two programs in it.")
        except BlockingIOError:
            raise InUse(holder.strip() or "another process") from None
        # NB: the previous holder may have removed the file after it was opened here.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            raise InUse("another process")
        file.truncate(0)
        file.write(_holder())
        file.flush()
        try:
            yield
        finally:
            # A start that failed, for example because of its images, leaves nothing.
            with contextlib.suppress(OSError):
                if os.listdir(path.parent) == [LOCK]:
                    path.unlink()
                    if created:
                        path.parent.rmdir()


def was_locked(folder: str | os.PathLike) -> bool:
    """Return whether a program has written to a folder under its lock, which stays there."""
    try:
        return HOLDER.fullmatch(read_regular(pathlib.Path(folder) / LOCK).decode(errors="replace")) is not None
    except OSError:
        return False


def _holder() -> str:
    """Return the line that names this process."""
    return f"process {os.getpid()} on {socket.gethostname()}\n"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Replace a file or a folder atomically.

    The block writes to a temporary path on the same disk. If it raises, `path` stays untouched. The new contents are
    on the disk before the previous ones are removed. A symbolic link stays, and its target is replaced. A mode that was
    set on the previous file or folder stays.

    Raises:
      OutputError: `path` is a folder that cannot be renamed (a mount point, the current folder, or one in a folder
        that is not writable), and holds something.

    Example:
      >>> with atomic_write("runs/report.html") as temporary:
      ...     temporary.write_text("<html></html>")
    """
    check_renameable(path)
    path = pathlib.Path(os.path.realpath(path))
    fixed = _is_fixed(path)
    parent = path if fixed else path.parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_partial_once(parent)
    with _temporary_folder(parent, path.name) as temporary:
        new = temporary / "new" / path.name
        new.parent.mkdir()
        yield new
        if path.exists():
            shutil.copymode(path, new)  # otherwise that of the umask
        filesystem.sync(new)
        if fixed:
            _move_entries(new, path)
        elif path.is_dir() and new.is_dir():
            _replace_folder(path, new, temporary / "old")
        else:
            os.replace(new, path)
        filesystem.sync_entry(parent)


@contextlib.contextmanager
def _temporary_folder(parent: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Create a temporary folder that this process owns; remove it at the end."""
    # It gets the name that other processes look for when its owner is locked: they remove folders without an owner.
    starting = pathlib.Path(tempfile.mkdtemp(prefix=f".{name[:MAX_PREFIX]}{STARTING}", dir=parent))
    temporary = parent / f".{name[:MAX_PREFIX]}{PARTIAL}{starting.name[-8:]}"
    try:
        with (starting / OWNER).open("w", encoding="utf-8") as owner:
            filesystem.try_lock(owner)
            owner.write(_holder())
            owner.flush()
            os.rename(starting, temporary)
            yield temporary
    finally:
        shutil.rmtree(starting, ignore_errors=True)
        _remove(temporary)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Create a folder for files that are renamed into `parent` when they are complete; remove it at the end.

    What processes have left there that were killed is removed, too.
    """
    parent = pathlib.Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    remove_partial(parent)
    with _temporary_folder(parent, "scratch") as temporary:
        new = temporary / "new"
        new.mkdir()
        yield new


def _replace_folder(path: pathlib.Path, new: pathlib.Path, old: pathlib.Path) -> None:
    """Put the folder `new` in the place of the folder `path`."""
    if filesystem.exchange(new, path):
        return
    # A rename cannot replace a folder that is not empty: move the previous one away first. If this is interrupted in
    # between, `_remove` moves it back, here or in the next process.
    old.mkdir()
    os.replace(path, old / path.name)
    os.replace(new, path)
    os.replace(old, old.with_name("removed"))


def _remove(temporary: pathlib.Path) -> None:
    """Remove a temporary folder, after moving back a folder that was not replaced."""
    old = temporary / "old"
    for entry in old.iterdir() if old.exists() else ():
        previous = temporary.parent / entry.name
        if not os.path.lexists(previous):
            os.replace(entry, previous)
            warn(f"{previous} was put back: writing another one was interrupted.")
    # The owner goes last: without it nobody would remove the rest if this process is killed here.
    for name in ("new", "old", "removed"):
        shutil.rmtree(temporary / name, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)


def _move_entries(new: pathlib.Path, path: pathlib.Path) -> None:
    """Move the contents of the folder `new` to the empty folder `path`."""
    names = sorted(os.listdir(new))
    try:
        for name in names:
            os.rename(new / name, path / name)
    except BaseException:
        for name in names:
            if os.path.lexists(path / name):
                os.rename(path / name, new / name)
        raise


def check_renameable(path: str | os.PathLike) -> None:
    """Raise `OutputError` if a path is a folder that cannot be replaced."""
    if _is_fixed(pathlib.Path(os.path.realpath(path))) and contents(path):
        raise OutputError(
            "an output folder that holds something must not be a mount point, the current folder or in a folder that "
            f"is not writable. Received: output={path}. Give a new folder below it."
        )


def contents(folder: str | os.PathLike) -> list[str]:
    """Return the names in a folder, without temporary folders of `atomic_write`."""
    return [name for name in os.listdir(folder) if not is_partial(name)]


def is_partial(name: str) -> bool:
    """Return whether a name is that of a temporary folder of `atomic_write`."""
    return name.startswith(".") and PARTIAL in name


def _is_fixed(path: pathlib.Path) -> bool:
    """Return whether a folder must keep its place on the disk."""
    if not path.is_dir():
        return False
    # A shell that works in the folder would be left in a removed one.
    current = pathlib.Path.cwd()
    is_current = path == current or path in current.parents
    return is_current or os.path.ismount(path) or not os.access(path.parent, os.W_OK | os.X_OK)


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


def remove_partial(folder: str | os.PathLike, unowned: bool = False) -> None:
    """Remove temporary folders of writers that were killed.

    A folder that such a writer had moved away is moved back. Folders of living processes stay.

    Args:
      folder: where to look.
      unowned: whether to remove temporary folders that record no owner, too. Only where all files are this program's.
    """
    temporaries = list(pathlib.Path(folder).glob(f".*{PARTIAL}*"))
    if unowned:
        temporaries += pathlib.Path(folder).glob(f".*{STARTING}*")
    for temporary in temporaries:
        dead = _owner_is_dead(temporary)
        if dead or (dead is None and unowned):
            _remove(temporary)


# A folder of a million files is not searched at every write.
_remove_partial_once = functools.cache(remove_partial)


def _owner_is_dead(temporary: pathlib.Path) -> bool | None:
    """Return whether the owner of a temporary folder has ended; None: no owner is recorded."""
    try:
        with (temporary / OWNER).open("r+", encoding="utf-8", errors="replace") as owner:
            if filesystem.try_lock(owner):
                return True
            holder = HOLDER.fullmatch(owner.read())
    except FileNotFoundError:
        return None
    except OSError:
        return False  # locked, or of another user
    # Without locks, processes of other machines count as alive.
    return holder is not None and holder[2] == socket.gethostname() and not _is_running(int(holder[1]))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


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


def read_regular(path: str | os.PathLike) -> bytes:
    """Return the contents of a regular file; raises `OSError` for any other path."""
    check_regular(path)
    return pathlib.Path(path).read_bytes()


def check_regular_files(folder: str | os.PathLike) -> None:
    """Raise `OSError` unless all files in a folder are regular, for libraries that open them."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.exists(path):  # a link of the user may have no target
                check_regular(path)


def check_regular(path: str | os.PathLike) -> None:
    """Raise `OSError` unless a path leads to a regular file.

    Opening a named pipe would wait forever, and a device may never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
