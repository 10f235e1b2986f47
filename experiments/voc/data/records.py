"""Records of VOC images, and the checks that all readers share.

Boxes are (ymin, xmin, ymax, xmax) in pixels everywhere in this package, counted from 0 and half-open. A box covers the
rows ymin <= y < ymax, its height is ymax - ymin, and the whole image is (0, 0, height, width). VOC files count from 1
and include the last pixel: 1 is subtracted from their minima, and their maxima stay.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from lts.data.decoding import BrokenImage, open_image, read_header

# Pixels that a box may exceed its image, because some tools count from 0. The box is clipped.
TOLERANCE = 1
TAIL = 1024  # bytes at the end of a file that must hold the end marker of a JPEG or PNG


class BrokenFile(Exception):
    """A broken file of an image, with the reason."""

    def __init__(self, file: str | os.PathLike, reason: str):
        super().__init__(f"{file}: {reason}")


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its annotations; classes are names, not numbers.

    Attributes:
      path: image file.
      size: (height, width, encoded bytes).
      source: file of the objects or the mask, for messages.
      class_names: class names of the n objects.
      boxes: float32 [n, 4], see the module.
      difficult: bool [n].
      mask: mask file, or None.
      mask_labels: int64 [2], largest label (-1: only 255) and checksum of the mask; None without a mask.
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
class VocListing:
    """Images of a split before any is read.

    Attributes:
      ids: unique ids of the N images.
      read: thread-safe function that returns the record of index [0, N) or raises `BrokenFile`.
      class_names: declared class names; None: they are read from the annotations.
    """

    ids: tuple[str, ...]
    read: Callable[[int], Record]
    class_names: tuple[str, ...] | None = None


def image_size(path: str, printed_name: str | None = None) -> tuple[int, int, int]:
    """Return height, width and encoded bytes of an image file, upright.

    They come from the header. The file is decoded only if it lacks an end marker.

    Args:
      path: the file.
      printed_name: name of the file in messages; None: its path.

    Raises:
      BrokenFile: the file is missing, truncated or not an image.
    """
    try:
        header = read_header(path)
        if not _has_end_marker(path, header.encoded_bytes):
            with open_image(path) as image:
                image.load()
    except BrokenImage as error:
        raise BrokenFile(printed_name or path, str(error)) from None
    return header.height, header.width, header.encoded_bytes


def _has_end_marker(path: str, size: int) -> bool:
    """Return True for a JPEG or PNG with its end marker; False is no proof of damage."""
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(max(0, size - TAIL))
        end = file.read()
    return (start[:2] == b"\xff\xd8" and b"\xff\xd9" in end) or (start == b"\x89PNG" and b"IEND" in end)


def pixel_boxes(corners: np.ndarray, size: tuple[int, ...], file: str, names: tuple[str, ...]) -> np.ndarray:
    """Convert VOC's boxes to this package's convention and check them.

    Args:
      corners: float64 [n, 4], (ymin, xmin, ymax, xmax), counted from 1, last pixel included.
      size: (height, width, ...) of the image.
      file: file of the boxes, for messages.
      names: class names of the n objects, for messages.

    Returns:
      float32 [n, 4], clipped to the image.

    Raises:
      BrokenFile: a box more than `TOLERANCE` pixels outside, or without area. A box whose minimum equals its maximum
        has no area either: by VOC's rule it is one pixel wide, but in files it is a mistake.

    Example:
      >>> pixel_boxes(np.array([[1.0, 1.0, 20.0, 30.0]]), (20, 30), "a.xml", ("cat",))
      array([[ 0.,  0., 20., 30.]], dtype=float32)
    """
    limits = np.array([size[0], size[1], size[0], size[1]], np.float64)
    boxes = corners - [1, 1, 0, 0]
    # NB: the comparison is negated so that nan counts as outside.
    outside = ~((boxes >= -TOLERANCE) & (boxes <= limits + TOLERANCE)).all(axis=1)
    boxes = np.clip(boxes, 0, limits)
    empty = (corners[:, :2] >= corners[:, 2:]).any(axis=1) | (boxes[:, :2] >= boxes[:, 2:]).any(axis=1)
    for invalid, reason in ((outside, f"lies outside its {size[1]}x{size[0]} image"), (empty, "has no area")):
        if invalid.any():
            index = int(invalid.argmax())
            values = ", ".join(f"{value:g}" for value in corners[index])
            raise BrokenFile(
                file,
                f"the box of object {index + 1} ({names[index]}) {reason}. Received: ymin, xmin, ymax, xmax = {values}",
            )
    return boxes.astype(np.float32)
