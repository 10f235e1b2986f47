"""Images in folders: ROOT/split/class/image, ROOT/class/image, or images alone."""

import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from lts.data.splits import LOOSE, resolve
from lts.data.store import LABELLED, DataError, ImageIndex

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def list_folder(root: str, split: str | None, role: str) -> tuple[ImageIndex, str]:
    """Finds the images of a folder.

    The folders directly below `root` are splits where one of them is asked for by its name, or where images lie two
    folders deep or deeper; else they are classes, and the only split is `all`. The class of an image is the folder
    below its split. Images of a split follow each other in a fixed order as good as random (by a hash of their path),
    so that any slice holds all classes.

    Args:
      root: the folder; its hidden files and files that are not images by their extension do not count.
      split: which images, as tfds writes it; None: that of the name of the role, or everything.
      role: see `lts.data.store.PURPOSES`.

    Returns:
      The images, and the split that was chosen.

    Raises:
      DataError: no folder, no images, no such split, or an image without a class where labels are needed.
    """
    where = f"folder:{root}"
    if not os.path.isdir(root):
        raise DataError(f"{where} is not a folder")
    found = _walk(pathlib.Path(root))
    if not found:
        raise DataError(f"{where} holds no images ({', '.join(EXTENSIONS)})")
    split = split or (role if role in LABELLED else "all")
    first_level = {path.parts[0] for path in found if len(path.parts) > 1}
    asked = {part.split("[")[0].strip() for part in split.split("+")}
    has_splits = bool(asked & first_level) or any(len(path.parts) > 2 for path in found)
    groups: dict[str, list[pathlib.PurePath]] = {}
    for path in sorted(found, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest()):
        name = "all" if not has_splits else path.parts[0] if len(path.parts) > 1 else LOOSE
        groups.setdefault(name, []).append(path)
    groups = dict(sorted(groups.items()))
    pieces = resolve(split, {name: len(paths) for name, paths in groups.items()}, where)
    chosen = [path for name, start, stop in pieces for path in groups[name][start:stop]]
    labels, class_names = _labels(chosen, [path for paths in groups.values() for path in paths], int(has_splits))
    if labels.min() < 0 and role in LABELLED:
        bare = chosen[labels.argmin()]
        raise DataError(f"{where}, split {split!r}: {bare} lies in no class folder, so it has no label")
    if labels.max() < 0 or (labels.min() < 0 and role == "pretrain"):
        labels, class_names = None, ()
    paths = [os.path.join(root, path) for path in chosen]
    names = tuple(path.as_posix() for path in chosen)
    encoded = [os.fsencode(path) for path in paths]
    dataset = lambda: tf.data.Dataset.from_tensor_slices(encoded)  # noqa: E731
    return ImageIndex(names, labels, class_names, lambda: paths, dataset, True, lambda: paths), split


def _walk(root: pathlib.Path) -> list[pathlib.PurePath]:
    """Relative paths of all images below `root`; links are followed, circles are not."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        images = [name for name in files if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
        found += [pathlib.Path(folder, name).relative_to(root) for name in images]
    return found


def _class_of(path: pathlib.PurePath, level: int) -> str | None:
    """Name of the class folder of an image, at this level below the root; None where there is none."""
    return path.parts[level] if len(path.parts) > level + 1 else None


def _labels(
    chosen: list[pathlib.PurePath], everything: list[pathlib.PurePath], level: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of the chosen images, -1 without a class; numbered over all splits, so that they agree."""
    class_names = sorted({name for path in everything if (name := _class_of(path, level)) is not None})
    number = {name: index for index, name in enumerate(class_names)}
    return np.array([number.get(_class_of(path, level), -1) for path in chosen], np.int64), tuple(class_names)
