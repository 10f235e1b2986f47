"""Split specifications, read as TensorFlow Datasets reads them.

All kinds of datasets resolve `--split` here: names, sums and slices.
"""

import itertools
import os
import pathlib
import re
from collections.abc import Mapping

from lts.data.held_out import HELD_OUT, REST
from lts.data.store import DataError

ALL = "_all_"  # replaces the word `all`, which tfds does not slice
LOOSE = ""  # images outside of every split: they belong to `all` only


def resolve(split: str, counts: Mapping[str, int], where: str) -> list[tuple[str, int, int]]:
    """Return the examples that a split specification selects.

    Args:
      split: for example "unlabelled+train", "train[:80%]" or "all[100:]".
      counts: number of examples by split; `all` is their concatenation in this order.
      where: name of the dataset in messages.

    Returns:
      (name, start, stop) of each selected range, in order.

    Raises:
      DataError: unknown split, invalid specification, an empty selection, or one with an example twice.

    Example:
      >>> resolve("a[1:]+b", {"a": 3, "b": 2}, "folder:x")
      [('a', 1, 3), ('b', 0, 2)]
    """
    import tensorflow_datasets as tfds  # slow to import

    total = sum(counts.values())
    sizes = {**counts, "all": total}
    for part in split.split("+"):
        name = part.split("[")[0].strip()
        if name not in sizes:
            known = ", ".join(f"{key} ({count})" for key, count in sizes.items() if key != LOOSE)
            raise DataError(f"{where} has no split {name!r}. Received: split={split!r}. Choose from {known}.")

    if re.search(r"\[[^\]]*shard", split):
        raise DataError(f"splits are cut by images or %, not by shards. Received: split={split!r}.")

    # tfds does the arithmetic. It knows `all` as one more split under another name.
    sizes[ALL] = total
    aliased = re.sub(r"(^|\+)(\s*)all(?![\w-])", rf"\1\2{ALL}", split)
    infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0) for name, count in sizes.items()}
    try:
        instructions = tfds.core.ReadInstruction.from_spec(aliased).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[-1].replace(ALL, "all")
        raise DataError(f"{where} cannot be split: {reason}. Received: split={split!r}.") from None

    # A range of `all` is cut at the borders of the splits.
    pieces = []
    for part in instructions:
        start = part.from_ or 0
        stop = sizes[part.splitname] if part.to is None else part.to
        spans = counts if part.splitname == ALL else {part.splitname: sizes[part.splitname]}
        for name, count in spans.items():
            if max(start, 0) < min(stop, count):
                pieces.append((name, max(start, 0), min(stop, count)))
            start -= count
            stop -= count
    if not pieces:
        raise DataError(f"the split selects no images of {where}. Received: split={split!r}.")
    # NB: an image that counts twice makes intervals too narrow, and may be held out and trained on.
    if any(_share_examples(*pair) for pair in itertools.combinations(pieces, 2)):
        raise DataError(f"the split selects images of {where} twice. Received: split={split!r}. Name each image once.")
    return pieces


def _share_examples(piece: tuple[str, int, int], other: tuple[str, int, int]) -> bool:
    """Return whether two ranges of `resolve` have an example in common."""
    name, start, stop = piece
    other_name, other_start, other_stop = other
    return name == other_name and max(start, other_start) < min(stop, other_stop)


def may_overlap(dataset: str, split: str, other_dataset: str, other_split: str) -> bool:
    """Return whether two selections may share images.

    Names and real paths are compared, not images. A folder overlaps with the folders below it. Copies of images in
    other folders are not found.

    Example:
      >>> may_overlap("tfds:stl10", "unlabelled+train", "tfds:stl10", "test")
      False
      >>> may_overlap("folder:photos", "all", "folder:photos/test", "all")
      True
    """
    for place, span in _places(dataset, split):
        for other_place, other_span in _places(other_dataset, other_split):
            shared = min(len(place), len(other_place))
            if place[:shared] != other_place[:shared]:
                continue
            # Slices are comparable only if they cut the same images.
            if place != other_place or _spans_meet(span, other_span):
                return True
    return False


def _places(dataset: str, split: str) -> list[tuple[tuple[str, ...], str]]:
    """Return the place and the slice of each part of a split, such as (("synthetic", "train"), ":80%")."""
    kind, _, rest = dataset.partition(":")
    places = []
    for part in split.split("+"):
        name, _, span = part.strip().partition("[")
        if kind == "folder":
            # Splits are folders, and two paths may lead to one folder.
            path = os.path.realpath(os.path.join(rest, "" if name == "all" else name))
            place = pathlib.PurePath(path).parts
        else:
            # The version of a set changes few of its images.
            builder = re.sub(r"[:/]\d[\d.*]*\.[\d*]+$", "", dataset)
            place = (builder,) if name == "all" else (builder, name)
        places.append((place, span.rstrip("]")))
    return places


def _spans_meet(span: str, other: str) -> bool:
    """Return whether slices of the same images may overlap; an empty one holds all images."""
    if {f"[{span}]", f"[{other}]"} == {HELD_OUT, REST}:
        return False
    bounds = _bounds(span)
    other_bounds = _bounds(other)
    if bounds is None or other_bounds is None or bounds[2] != other_bounds[2]:
        return True  # counts and percentages cannot be compared without the number of images
    start, stop, _ = bounds
    other_start, other_stop, _ = other_bounds
    return max(start, other_start) < min(stop, other_stop)


def _bounds(span: str) -> tuple[float, float, bool] | None:
    """Return start, stop and whether they are percentages; None: not known."""
    match = re.fullmatch(r"\s*(\d*)(%?)\s*:\s*(\d*)(%?)\s*", span)
    if not match:
        return None
    start, percent, stop, stop_percent = match.groups()
    return float(start or 0), float(stop or "inf"), bool(percent or stop_percent)
