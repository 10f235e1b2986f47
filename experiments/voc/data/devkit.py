"""VOC data in folders: the layout of the VOCdevkit."""

import pathlib
import re
import xml.etree.ElementTree as ElementTree
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from experiments.voc.data.records import BrokenFile, Found, Record, image_size, pixel_boxes
from lts.data.folder import EXTENSIONS
from lts.data.splits import resolve
from lts.data.store import DataError
from lts.utils.errors import first_line

LISTS = {"classification": "Main", "detection": "Main", "segmentation": "Segmentation"}  # below ImageSets
CORNERS = ("ymin", "xmin", "ymax", "xmax")
IGNORED = 255  # in masks: belongs to no class


def list_devkit(path: str, split: str, task: str) -> Found:
    """Finds the images of a split of a folder in VOC's layout.

    The layout: JPEGImages/ID.jpg; Annotations/ID.xml or, for segmentation, SegmentationClass/ID.png; and
    ImageSets/Main/SPLIT.txt or ImageSets/Segmentation/SPLIT.txt, one ID a line.

    Args:
      path: the folder that holds ImageSets, or one that holds exactly one such folder (VOCdevkit, its parent).
      split: names of lists, sums and slices of them: "train", "train+val", "test[:50]". Without a list of that name
        `trainval` is train+val.
      task: "classification" | "detection" | "segmentation".

    Returns:
      The images.

    Raises:
      DataError: no such folder or split, an empty split, or an image that is listed twice.
    """
    root = find_root(path)
    ids = _listed(root, split, task)
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise DataError(f"folder:{path}: {folder} is missing")
    order = {extension: rank for rank, extension in enumerate(EXTENSIONS)}
    files = [file for file in folder.iterdir() if file.suffix.lower() in order]
    files.sort(key=lambda file: -order[file.suffix.lower()])  # the preferred one of two comes last, and stays
    images = {file.stem: str(file) for file in files}

    def read(index: int) -> Record:
        name = ids[index]
        if name not in images:
            raise BrokenFile(folder / f"{name}.jpg", "the image is missing, but its id is listed")
        size = image_size(images[name])
        if task == "segmentation":
            mask = root / "SegmentationClass" / f"{name}.png"
            return Record(images[name], size, str(mask), mask=str(mask), mask_labels=_mask_labels(mask, size))
        file = root / "Annotations" / f"{name}.xml"
        names, corners, difficult = read_annotation(file)
        return Record(images[name], size, str(file), names, pixel_boxes(corners, size, str(file), names), difficult)

    return Found(ids, read)


def find_root(path: str) -> pathlib.Path:
    """The folder that holds ImageSets: `path`, or the only such one up to two folders below it."""
    top = pathlib.Path(path)
    if not top.is_dir():
        raise DataError(f"folder:{path} is not a folder")
    if (top / "ImageSets").is_dir():
        return top
    found = sorted(file.parent for pattern in ("*/ImageSets", "*/*/ImageSets") for file in top.glob(pattern))
    if len(found) != 1:
        received = f"several, name one of {', '.join(map(str, found))}" if found else "none"
        raise DataError(f"folder:{path} should hold a folder ImageSets, as VOC2007 does. Received: {received}")
    return found[0]


def read_annotation(file: pathlib.Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The objects of an annotation file; their parts (heads, hands) do not count.

    Args:
      file: XML as in VOC's Annotations.

    Returns:
      Class names of the n objects; their corners as they are written, float64 [n, 4]; whether they are difficult,
      bool [n], False where the file does not say.

    Raises:
      BrokenFile: the file is missing, not XML, or an object lacks its name or a corner.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise BrokenFile(file, "the annotation is missing") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: encodings
        raise BrokenFile(file, f"not readable as XML ({first_line(error)})") from None
    objects = root.findall("object")
    names = tuple((entry.findtext("name") or "").strip() for entry in objects)
    corners = np.empty([len(objects), 4])
    for index, entry in enumerate(objects):
        where = f"object {index + 1} ({names[index] or 'without a name'})"
        if not names[index]:
            raise BrokenFile(file, f"{where} should have a <name>")
        for place, key in enumerate(CORNERS):
            text = entry.findtext(f"bndbox/{key}")
            try:
                corners[index, place] = float(text or "")
            except ValueError:
                raise BrokenFile(file, f"{where} should have a number as bndbox/{key}. Received: {text!r}") from None
    difficult = [(entry.findtext("difficult") or "0").strip() == "1" for entry in objects]
    return names, corners, np.array(difficult, bool)


def read_mask(file: str | pathlib.Path) -> np.ndarray:
    """Labels of a mask file, the palette's indices or the shades of grey: uint8 [height, width], 255 is ignored.

    Raises:
      BrokenFile: the file is missing, damaged, or neither of a palette (mode P) nor grey (mode L).
    """
    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "L"):
                raise BrokenFile(file, f"a mask should have a palette or be grey (mode P or L). Received: {image.mode}")
            return np.array(image)
    except BrokenFile:
        raise
    except FileNotFoundError:
        raise BrokenFile(file, "the mask is missing") from None
    except UnidentifiedImageError:
        raise BrokenFile(file, "not an image") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise BrokenFile(file, first_line(error)) from None


def _mask_labels(file: pathlib.Path, size: tuple[int, int, int]) -> np.ndarray:
    """Greatest label of a mask and its checksum; see `Record`."""
    mask = read_mask(file)
    if mask.shape != size[:2]:
        raise BrokenFile(
            file, f"the mask should be as large as its image, {size[1]}x{size[0]}. Received: {_by(mask.shape)}"
        )
    counts = np.bincount(mask.reshape(-1), minlength=IGNORED + 1)[:IGNORED]
    return np.array([np.flatnonzero(counts).max(initial=-1), zlib.crc32(mask)], np.int64)


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _listed(root: pathlib.Path, split: str, task: str) -> tuple[str, ...]:
    """Ids of a split, in the order of its lists."""
    folder = root / "ImageSets" / LISTS[task]
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: {task} reads its lists of images there")
    known = {file.stem: [file] for file in sorted(folder.glob("*.txt"))}
    if "trainval" not in known and {"train", "val"} <= known.keys():
        known["trainval"] = known["train"] + known["val"]
    lists: dict[str, list[str]] = {}
    for name in split_names(split):
        if name not in known:
            plain = [key for key in known if not re.search(r"_(train|val|trainval|test)$", key)]  # not those of classes
            raise DataError(f"{folder} has no split {name!r}; it has {', '.join(plain) or 'none'}")
        lists[name] = [line.strip() for file in known[name] for line in _lines(file)]
        if not lists[name]:
            raise DataError(f"{known[name][0]} lists no images")
    pieces = resolve(split, {name: len(ids) for name, ids in lists.items()}, f"folder:{root}")
    chosen = tuple(name for key, start, stop in pieces for name in lists[key][start:stop])
    return unrepeated(chosen, f"{folder}, split {split!r}")


def split_names(split: str) -> list[str]:
    """Names in a split specification, each once: "train[:5]+val" gives train and val."""
    return list(dict.fromkeys(part.split("[")[0].strip() for part in split.split("+")))


def unrepeated(ids: tuple[str, ...], where: str) -> tuple[str, ...]:
    """`ids` themselves.

    Raises:
      DataError: one is there twice: it would count twice in evaluations.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"{where}: image {name!r} is listed twice")
        seen.add(name)
    return ids


def _lines(file: pathlib.Path) -> list[str]:
    """Lines of a list that are not empty."""
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({first_line(error)})") from None
