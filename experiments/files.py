"""Files that are there whole or not at all."""

import os
import pathlib


def write_whole(path: str | os.PathLike, content: str | bytes) -> pathlib.Path:
    """Writes beside the target and renames: a run that is stopped leaves the old file or none.

    Args:
      path: the file; its folder is made.
      content: text (written as UTF-8) or bytes.

    Returns:
      The path.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(beside, path)
    return path
