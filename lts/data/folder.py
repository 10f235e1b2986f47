"""Image folders: ROOT/split/class/image, ROOT/class/image, or images without folders."""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from lts.data.held_out import TEST_SPLITS, default_split, hold_out
from lts.data.splits import LOOSE, resolve
from lts.data.store import LABELLED, DataError, ImageIndex

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def list_folder(root: str, split: str | None, role: str) -> tuple[ImageIndex, str]:
    """Return the images of a folder.

    The folders directly below `root` are splits if `split` names one of them, or if an image is two folders deep or
    deeper. Otherwise they are classes, and the only split is `all`. An image's class is the folder below its split.

    The images of a split are ordered by a hash of their paths. Any slice therefore holds all classes, and the order
    does not depend on the file system.

    Args:
      root: the folder; hidden files and files with other extensions are ignored.
      split: as tfds writes it; None: everything, or for labelled roles `held_out.default_split`.
      role: see `lts.data.store.ROLES`.

    Returns:
      The images, and the resolved split.

    Raises:
      DataError: no folder, no images, no such split, or an image without a class where labels are needed.
    """
    where = f"folder:{root}"
    if not os.path.isdir(root):
        raise DataError(f"{where} is not a folder. Received: dataset={where}. Give the path of a folder of images.")
    images = _walk(pathlib.Path(root))
    if not images:
        raise DataError(f"{where} holds no images ({', '.join(EXTENSIONS)}). Received: dataset={where}.")
    labelled = role in LABELLED

    # Decide whether the first level of folders holds splits or classes.
    first_level = {path.parts[0] for path in images if len(path.parts) > 1}
    requested = {"train", *TEST_SPLITS} if labelled else set()
    if split:
        requested = {part.split("[")[0].strip() for part in split.split("+")}
    has_splits = bool(requested & first_level) or any(len(path.parts) > 2 for path in images)

    # Group the images by split.
    groups: dict[str, list[pathlib.PurePath]] = {}
    for path in sorted(images, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest()):
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
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = np.array([numbers[path.parts[level]] if _has_class(path, level) else -1 for path in chosen], np.int64)
    if labels.min() < 0 and labelled:
        unlabelled = chosen[labels.argmin()]
        reason = f"{unlabelled} is in no class folder, so it has no label"
        layout = f"{root}/CLASS/1.jpg, or {root}/train/CLASS/1.jpg and {root}/test/CLASS/2.jpg"
        raise DataError(f"{where}: {reason}. Received: split={split!r}. Sort the images into folders: {layout}.")
    if labels.max() < 0 or (labels.min() < 0 and role == "pretrain"):
        labels, class_names = None, ()
    paths = [os.path.join(root, path) for path in chosen]
    index = ImageIndex.of_files(paths, [path.as_posix() for path in chosen], labels, class_names)
    return hold_out(index, split, role) if divides else (index, split)


def _walk(root: pathlib.Path) -> Sequence[pathlib.PurePath]:
    """Return the relative paths of all images below `root`."""
    images = []
    visited = set()
    # Links are followed; a folder that was visited under another name ends a circle of links.
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                images.append(pathlib.Path(folder, name).relative_to(root))
    return images


def _has_class(path: pathlib.PurePath, level: int) -> bool:
    """Return whether a path has a class at this level."""
    return len(path.parts) > level + 1
