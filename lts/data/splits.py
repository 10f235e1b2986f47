"""The one reading of `--split`: names, sums and slices as TensorFlow Datasets writes them."""

import re
from collections.abc import Mapping

from lts.data.store import DataError

ALL = "_all_"  # stands for tfds' word `all`, which tfds itself does not slice
LOOSE = ""  # images that no split holds: they count for `all` alone


def resolve(split: str, counts: Mapping[str, int], where: str) -> list[tuple[str, int, int]]:
    """Which examples a split specification selects.

    Args:
      split: for instance "unlabelled+train", "train[:80%]", "all[100:]".
      counts: number of examples of each split; `all` is all of them in this order.
      where: how messages name the dataset.

    Returns:
      (name, start, stop) of the pieces, in order.

    Raises:
      DataError: a split that does not exist, a specification that cannot be read, or one that selects nothing.

    Example:
      >>> resolve("a[1:]+b", {"a": 3, "b": 2}, "folder:x")
      [('a', 1, 3), ('b', 0, 2)]
    """
    import tensorflow_datasets as tfds  # slow to import

    total = sum(counts.values())
    for part in split.split("+"):
        name = part.split("[")[0].strip()
        if name not in counts and name != "all":
            known = ", ".join(f"{key} ({count})" for key, count in {**counts, "all": total}.items() if key != LOOSE)
            raise DataError(f"{where} has no split {name!r}; it has {known}")
    sizes = {**counts, ALL: total}
    aliased = re.sub(r"(^|\+)(\s*)all(?![\w-])", rf"\1\2{ALL}", split)
    infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[count], num_bytes=0) for name, count in sizes.items()}
    try:
        absolute = tfds.core.ReadInstruction.from_spec(aliased).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[-1].replace(ALL, "all")
        raise DataError(f"{where} cannot be split as {split!r}: {reason}") from None
    pieces = []
    for part in absolute:
        start, stop = part.from_ or 0, sizes[part.splitname] if part.to is None else part.to
        spans = {part.splitname: sizes[part.splitname]} if part.splitname != ALL else counts
        for name, count in spans.items():
            if max(start, 0) < min(stop, count):
                pieces.append((name, max(start, 0), min(stop, count)))
            start, stop = start - count, stop - count
    if not pieces:
        raise DataError(f"split {split!r} of {where} selects no images")
    return pieces
