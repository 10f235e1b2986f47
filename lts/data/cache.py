"""Shrunk images on disk, for later runs and for data sets that do not fit into memory.

    FOLDER/129/CACHEDIR.TAG        tells backup programs to skip the images; FOLDER may hold other files of the user
    FOLDER/129/0f/0f3a....pixels   an image whose shorter side has 129 pixels: uint8 [h, w, 3], then their CRC-32

The name of a file is a hash of the photograph's contents. Any number of processes and data sets can therefore share a
folder, and a photograph that was moved or renamed is found. Files appear complete, by renaming. A file whose size or
checksum is wrong is written again. No other file in the folder is read, replaced or removed.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import threading
import zlib
from collections.abc import Iterator

import numpy as np
import PIL

from lts.data.decoding import SHRINK_VERSION
from lts.utils import files
from lts.utils.errors import first_line
from lts.utils.text import warn

RESERVE = 10**9  # bytes of the disk that stay free, for example for checkpoints
CHECKSUM_BYTES = 4
HASH_DIGITS = 40
TAG = "CACHEDIR.TAG"
# The first line is that of the convention.
TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Shrunk photographs. May be removed while no program runs.\n"


def default_folder() -> pathlib.Path | None:
    """Return the folder of the user's cache; None for a user without a home folder."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The specification ignores relative paths.
    place = root if os.path.isabs(root) else os.path.expanduser("~/.cache")
    return pathlib.Path(place, "lts", "images") if os.path.isabs(place) else None


class ImageCache:
    """Cache of the images of one size.

    Args:
      folder: of the cache.
      stored_size: shorter side of the images in pixels.
      scratch: folder on the same disk for unfinished files; None: nothing is written.
    """

    def __init__(self, folder: pathlib.Path, stored_size: int, scratch: pathlib.Path | None):
        self.folder = folder
        self._images = folder / str(stored_size)
        self._scratch = scratch
        self._lock = threading.Lock()
        # Another Pillow may round differently.
        self._recipe = f"{SHRINK_VERSION} {PIL.__version__} {stored_size} ".encode()

    def path(self, encoded: bytes) -> pathlib.Path:
        """Return the file of an encoded photograph."""
        digest = hashlib.sha256(self._recipe)
        digest.update(encoded)
        name = digest.hexdigest()[:HASH_DIGITS]
        return self._images / name[:2] / f"{name}.pixels"

    def read(self, path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray | None:
        """Return an image, uint8 [*shape, 3]; None if there is no intact one."""
        try:
            content = files.read_regular(path)
        except OSError:
            return None
        pixels = content[:-CHECKSUM_BYTES]
        is_intact = len(pixels) == shape[0] * shape[1] * 3 and _checksum(pixels) == content[-CHECKSUM_BYTES:]
        return np.frombuffer(pixels, np.uint8).reshape(*shape, 3) if is_intact else None

    def write(self, path: pathlib.Path, image: np.ndarray) -> bool:
        """Write an image; return whether that succeeded.

        The first failure, for example a full disk, prints a warning. After it nothing is written.
        """
        scratch = self._scratch
        if scratch is None:
            return False
        # Two threads may read copies of one photograph.
        unfinished = scratch / f"{path.name}-{threading.get_ident()}"
        pixels = image.tobytes()
        try:
            if shutil.disk_usage(scratch).free < RESERVE + len(pixels):
                raise OSError(errno.ENOSPC, f"less than {RESERVE / 1e9:g} GB of the disk would be left")
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(pixels + _checksum(pixels))
            os.replace(unfinished, path)
            return True
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            self._stop(error)
            return False

    def _stop(self, error: OSError) -> None:
        with self._lock:
            if self._scratch is not None:
                self._scratch = None
                warn_unwritable(self.folder, error)


@contextlib.contextmanager
def open_cache(folder: str | os.PathLike | None, stored_size: int) -> Iterator[ImageCache | None]:
    """Open a cache to fill it; None without a folder.

    A folder that cannot be written prints a warning; what it holds is still read.
    """
    if folder is None:
        yield None
        return
    folder = pathlib.Path(folder)
    # NB: not in the folder itself. A user may choose one with photographs or runs, which backups must not skip.
    tag = folder / str(stored_size) / TAG
    with contextlib.ExitStack() as stack:
        scratch = None
        try:
            scratch = stack.enter_context(files.scratch_folder(folder))
            if not os.path.lexists(tag):
                tag.parent.mkdir(exist_ok=True)
                files.write_text(tag, TAG_TEXT)
        except OSError as error:
            scratch = None
            warn_unwritable(folder, error)
        yield ImageCache(folder, stored_size, scratch)


def warn_unwritable(folder: pathlib.Path, error: OSError) -> None:
    """Print that a cache cannot be written."""
    reason = error.strerror or first_line(error)
    warn(
        f"shrunk images are not kept on disk ({reason}), so that this program decodes them again when it needs them. "
        f"Received: cache_dir={folder}. Give another --cache_dir."
    )


def _checksum(pixels: bytes) -> bytes:
    return zlib.crc32(pixels).to_bytes(CHECKSUM_BYTES, "little")
