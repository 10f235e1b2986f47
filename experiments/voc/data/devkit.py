"""VOC data in the folders of the VOCdevkit."""

import dataclasses
import hashlib
import os
import pathlib
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Sequence

import numpy as np

from experiments.voc.data.records import BrokenFile, Record, VocListing, image_size, pixel_boxes
from lts.data.decoding import EXTENSIONS, BrokenImage, open_image
from lts.data.splits import resolve
from lts.data.store import DataError
from lts.utils.errors import first_line
from lts.utils.files import check_regular

LISTS = {"classification": "Main", "detection": "Main", "segmentation": "Segmentation"}  # below ImageSets
CORNERS = ("ymin", "xmin", "ymax", "xmax")
ANNOTATIONS = {"classification": "Annotations", "detection": "Annotations", "segmentation": "SegmentationClass"}
SUFFIXES = {"classification": ".xml", "detection": ".xml", "segmentation": ".png"}  # of their files, in any case
DIFFICULT = {"": False, "0": False, "false": False, "unspecified": False, "1": True, "true": True}
IGNORED = 255  # mask label of pixels without a class

# Parts of a list of images, written after its name as slices are.
HELD_OUT = "[a fifth]"
REST = "[all but a fifth]"
SHARE = 5  # one image of this many is held out


def list_devkit(path: str, split: str, task: str) -> VocListing:
    """List the images of a split in VOC's layout.

    The layout is JPEGImages/ID.jpg; Annotations/ID.xml or, for segmentation, SegmentationClass/ID.png; and
    ImageSets/Main/SPLIT.txt or ImageSets/Segmentation/SPLIT.txt with one id per line.

    Args:
      path: folder that contains ImageSets, or contains exactly one such folder (VOCdevkit, its parent).
      split: names of lists, sums and slices: "train", "train+val", "test[:50]". Without a list `trainval` it is
        train+val. "all" is every annotated image of a folder without ImageSets. NAME[a fifth] and NAME[all but a
        fifth] divide a list.
      task: "classification" | "detection" | "segmentation".

    Returns:
      The listing.

    Raises:
      DataError: no such folder or split, an empty split, or an image that is listed twice.
    """
    root = find_root(path)
    ids = _listed(root, split, task)
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise DataError(f"folder:{path}: {folder} is missing")
    images = _files_by_id(folder, EXTENSIONS)
    suffix = SUFFIXES[task]
    annotations = _files_by_id(root / ANNOTATIONS[task], [suffix])

    def read(index: int) -> Record:
        name = ids[index]
        if name not in images:
            raise BrokenFile(folder / f"{name}.jpg", "the image is missing, but its id is listed")
        image = str(images[name])
        size = image_size(image)
        # The reader of a missing file says that it is missing.
        file = annotations.get(name, root / ANNOTATIONS[task] / f"{name}{suffix}")
        if task == "segmentation":
            return Record(image, size, str(file), mask=str(file), mask_labels=_mask_labels(file, size))
        annotation = read_annotation(file)
        annotation.check_size(file, image, size)
        boxes = pixel_boxes(annotation.corners, size, str(file), annotation.names)
        return Record(image, size, str(file), annotation.names, boxes, annotation.difficult)

    return VocListing(ids, read)


def default_splits(path: str, task: str, train: str, test: str) -> tuple[str, str]:
    """Return the splits to train and to test on where none is given.

    They are `train` and `test` if the folder has these lists, or else the lists train and val. Without them a fifth of
    the images is held out for the test. The choice depends on the ids only.

    Example:
      >>> default_splits("mine_without_lists", "detection", "trainval", "test")
      ('all[all but a fifth]', 'all[a fifth]')
    """
    lists = _lists(find_root(path), task)
    for pair in ((train, test), ("train", "val")):
        if lists.keys() >= set(pair):
            return pair
    base = next(name for name in (train, "trainval", "train", "all") if name in lists or name == "all")
    return base + REST, base + HELD_OUT


