"""Split specifications, read as TensorFlow Datasets reads them.

All kinds of datasets resolve `--split` here: names, sums and slices.
"""

import re
from collections.abc import Mapping

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
      DataError: unknown split, invalid specification, or an empty selection.

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
    return pieces
