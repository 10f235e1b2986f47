"""Object proposals of a data set: searched for once and kept on disk, or read from a file.

A proposal is a box that may hold an object of any class, (ymin, xmin, ymax, xmax) in pixels, from 0, half-open. The
true boxes are not among them: a detector that trains on them adds them itself.
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
from lts.utils.errors import first_line
from lts.utils.files import remove_partial
from lts.utils.progress import Progress

MAX_BOXES = 2000  # an image (Girshick, Fast R-CNN, 2015)
TOLERANCE = 1  # pixels that a box in a file may stick out of its image; it is cut to it


def search_proposals(
    paths: Sequence[str],
    cache: str | os.PathLike,
    *,
    mode: str = "fast",
    max_boxes: int = MAX_BOXES,
    processes: int | None = None,
) -> tuple[np.ndarray, ...]:
    """Proposals by selective search, computed in processes where the cache has none and kept there.

    The cache holds one .npz an image, named by the image's content, the mode and the search's version: images may be
    moved, shared between splits and runs, and a search that was stopped goes on where it was.

    Args:
      paths: the N image files.
      cache: folder of what was computed; made where there is none.
      mode: "fast" | "quality"; quality finds about three times as many boxes in three times the time.
      max_boxes: at most so many of an image, taken evenly from the largest to the smallest; the cache keeps all.
      processes: how many work at once; None: one a core.

    Returns:
      float32 [n, 4] of each image, 1 <= n <= max_boxes, the largest first. The same each time.

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
        _search_all(missing, mode, processes or len(os.sched_getaffinity(0)), len(set(files)))
    return tuple(_thinned(_cached(file), max_boxes) for file in files)


def _thinned(boxes: np.ndarray, most: int) -> np.ndarray:
    """At most so many of boxes in the order of their size: the first ones alone would not cover any small object."""
    return boxes if len(boxes) <= most else boxes[np.linspace(0, len(boxes) - 1, most).astype(int)]


def _key(path: str, mode: str) -> str:
    """Name of an image's boxes: of its content and of all that the search depends on."""
    digest = hashlib.sha256(f"{VERSION} {mode} {LONG_SIDE}\n".encode())
    try:
        digest.update(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise ProposalError(f"{path} cannot be searched for objects ({first_line(error)})") from None
    return digest.hexdigest()[:32]


def _search_all(missing: dict[pathlib.Path, str], mode: str, processes: int, total: int) -> None:
    """Computes these files of the cache."""
    selective_search.import_opencv()  # says what is missing before processes start
    context = multiprocessing.get_context("spawn")  # a fork of a process with TensorFlow's threads may hang
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
                "a process of the selective search died, most likely for want of memory; run it again with fewer "
                "processes: what is done is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _cached(file: pathlib.Path) -> np.ndarray:
    try:
        with np.load(file) as content:
            return content["boxes"]
    except Exception as error:  # NumPy and zipfile raise nearly anything on a damaged file
        raise ProposalError(f"{file} is damaged ({first_line(error)}): remove it, and it is computed again") from None


def read_proposals(
    file: str | os.PathLike, ids: Sequence[str], sizes: np.ndarray, max_boxes: int = MAX_BOXES
) -> tuple[np.ndarray, ...]:
    """Proposals that somebody else made.

    Args:
      file: an .npz (`numpy.savez`) that holds, under the id of each image, its boxes: numbers [n, 4], n >= 1, in the
        convention of this module, the best first. It may hold further images.
      ids: of the N images.
      sizes: int [N, 2], their height and width.
      max_boxes: of an image the first so many are taken.

    Returns:
      float32 [n, 4] of each image.

    Raises:
      ProposalError: no such file, no boxes for an image, or boxes outside of their image or without area.

    Example:
      >>> np.savez("proposals.npz", **{"000005": np.array([[0, 0, 120, 200], [30, 40, 90, 110]])})
      >>> read_proposals("proposals.npz", ["000005"], np.array([[375, 500]]))[0].shape
      (2, 4)
    """
    try:
        with np.load(file) as content:
            known = set(content.files)
            lacking = [name for name in ids if name not in known]
            if lacking:
                raise ProposalError(f"{file} holds no proposals for image {lacking[0]!r} and {len(lacking) - 1} others")
            boxes = [content[name] for name in ids]
    except ProposalError:
        raise
    except Exception as error:  # NumPy and zipfile raise nearly anything on what is no .npz
        raise ProposalError(f"{file} should be an .npz of proposals, ids to boxes ({first_line(error)})") from None
    return tuple(
        _checked(one, size, f"{file}, image {name!r}")[:max_boxes]
        for one, size, name in zip(boxes, sizes, ids, strict=True)
    )


def _checked(boxes: np.ndarray, size: np.ndarray, where: str) -> np.ndarray:
    """Boxes of a file as float32 [n, 4], cut to their image."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or boxes.dtype.kind not in "iuf":
        raise ProposalError(f"{where}: boxes should be numbers [n, 4]. Received: {boxes.dtype} {list(boxes.shape)}")
    boxes, limits = boxes.astype(np.float32), np.tile(size, 2)
    inside = (boxes >= -TOLERANCE) & (boxes <= limits + TOLERANCE)
    cut = np.clip(boxes, 0, limits)
    good = inside.all(axis=1) & (cut[:, 2:] > cut[:, :2]).all(axis=1)
    if not good.all():
        index = int(good.argmin())
        values = ", ".join(f"{value:g}" for value in boxes[index])
        raise ProposalError(
            f"{where}: a box should lie within its {size[1]}x{size[0]} image and have an area. "
            f"Received: ymin, xmin, ymax, xmax = {values}"
        )
    return cut.astype(np.float32)


def recall(proposals: Sequence[np.ndarray], objects: Sequence[Any], threshold: float = 0.5) -> float:
    """Share of the true objects that a proposal covers: no detector on these proposals finds more.

    Args:
      proposals: [n, 4] of each image.
      objects: of each image, with `boxes` and `difficult` (`experiments.voc.data.dataset.Objects`).
      threshold: least intersection over union of an object and a proposal.

    Returns:
      In [0, 1], over all objects that are not difficult; nan where there are none.
    """
    best = [
        box_iou(one.boxes[~one.difficult], boxes).max(axis=1, initial=0)
        for boxes, one in zip(proposals, objects, strict=True)
    ]
    covered = np.concatenate(best) >= threshold
    return float(covered.mean()) if len(covered) else float("nan")
