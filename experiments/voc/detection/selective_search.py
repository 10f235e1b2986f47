"""Selective search on one image, and its worker processes.

Uijlings et al., "Selective Search for Object Recognition", IJCV 2013; the implementation is OpenCV's. Imports no
TensorFlow, so workers start quickly.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from lts.utils.errors import UserError, first_line
from lts.utils.files import atomic_write

MODES = ("fast", "quality")  # of the paper and of OpenCV: 8 and 80 hierarchies of regions
LONG_SIDE = 500  # pixels to which larger images are reduced, the size of VOC's (R-CNN: a width of 500)
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")  # those of `lts.data.decoding`, which imports TensorFlow
VERSION = 2  # of the result of `search`; a new version invalidates caches


class ProposalError(UserError):
    """Object proposals that cannot be computed or read."""


def import_opencv() -> Any:
    """Return OpenCV with its contrib modules.

    Raises:
      ProposalError: OpenCV or its contrib modules are not installed.
    """
    try:
        import cv2

        cv2.ximgproc.segmentation  # noqa: B018
    except (ImportError, AttributeError):  # the latter: OpenCV without contrib
        raise ProposalError(
            "selective search needs OpenCV with its contrib modules, the extra `detection`. Run pip install "
            "opencv-contrib-python-headless, or pass proposals in a file"
        ) from None
    return cv2


def search(image: np.ndarray, mode: str = "fast") -> np.ndarray:
    """Return boxes that may contain an object, the largest first.

    OpenCV finds the same boxes each time but ranks them randomly; the order here is fixed. Versions 4 and 5 of OpenCV
    differ in a few boxes of a thousand.

    Args:
      image: uint8 [height, width, 3], RGB.
      mode: "fast" | "quality".

    Returns:
      float32 [n, 4], unique (ymin, xmin, ymax, xmax) in pixels of `image`, from 0, half-open; at least the whole image.
    """
    cv2 = import_opencv()
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    finder = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    finder.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    if mode == "fast":
        finder.switchToSelectiveSearchFast()
    else:
        finder.switchToSelectiveSearchQuality()
    found = np.asarray(finder.process(), np.int64).reshape(-1, 4)  # x, y, width, height
    corners = np.column_stack([found[:, 1], found[:, 0], found[:, 1] + found[:, 3], found[:, 0] + found[:, 2]])
    boxes = np.unique(np.concatenate([corners, [[0, 0, *image.shape[:2]]]]), axis=0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    boxes = boxes[np.argsort(-areas, kind="stable")]
    return (boxes * np.tile([height / image.shape[0], width / image.shape[1]], 2)).astype(np.float32)


def start_worker() -> None:
    """Make this process a worker: one thread, no Ctrl-C, ends with its parent."""
    import_opencv().setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def search_file(path: str, target: str, mode: str) -> None:
    """Search an image file and write the boxes to an .npz atomically.

    Raises:
      ProposalError: the image cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # NB: decoders raise nearly anything on damaged files
        raise ProposalError(f"{path} cannot be searched for objects ({first_line(error)})") from None
    boxes = search(pixels, mode)
    with atomic_write(target) as draft, draft.open("wb") as file:
        np.savez_compressed(file, boxes=boxes)
