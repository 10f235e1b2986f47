"""Arrays of an .npz that another program may have written."""

import contextlib
import os
import zipfile
from collections.abc import Iterator

import numpy as np

from lts.utils.files import check_regular

MAX_HEADER = 10_000  # bytes before the values of an array


@contextlib.contextmanager
def open_npz(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Open an .npz for `read_array`.

    Raises:
      OSError: it cannot be opened, or is no regular file.
      zipfile.BadZipFile: it is no .npz.
    """
    # NB: not `numpy.load`, which reads whole arrays, and takes other kinds of files too.
    check_regular(path)
    with zipfile.ZipFile(path) as archive:
        yield archive


def names_of(archive: zipfile.ZipFile) -> set[str]:
    """Return the names of the arrays."""
    return {name.removesuffix(".npy") for name in archive.namelist()}


def read_array(archive: zipfile.ZipFile, name: str, max_bytes: int) -> np.ndarray:
    """Return an array without pickled objects.

    Args:
      archive: result of `open_npz`.
      name: of the array.
      max_bytes: largest size of the entry. A small file may inflate to many gigabytes.

    Raises:
      KeyError: no such array.
      ValueError: the entry is larger, is no array or holds Python objects.
      Exception: nearly any other type for a damaged file.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > max_bytes:
        raise ValueError(f"{name} has {entry.file_size:,} bytes, more than {max_bytes:,}")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
