"""Image folders: ROOT/split/class/image, ROOT/class/image, or images without folders."""

import collections
import dataclasses
import hashlib
import os
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from lts.data.decoding import EXTENSIONS
from lts.data.held_out import TEST_SPLITS, default_split, hold_out
from lts.data.splits import LOOSE, resolve
from lts.data.store import LABELLED, DataError, ImageIndex
from lts.utils.errors import first_line
from lts.utils.text import printable, warn

FITTED = ("train", "tuning")  # roles whose images a classifier is fitted to
# Thumbnails, resource forks and deleted files of file systems, NAS and archives, in lower case.
SYSTEM_FOLDERS = (
    "@eadir",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "__macosx",
    "lost+found",
    "system volume information",
)


@dataclasses.dataclass
class _Contents:
    """What a folder holds, at any depth."""

    images: list[pathlib.PurePath] = dataclasses.field(default_factory=list)  # relative to the root
    unlisted: dict[str, str] = dataclasses.field(default_factory=dict)  # reason by name
    other_files: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # by extension


def list_folder(root: str, split: str | None, role: str, skip_broken: bool = False) -> tuple[ImageIndex, str]:
    """Return the images of a folder.

    The folders directly below `root` are splits if `split` names one of them, or if an image is two folders deep or
    deeper. Otherwise they are classes, and the only split is `all`. An image's class is the folder below its split.

    The images of a split are ordered by a hash of their paths. Any slice therefore holds all classes, and the order
    does not depend on the file system.

    Args:
      root: the folder; hidden files, `SYSTEM_FOLDERS` and files with other extensions are ignored.
      split: as tfds writes it; None: everything, or for labelled roles `held_out.default_split`.
      role: see `lts.data.store.ROLES`.
      skip_broken: skip folders that cannot be listed and links without a target, instead of raising.

    Returns:
      The images, and the resolved split.

    Raises:
      DataError: no folder, no images, no such split, an image without a class where labels are needed, or a folder
        that cannot be listed, in any split, because it may hold a class.
    """
    where = f"folder:{root}"
    contents = _read_contents(root, skip_broken)
    images = contents.images
    labelled = role in LABELLED

    # Decide whether the first level of folders holds splits or classes.
    first_level = {path.parts[0] for path in images if len(path.parts) > 1}
    requested = {"train", *TEST_SPLITS} if labelled else set()
    if split:
        requested = {part.split("[")[0].strip() for part in split.split("+")}
    has_splits = bool(requested & first_level) or any(len(path.parts) > 2 for path in images)

    # Group the images by split.
    groups: dict[str, list[pathlib.PurePath]] = {}
    for path in sorted(images, key=_hash):
        name = "all"
        if has_splits:
            name = path.parts[0] if len(path.parts) > 1 else LOOSE
        groups.setdefault(name, []).append(path)
    counts = {name: len(groups[name]) for name in sorted(groups)}
    divides = False
    if not split:
        split, divides = default_split(role, counts) if labelled else ("all", False)
    chosen = []
    for name, start, stop in resolve(split, counts, where):
        chosen += groups[name][start:stop]

    # Classes are numbered over all splits, so that train and test agree.
    level = int(has_splits)
    class_names = sorted({path.parts[level] for path in images if _has_class(path, level)})
    if role in FITTED:
        _warn_of_similar(class_names)
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = np.array([numbers[path.parts[level]] if _has_class(path, level) else -1 for path in chosen], np.int64)
    if labels.min() < 0 and labelled:
        unlabelled = chosen[labels.argmin()]
        reason = f"{unlabelled} is in no class folder, so it has no label"
        layout = f"{root}/CLASS/1.jpg, or {root}/train/CLASS/1.jpg and {root}/test/CLASS/2.jpg"
        raise DataError(f"{where}: {reason}. Received: split={split!r}. Sort the images into folders: {layout}.")
    if labels.max() < 0:
        labels, class_names = None, ()
    paths = [os.path.join(root, path) for path in chosen]
    index = ImageIndex.of_files(paths, [path.as_posix() for path in chosen], labels, class_names)
    index = dataclasses.replace(index, unlisted=contents.unlisted, other_files=contents.other_files)
    return hold_out(index, split, role) if divides else (index, split)


def _warn_of_similar(class_names: Sequence[str]) -> None:
    """Print a warning if two classes may be one, such as folders that were copied from another system."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            names = ", ".join(map(printable, group))
            warn(f"classes differ only in case or Unicode form. Received: {names}. Merge them if they are one class.")


def _read_contents(root: str, skip_broken: bool) -> _Contents:
    """Return what a folder holds, or raise `DataError`; see `list_folder`."""
    where = f"folder:{root}"
    if not os.path.isdir(root):
        raise DataError(f"{where} is not a folder. Received: dataset={where}. Give the path of a folder of images.")
    contents = _walk(root)
    if contents.unlisted and not skip_broken:
        name, reason = next(iter(contents.unlisted.items()))
        path = os.path.normpath(os.path.join(root, name))
        hint = "Make it readable or remove it, or pass --skip_broken_images."
        raise DataError(f"{path} cannot be listed ({reason}). Received: dataset={where}. {hint}")
    if not contents.images:
        raise DataError(f"{where} holds no images ({', '.join(EXTENSIONS)}). Received: dataset={where}.")
    return contents


def _hash(path: pathlib.PurePath) -> bytes:
    """Return the sort key of an image."""
    return hashlib.sha256(path.as_posix().encode(errors="surrogateescape")).digest()


def _walk(root: str) -> _Contents:
    """Return what a folder holds."""
    contents = _Contents()
    above = frozenset(_identity(parent) for parent in pathlib.Path(root).resolve().parents)
    pending = [(pathlib.PurePath(), above)]
    while pending:
        folder, ancestors = pending.pop()
        try:
            identity = _identity(os.path.join(root, folder))
            # A link to an ancestor would lead in a circle. Other links are folders like any other.
            if identity in ancestors:
                continue
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    if _is_folder(entry, folder, contents):
                        pending.append((folder / entry.name, ancestors | {identity}))
        except OSError as error:
            contents.unlisted[folder.as_posix()] = first_line(error)
    # The order of a folder depends on the disk.
    contents.unlisted = dict(sorted(contents.unlisted.items()))
    return contents


def _identity(path: str | os.PathLike) -> tuple[int, int]:
    """Return what the links to one folder share."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry, folder: pathlib.PurePath, contents: _Contents) -> bool:
    """Return whether to enter an entry; record it otherwise."""
    if entry.name.startswith("."):
        return False
    reason = None
    try:
        if entry.is_dir():
            return entry.name.lower() not in SYSTEM_FOLDERS
        if entry.is_symlink() and not os.path.exists(entry.path):
            reason = "link without a target"
    except OSError as error:
        reason = first_line(error)
    # A file with an image's name that cannot be read is a broken image, not an ignored file.
    extension = os.path.splitext(entry.name)[1].lower()
    if extension in EXTENSIONS:
        contents.images.append(folder / entry.name)
    elif reason:
        contents.unlisted[(folder / entry.name).as_posix()] = reason
    else:
        contents.other_files[extension or "without extension"] += 1
    return False


def _has_class(path: pathlib.PurePath, level: int) -> bool:
    """Return whether a path has a class at this level."""
    return len(path.parts) > level + 1
