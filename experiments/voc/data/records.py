"""What a reader of VOC data hands over for one image, and the checks that all readers share.

Boxes are (ymin, xmin, ymax, xmax) in pixels everywhere in this package, counted from 0 and half-open: a box covers the
rows ymin <= y < ymax, so that its height is ymax - ymin, and the whole image is (0, 0, height, width). VOC files count
from 1 and include the last pixel: one is taken from their minima, and their maxima stay as they are.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from lts.data.store import BrokenImage, read_header
from lts.utils.errors import first_line

TOLERANCE = 1  # pixels that a box may stick out: tools that count from 0 write such files; it is cut to the image
TAIL = 1024  # bytes at a file's end where the mark of a whole JPEG or PNG is looked for


class BrokenFile(Exception):
    """One file of an image is wrong: its name, and why."""

    def __init__(self, file: str | os.PathLike, reason: str):
        super().__init__(f"{file}: {reason}")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image as it was found; class names have no numbers yet.

    Attributes:
      path: the image file.
      size: (height, width, encoded bytes).
      source: the file that the objects or the mask come from, for messages.
      class_names: of the n objects.
      boxes: float32 [n, 4], see the module.
      difficult: bool [n].
      mask: the mask file, or None.
      mask_labels: int64 [2], greatest label (-1: none but 255) and checksum of the mask; None without one.
    """

    path: str
    size: tuple[int, int, int]
    source: str
    class_names: tuple[str, ...] = ()
    boxes: np.ndarray | None = None
    difficult: np.ndarray | None = None
    mask: str | None = None
    mask_labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """The images of a split, before any is looked at.

    Attributes:
      ids: of the N images, each once.
      read: called with a number in [0, N), gives its record or raises `BrokenFile`; from any thread.
      class_names: where the set declares them; None where they are read from the annotations.
    """

    ids: tuple[str, ...]
    read: Callable[[int], Record]
    class_names: tuple[str, ...] | None = None


def image_size(path: str, shown: str | None = None) -> tuple[int, int, int]:
    """Height, width and encoded bytes of an image file, from its header.

    The file is decoded only where its last bytes do not show that it is whole.

    Args:
      path: the file.
      shown: how messages name it; None: by its path.

    Raises:
      BrokenFile: it is missing, cut off or not an image.
    """
    try:
        header = read_header(path)
        if not _is_whole(path, header.encoded_bytes):
            with Image.open(path) as image:
                image.load()
    except BrokenImage as error:
        raise BrokenFile(shown or path, str(error)) from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise BrokenFile(shown or path, first_line(error)) from None
    return header.height, header.width, header.encoded_bytes


def _is_whole(path: str, size: int) -> bool:
    """Whether a file begins as a JPEG or PNG and ends as such; False says nothing."""
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(max(0, size - TAIL))
        end = file.read()
    return (start[:2] == b"\xff\xd8" and b"\xff\xd9" in end) or (start == b"\x89PNG" and b"IEND" in end)


def pixel_boxes(corners: np.ndarray, size: tuple[int, ...], file: str, names: tuple[str, ...]) -> np.ndarray:
    """Boxes as VOC writes them, in this package's convention and checked against their image.

    Args:
      corners: float64 [n, 4], (ymin, xmin, ymax, xmax), counted from 1, last pixel included.
      size: height and width of the image first.
      file: where the boxes come from, for messages.
      names: class names of the n objects, for messages.

    Returns:
      float32 [n, 4]; what stuck out by at most `TOLERANCE` pixels is cut off.

    Raises:
      BrokenFile: a box further outside, or without area. A box whose minimum is its maximum is without area too: by
        VOC's rule it is one pixel wide, but in files it is a slip of the mouse.

    Example:
      >>> pixel_boxes(np.array([[1.0, 1.0, 20.0, 30.0]]), (20, 30), "a.xml", ("cat",))
      array([[ 0.,  0., 20., 30.]], dtype=float32)
    """
    limits = np.array([size[0], size[1], size[0], size[1]], np.float64)
    boxes = corners - [1, 1, 0, 0]
    outside = ~((boxes >= -TOLERANCE) & (boxes <= limits + TOLERANCE)).all(axis=1)  # so that nan is outside
    boxes = np.clip(boxes, 0, limits)
    empty = (corners[:, :2] >= corners[:, 2:]).any(axis=1) | (boxes[:, :2] >= boxes[:, 2:]).any(axis=1)
    for wrong, what in ((outside, f"lies outside its {size[1]}x{size[0]} image"), (empty, "has no area")):
        if wrong.any():
            index = int(wrong.argmax())
            which, values = f"object {index + 1} ({names[index]})", ", ".join(f"{value:g}" for value in corners[index])
            raise BrokenFile(file, f"the box of {which} {what}. Received: ymin, xmin, ymax, xmax = {values}")
    return boxes.astype(np.float32)
