"""Flags whose values are paths.

`~` is expanded, because a shell does not expand it after "=". An empty path is refused.

    paths.define("workdir", None, "folder of the run", required=True)
"""

import os
from typing import Any

from absl import flags

from lts.config import ConfigError

FOLDER = "folder:"  # a data set in a folder is named by its path


def define(name: str, default: str | None, help: str, **options: Any) -> None:
    """Define a flag that holds one path; options as in absl."""
    flags.DEFINE(_PathParser(name), name, default, help, **options)


def define_list(name: str, help: str, required: bool = False) -> None:
    """Define a flag of comma-separated paths, empty by default."""
    default = None if required else []
    flags.DEFINE(_PathListParser(name), name, default, help, serializer=flags.ListSerializer(","), required=required)


def define_dataset(name: str, help: str, **options: Any) -> None:
    """Define a flag that names a data set, such as folder:PATH."""
    flags.DEFINE(_DatasetParser(name), name, None, help, **options)


def expand(name: str, path: str) -> str:
    """Return a path with `~` replaced by the home folder.

    Args:
      name: of the flag, for messages.
      path: text of the flag.

    Raises:
      ConfigError: the path is empty, or its home folder is not known.
    """
    if not path.strip():
        raise ConfigError(f"{name} must not be empty. Received: {name}={path!r}. Give a path.")
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ConfigError(f"the home folder is not known. Received: {name}={path!r}. Write ./~ for such a file.")
    return expanded


class _PathParser(flags.ArgumentParser):
    """Parser of one path."""

    syntactic_help = "a path"

    def __init__(self, name: str):
        self.name = name

    def parse(self, argument: str) -> str:
        return expand(self.name, argument)


class _PathListParser(flags.ListParser):
    """Parser of comma-separated paths."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def parse(self, argument: Any) -> list[str]:
        if not isinstance(argument, str):
            return super().parse(argument)
        # NB: a path may contain commas. The longest run of pieces that exists is one path.
        paths = []
        pieces = argument.split(",")
        while pieces:
            counts = range(len(pieces), 1, -1)
            runs = {count: os.path.expanduser(",".join(pieces[:count]).strip()) for count in counts}
            count = next((count for count in counts if os.path.exists(runs[count])), 1)
            paths.append(expand(self.name, ",".join(pieces[:count]).strip()))
            pieces = pieces[count:]
        return paths


class _DatasetParser(_PathParser):
    """Parser of the name of a data set."""

    def parse(self, argument: str) -> str:
        if not argument.startswith(FOLDER):
            return argument
        return FOLDER + expand(self.name, argument.removeprefix(FOLDER))
