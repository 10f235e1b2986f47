"""Paths that TensorFlow cannot read.

Its readers of checkpoints and SavedModels take `*`, `?`, `[` and the backslash for a pattern, and do not find a file
`runs [v1]/weights`. Its writers take every such name (measured, TensorFlow 2.21). Names that are no UTF-8 raise an
error in both.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from lts.utils.text import utf8

CHARACTERS = frozenset("*?[\\")


@contextlib.contextmanager
def plain_path(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a path of an existing folder that is no pattern, in UTF-8.

    It is the folder itself, or a temporary link to it. Errors should name the folder, not the link.

    Example:
      >>> with plain_path("runs [v1]/features") as folder:
      ...     module = tf.saved_model.load(str(folder))
    """
    absolute = pathlib.Path(folder).absolute()
    if not CHARACTERS.intersection(str(folder)) and utf8(str(absolute)) == str(absolute):
        yield pathlib.Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        link = pathlib.Path(temporary, "folder")
        link.symlink_to(absolute, target_is_directory=True)
        yield link
