"""Folders that a program writes as a whole.

Replacing such a folder deletes what is in it. A folder is therefore replaced only if it holds nothing but an earlier
output of the same kind.
"""

import contextlib
import dataclasses
import fnmatch
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

from lts.utils import files
from lts.utils.files import OutputError


@dataclasses.dataclass(frozen=True)
class OutputFolder:
    """One kind of output folder.

    Attributes:
      marker: file that every complete output holds.
      names: patterns of the paths of its files, for example "variables/*".
      listed: maps an output to further paths of files, which its marker lists.

    Example:
      >>> TABLE = OutputFolder("table.json", names=("table.json", "table.csv"))
      >>> TABLE.check("runs/table", inputs=["runs/features"])
      >>> with TABLE.write("runs/table") as folder:
      ...     folder.mkdir()
    """

    marker: str
    names: tuple[str, ...]
    listed: Callable[[pathlib.Path], Iterable[str]] = lambda folder: ()

    def check(self, output: str | os.PathLike, inputs: Iterable[str | os.PathLike | None] = ()) -> None:
        """Check that an output can be written. Called before the work; changes no output.

        Args:
          output: folder to write.
          inputs: files and folders that the program reads; None is ignored.

        Raises:
          OutputError: the folder cannot be written, or an input or another file in it would be deleted.
        """
        files.check_folder(output)
        folder = pathlib.Path(os.path.realpath(output))
        for given in inputs:
            path = None if given is None else pathlib.Path(os.path.realpath(given))
            if path is not None and (path == folder or folder in path.parents):
                raise OutputError(
                    f"{given} is inside the output folder, which is replaced. Received: output={output}. "
                    "Give another --output."
                )
        for place in (folder.parent, folder):
            files.remove_partial(place)
        if not folder.exists() or not files.contents(folder):
            return
        if not (folder / self.marker).exists():
            raise OutputError(
                f"the output folder holds no {self.marker} of an earlier run. Received: output={output}. "
                "Give another --output or remove the folder."
            )
        unknown = self._unknown_file(folder)
        if unknown is not None:
            raise OutputError(
                f"the output folder holds {unknown}, which is no part of an earlier output and would be deleted. "
                f"Received: output={output}. Move that file or give another --output."
            )
        files.check_renameable(output)

    @contextlib.contextmanager
    def write(self, output: str | os.PathLike) -> Iterator[pathlib.Path]:
        """Write or replace an output atomically; see `lts.utils.files.atomic_write`."""
        self.check(output)
        with files.atomic_write(output) as temporary:
            yield temporary
            # Files may have been added during the work.
            self.check(output)
            replaced = os.path.exists(pathlib.Path(output) / self.marker)
        if replaced:
            print(f"replaced the earlier output in {output}", flush=True)

    def _unknown_file(self, folder: pathlib.Path) -> str | None:
        """Return the path of a file that no output holds, or None."""
        listed = set(self.listed(folder))
        for place, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not files.is_partial(name)]
            links = [name for name in folders if os.path.islink(os.path.join(place, name))]
            for name in names + links:
                path = os.path.relpath(os.path.join(place, name), folder)
                if path not in listed and not any(fnmatch.fnmatchcase(path, pattern) for pattern in self.names):
                    return path
        return None


@contextlib.contextmanager
def locked(output: str | os.PathLike) -> Iterator[None]:
    """Lock a folder that a program fills file by file, until the block or the process ends.

    Raises:
      OutputError: another process holds the lock.
    """
    try:
        with files.locked(output):
            yield
    except files.InUse as holder:
        raise OutputError(f"output is in use by {holder}. Received: output={output}. Give another --output.") from None


def check_outside(output: str | os.PathLike, dataset: str | None) -> None:
    """Check that an output is not inside the folder of the images, whose readers would find its pictures.

    Folders whose names begin with a point are not read, so an output may lie there.

    Args:
      output: file or folder to write.
      dataset: value of --dataset.

    Raises:
      OutputError: the output is the folder of the images, or is inside it.
    """
    if is_inside(output, dataset):
        raise OutputError(
            f"its pictures would be read as images next time. Received: output={output}, which is inside {dataset}. "
            "Give a folder outside of the images."
        )


def is_inside(path: str | os.PathLike, dataset: str | None) -> bool:
    """Return whether a path is inside the folder of the images, or is that folder; see `check_outside`."""
    folder = dataset_folder(dataset)
    if folder is None:
        return False
    real = pathlib.Path(os.path.realpath(path))
    images = pathlib.Path(os.path.realpath(folder))
    return real.is_relative_to(images) and not any(name.startswith(".") for name in real.relative_to(images).parts)


def dataset_folder(dataset: str | None) -> str | None:
    """Return the folder of images in `folder:PATH`; None for other data sets."""
    kind, _, path = (dataset or "").partition(":")
    return path if kind == "folder" else None