def find_root(path: str) -> pathlib.Path:
    """Return the folder in VOC's layout, at most two levels below `path`."""
    top = pathlib.Path(path)
    if not top.is_dir():
        raise DataError(f"folder:{path} is not a folder")
    # A folder without lists is recognized by its images.
    for marker in ("ImageSets", "JPEGImages"):
        if (top / marker).is_dir():
            return top
        roots = sorted(file.parent for file in (*top.glob(f"*/{marker}"), *top.glob(f"*/*/{marker}")))
        if len(roots) == 1:
            return roots[0]
        if roots:
            raise DataError(
                f"folder:{path} must hold one folder {marker}, as VOC2007 does. Received: several, name one of "
                f"{', '.join(map(str, roots))}"
            )
    raise DataError(f"folder:{path} must hold a folder ImageSets or JPEGImages, as VOC2007 does. Received: none")


@dataclasses.dataclass(frozen=True)
class Annotation:
    """Content of an annotation file.

    Attributes:
      names: class names of the n objects.
      corners: float64 [n, 4], as written.
      difficult: bool [n], False where the file has no such tag.
      size: (width, height) of the image as written, or None.
    """

    names: tuple[str, ...]
    corners: np.ndarray
    difficult: np.ndarray
    size: tuple[float, float] | None

    def check_size(self, file: str | os.PathLike, image: str, size: tuple[int, ...]) -> None:
        """Raise `BrokenFile` unless the annotation is for an image (height, width, ...) of this size."""
        if self.size is not None and self.size != (size[1], size[0]):
            written = "x".join(f"{side:g}" for side in self.size)
            raise BrokenFile(
                file,
                f"<size> must be that of {image}, upright {size[1]}x{size[0]} pixels. Received: {written}",
            )


def read_annotation(file: pathlib.Path) -> Annotation:
    """Return the objects of an annotation file, without their parts.

    Args:
      file: XML as in VOC's Annotations.

    Raises:
      BrokenFile: the file is missing, not XML or not an annotation, or an object lacks its name or a corner.
    """
    root = _parse(file)
    objects = root.findall("object")
    names = []
    corners = np.empty([len(objects), 4])
    difficult = np.zeros(len(objects), bool)
    for index, entry in enumerate(objects):
        names.append(" ".join((entry.findtext("name") or "").split()))
        where = f"object {index + 1} ({names[index] or 'without a name'})"
        if not names[index]:
            raise BrokenFile(file, f"{where} must have a <name>")
        for column, key in enumerate(CORNERS):
            corners[index, column] = _number(entry, f"bndbox/{key}", file, where)
        text = (entry.findtext("difficult") or "").strip()
        if text.lower() not in DIFFICULT:
            raise BrokenFile(file, f"{where} must have 0 or 1 as difficult. Received: {text!r}")
        difficult[index] = DIFFICULT[text.lower()]
    size = None
    if root.find("size") is not None:
        size = (_number(root, "size/width", file, "it"), _number(root, "size/height", file, "it"))
    return Annotation(tuple(names), corners, difficult, size)


def _parse(file: pathlib.Path) -> ElementTree.Element:
    """Return the root of an annotation file."""
    try:
        check_regular(file)
        root = ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise BrokenFile(file, "the annotation is missing") from None
    except OSError as error:
        raise BrokenFile(file, first_line(error)) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise BrokenFile(file, f"not readable as XML ({first_line(error)})") from None
    # NB: a page of a web server, or an annotation in another layout, must not count as an image without objects.
    if root.tag != "annotation":
        raise BrokenFile(file, f"the root must be <annotation> without a namespace. Received: <{root.tag}>")
    objects = root.findall("object")
    for entry in root.iter():
        if re.fullmatch(r"(\{.*\})?objects?", entry.tag, re.IGNORECASE) and entry not in objects:
            raise BrokenFile(
                file, f"every object must be an <object> directly below <annotation>. Received: <{entry.tag}>"
            )
    return root


def _number(entry: ElementTree.Element, path: str, file: pathlib.Path, where: str) -> float:
    """Return the number in an element."""
    text = entry.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        raise BrokenFile(file, f"{where} must have a number as {path}. Received: {text!r}") from None


def read_mask(file: str | pathlib.Path) -> np.ndarray:
    """Return the labels of a mask file, uint8 [height, width]; 255 is ignored.

    Labels are the indices of the palette or the shades of grey. TensorFlow cannot read the indices of a palette.

    Raises:
      BrokenFile: the file is missing, damaged, or neither of a palette (mode P) nor grey (mode L).
    """
    try:
        with open_image(file) as image:
            if image.mode not in ("P", "L"):
                raise BrokenImage(f"a mask must have a palette or be grey (mode P or L). Received: {image.mode}")
            return np.array(image)
    except BrokenImage as error:
        missing = not pathlib.Path(file).exists()
        raise BrokenFile(file, "the mask is missing" if missing else str(error)) from None


