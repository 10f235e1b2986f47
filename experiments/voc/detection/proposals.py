"""Object proposals: searched for and cached, or read.

A proposal is a box that may contain an object of any class, (ymin, xmin, ymax, xmax) in pixels, from 0, half-open. True
boxes are not among them; the training adds them.
"""

import hashlib
import multiprocessing
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from experiments.voc.detection import selective_search
from experiments.voc.detection.selective_search import LONG_SIDE, MODES, VERSION, ProposalError
from experiments.voc.metrics import box_iou
from lts.utils import npz, provenance
from lts.utils.errors import first_line
from lts.utils.files import remove_partial
from lts.utils.progress import Progress

MAX_BOXES = 2000  # per image (Girshick 2015)
MAX_BYTES = 2**26  # of the boxes of an image in a file: two million boxes
TOLERANCE = 1  # pixels that a box in a file may exceed its image; it is clipped


def search_proposals(
    paths: Sequence[str],
    cache: str | os.PathLike,
    *,
    mode: str = "fast",
    max_boxes: int = MAX_BOXES,
    processes: int | None = None,
) -> tuple[np.ndarray, ...]:
    """Search for proposals in parallel, and cache them.

    The cache holds one .npz per image, named by the content of the image, the mode and the version of the search.
    Images may therefore be moved or shared between splits and runs, and a stopped search resumes.

    Args:
      paths: the N image files.
      cache: folder of the cache; created if missing.
      mode: "fast" | "quality"; quality finds about three times as many boxes in three times the time.
      max_boxes: largest number of boxes per image; the cache keeps all.
      processes: number of processes; None: one per core.

    Returns:
      float32 [n, 4] of each image, 1 <= n <= max_boxes, the largest first; reproducible.

    Raises:
      ProposalError: no OpenCV, an image that cannot be read, or a process that died.
    """
    if mode not in MODES:
        raise ProposalError(f"mode of selective search must be {' | '.join(MODES)}. Received: {mode!r}")
    folder = pathlib.Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    files = [folder / f"{_key(path, mode)}.npz" for path in paths]
    missing = {file: path for file, path in zip(files, paths, strict=True) if not file.exists()}
    if missing:
        _search_all(missing, mode, processes or provenance.cores(), len(set(files)))
    return tuple(_thinned(_cached(file), max_boxes) for file in files)


