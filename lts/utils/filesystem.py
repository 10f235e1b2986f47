"""System calls that some file systems lack: locks, exchange of two paths, and writing to the disk."""

import ctypes
import errno
import fcntl
import os
import pathlib
from typing import IO

UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
MAX_SINGLE_FILES = 100  # a folder of more files is written to the disk with all of its file system
AT_FDCWD = -100  # of <fcntl.h>: paths are relative to the current folder
RENAME_EXCHANGE = 2  # of <linux/fs.h>


def try_lock(file: IO) -> bool:
    """Lock an open file for this process.

    The kernel releases the lock however the process ends.

    Returns:
      False if the file system has no locks.

    Raises:
      BlockingIOError: another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def exchange(first: str | os.PathLike, second: str | os.PathLike) -> bool:
    """Exchange two paths atomically.

    Returns:
      False, with both paths unchanged, if the system cannot do it.
    """
    # Python has no function for it. The C library has one on Linux since glibc 2.28.
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    status = renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), ctypes.c_uint(RENAME_EXCHANGE))
    return status == 0


def sync(path: str | os.PathLike) -> None:
    """Write a file, or a folder with its contents, to the disk.

    A rename may reach the disk before the contents of the renamed file do.
    """
    paths = [path]
    for folder, folders, names in os.walk(path):
        paths += [os.path.join(folder, name) for name in folders + names]
    if len(paths) > MAX_SINGLE_FILES and _sync_file_system(path):
        return
    for single in paths:
        sync_entry(single)


def sync_entry(path: str | os.PathLike) -> None:
    """Write one file, or the names in one folder, to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a folder that may be written and not listed
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _sync_file_system(path: str | os.PathLike) -> bool:
    """Write everything on a path's file system to the disk."""
    # Thousands of single calls would take minutes on a disk that needs 10 milliseconds for each.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return ctypes.CDLL(None).syncfs(descriptor) == 0
    except (AttributeError, OSError):
        return False
    finally:
        os.close(descriptor)


def replace(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Rename a file over another one, so that a power cut leaves one of them complete."""
    sync(source)
    os.replace(source, target)
    sync_entry(pathlib.Path(target).parent)