def _mask_labels(file: pathlib.Path, size: tuple[int, int, int]) -> np.ndarray:
    """Return the largest label and the checksum of a mask, see `Record`."""
    mask = read_mask(file)
    if mask.shape != size[:2]:
        received = f"{mask.shape[1]}x{mask.shape[0]}"
        raise BrokenFile(file, f"the mask must be as large as its image, {size[1]}x{size[0]}. Received: {received}")
    counts = np.bincount(mask.reshape(-1), minlength=IGNORED + 1)[:IGNORED]
    return np.array([np.flatnonzero(counts).max(initial=-1), zlib.crc32(mask)], np.int64)


def _lists(root: pathlib.Path, task: str) -> dict[str, list[pathlib.Path]]:
    """Return the files of each list of images; "all" has none."""
    files = _files_by_id(root / "ImageSets" / LISTS[task], [".txt"])
    lists = {name: [file] for name, file in files.items()}
    if "trainval" not in lists and {"train", "val"} <= lists.keys():
        lists["trainval"] = lists["train"] + lists["val"]
    return lists or {"all": []}


def _listed(root: pathlib.Path, split: str, task: str) -> tuple[str, ...]:
    """Return the ids of a split in the order of its lists."""
    folder = root / "ImageSets" / LISTS[task]
    known = _lists(root, task)
    part = next((part for part in (HELD_OUT, REST) if split.endswith(part)), "")
    whole = split.removesuffix(part)
    lists: dict[str, list[str]] = {}
    for name in split_names(whole):
        if name not in known and not folder.is_dir():
            raise DataError(f"{folder} is missing: {task} reads its lists of images there")
        if name not in known:
            # Lists of single classes, such as cat_train, are not suggested.
            plain = [key for key in known if not re.search(r"_(train|val|trainval|test)$", key)]
            raise DataError(f"{folder} has no split {name!r}; it has {', '.join(plain) or 'none'}")
        lists[name] = []
        for file in known[name]:
            lists[name].extend(_lines(file))
        if not known[name]:
            # NB: without lists every annotated image counts.
            lists[name] = sorted(_files_by_id(root / ANNOTATIONS[task], [SUFFIXES[task]]))
        if not lists[name]:
            source = known[name][0] if known[name] else root / ANNOTATIONS[task]
            raise DataError(f"{source} lists no images")
    pieces = resolve(whole, {name: len(ids) for name, ids in lists.items()}, f"folder:{root}")
    ids = []
    for name, start, stop in pieces:
        ids.extend(lists[name][start:stop])
    return _part(unrepeated(tuple(ids), f"{folder}, split {split!r}"), part)


def _part(ids: tuple[str, ...], part: str) -> tuple[str, ...]:
    """Return the held-out ids, the others, or all."""
    if not part:
        return ids
    order = sorted(ids, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    held_out = set(order[: max(1, round(len(ids) / SHARE))])
    return tuple(name for name in ids if (name in held_out) == (part == HELD_OUT))


def split_names(split: str) -> list[str]:
    """Return the unique names in a split: "train[:5]+val" gives train and val."""
    return list(dict.fromkeys(part.split("[")[0].strip() for part in split.split("+")))


def unrepeated(ids: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return `ids` if none is repeated.

    Raises:
      DataError: an id is repeated; it would count twice in evaluations.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"{where}: image {name!r} is listed twice")
        seen.add(name)
    return ids


def _files_by_id(folder: pathlib.Path, extensions: Sequence[str]) -> dict[str, pathlib.Path]:
    """Return the files of a folder by id.

    Of several files with one id, that with the first extension counts, and one in lower case.
    """
    if not folder.is_dir():
        return {}
    files = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in extensions and not file.name.startswith("."):
            files.setdefault(file.stem, []).append(file)

    def rank(file: pathlib.Path) -> tuple[int, bool]:
        return extensions.index(file.suffix.lower()), file.suffix != file.suffix.lower()

    return {name: min(candidates, key=rank) for name, candidates in files.items()}


def _lines(file: pathlib.Path) -> list[str]:
    """Return the stripped, non-empty lines of a list."""
    try:
        check_regular(file)
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({first_line(error)})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({first_line(error)})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