def _thinned(boxes: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` boxes, evenly from the largest to the smallest."""
    if len(boxes) <= most:
        return boxes
    # NB: the 2,000 largest would cover no small object. In an image with 3,556 boxes the best overlap with one fell
    # from 0.74 to 0.33.
    return boxes[np.linspace(0, len(boxes) - 1, most).astype(int)]


def _key(path: str, mode: str) -> str:
    """Return the cache name of an image, a hash of its content and the search settings."""
    digest = hashlib.sha256(f"{VERSION} {mode} {LONG_SIDE}\n".encode())
    try:
        digest.update(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise ProposalError(f"{path} cannot be searched for objects ({first_line(error)})") from None
    return digest.hexdigest()[:32]


def _search_all(missing: dict[pathlib.Path, str], mode: str, processes: int, total: int) -> None:
    """Compute the missing files of the cache."""
    selective_search.import_opencv()  # raises before processes start
    # NB: a fork of a process with TensorFlow's threads may hang.
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(missing))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=selective_search.start_worker)
    with Progress("selective search", total, first=total - len(missing)) as progress:
        try:
            jobs = [pool.submit(selective_search.search_file, path, str(file), mode) for file, path in missing.items()]
            for job in as_completed(jobs):
                job.result()
                progress.advance(1)
        except BrokenProcessPool:
            raise ProposalError(
                "a process of the selective search died, probably out of memory. Run it again with fewer processes; "
                "finished images are kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _cached(file: pathlib.Path) -> np.ndarray:
    try:
        with npz.open_npz(file) as archive:
            return _checked_cache(npz.read_array(archive, "boxes", MAX_BYTES))
    except Exception as error:  # NB: NumPy and zipfile raise nearly anything on a damaged file
        raise ProposalError(f"{file} is damaged ({first_line(error)}). Remove it to compute it again") from None


def _checked_cache(boxes: np.ndarray) -> np.ndarray:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError("it holds no boxes [n, 4]")
    return boxes


def read_proposals(
    file: str | os.PathLike, ids: Sequence[str], sizes: np.ndarray, max_boxes: int = MAX_BOXES
) -> tuple[np.ndarray, ...]:
    """Read proposals from a file.

    Args:
      file: an .npz (`numpy.savez`) with the boxes of each image under its id: numbers [n, 4], n >= 1, in the convention
        of this module, the best first. It may contain further images.
      ids: ids of the N images.
      sizes: int [N, 2], their height and width.
      max_boxes: number of first boxes that are used per image.

    Returns:
      float32 [n, 4] of each image.

    Raises:
      ProposalError: no such file, no boxes for an image, or boxes outside their image or without area.

    Example:
      >>> np.savez("proposals.npz", **{"000005": np.array([[0, 0, 120, 200], [30, 40, 90, 110]])})
      >>> read_proposals("proposals.npz", ["000005"], np.array([[375, 500]]))[0].shape
      (2, 4)
    """
    try:
        with npz.open_npz(file) as archive:
            known = npz.names_of(archive)
            lacking = [name for name in ids if name not in known]
            if lacking:
                raise ProposalError(f"{file} holds no proposals for image {lacking[0]!r} and {len(lacking) - 1} others")
            checked = []
            for size, name in zip(sizes, ids, strict=True):
                boxes = _checked(npz.read_array(archive, name, MAX_BYTES), size, f"{file}, image {name!r}")
                checked.append(boxes[:max_boxes].copy())  # a view would keep the other boxes
            return tuple(checked)
    except ProposalError:
        raise
    except Exception as error:  # NB: NumPy and zipfile raise nearly anything on other files
        raise ProposalError(f"{file} must be an .npz of proposals, ids to boxes ({first_line(error)})") from None


def _checked(boxes: np.ndarray, size: np.ndarray, where: str) -> np.ndarray:
    """Return the boxes of a file as float32 [n, 4], clipped to their image."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or boxes.dtype.kind not in "iuf":
        raise ProposalError(f"{where}: boxes must be numbers [n, 4]. Received: {boxes.dtype} {list(boxes.shape)}")
    boxes = boxes.astype(np.float32)
    limits = np.tile(size, 2)
    inside = (boxes >= -TOLERANCE) & (boxes <= limits + TOLERANCE)
    clipped = np.clip(boxes, 0, limits)
    valid = inside.all(axis=1) & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    if not valid.all():
        index = int(valid.argmin())
        values = ", ".join(f"{value:g}" for value in boxes[index])
        raise ProposalError(
            f"{where}: a box must lie within its {size[1]}x{size[0]} image and have an area. "
            f"Received: ymin, xmin, ymax, xmax = {values}"
        )
    return clipped.astype(np.float32)


def recall(proposals: Sequence[np.ndarray], objects: Sequence[Any], threshold: float = 0.5) -> float:
    """Return the fraction of true objects that a proposal covers.

    No detector on these proposals finds more.

    Args:
      proposals: [n, 4] of each image.
      objects: `experiments.voc.data.dataset.Objects` of each image.
      threshold: smallest intersection over union of an object and a proposal.

    Returns:
      In [0, 1], over all objects that are not difficult; nan without any.
    """
    best = []
    for boxes, image_objects in zip(proposals, objects, strict=True):
        easy = image_objects.boxes[~image_objects.difficult]
        best.append(box_iou(easy, boxes).max(axis=1, initial=0))
    covered = np.concatenate(best) >= threshold
    return float(covered.mean()) if len(covered) else float("nan")
