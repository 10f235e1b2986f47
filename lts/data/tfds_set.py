"""Image sets of TensorFlow Datasets, by name."""

import contextlib
import difflib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lts.data.splits import resolve
from lts.data.store import LABELLED, DataError, ImageIndex
from lts.utils.errors import first_line

DEFAULT_SPLITS = {  # by role, the first one that the set has; `tfds:stl10` is the release's data
    "pretrain": ("unlabelled", "train"),
    "train": ("train",),
    "test": ("test", "validation"),
    "features": ("all",),
}


def list_tfds(name: str, split: str | None, role: str, data_dir: str | None) -> tuple[ImageIndex, str]:
    """Finds the images of a set of TensorFlow Datasets, downloading and preparing it where that was not done yet.

    Args:
      name: as `tfds.builder` takes it: "stl10", "name/config:version".
      split: which images, as tfds writes it; None: the role's own split (`DEFAULT_SPLITS`).
      role: see `lts.data.store.PURPOSES`.
      data_dir: folder of the prepared sets; None: that of tfds.

    Returns:
      The images, and the split that was chosen.

    Raises:
      DataError: no such set or split, no network, no images in it, or no labels where they are needed.
    """
    where = f"tfds:{name}"
    builder = prepared_builder(name, data_dir)
    image_key, label_key = _keys(builder, where)
    counts = {key: info.num_examples for key, info in builder.info.splits.items()}
    split = split or next((key for key in DEFAULT_SPLITS[role] if key in counts), DEFAULT_SPLITS[role][0])
    pieces = resolve(split, counts, where)
    names = tuple(f"{where} {key}[{index}]" for key, start, stop in pieces for index in range(start, stop))
    selection = "+".join(f"{key}[{start}:{stop}]" for key, start, stop in pieces)

    def dataset() -> tf.data.Dataset:
        return examples(builder, selection, [image_key]).map(lambda example: example[image_key])

    def items() -> Iterator[bytes]:
        return dataset().as_numpy_iterator()

    labels = None
    if label_key:
        rows = examples(builder, selection, [label_key]).as_numpy_iterator()
        labels = np.array([example[label_key] for example in rows], np.int64)
        if labels.max() < 0 or (labels.min() < 0 and role != "features"):  # the unlabelled split of STL-10 says -1
            labels = None
    if labels is None and role in LABELLED:
        raise DataError(f"{where} has no labels for split {split!r}")
    class_names = ()
    if labels is not None:
        known = getattr(builder.info.features[label_key], "names", None)
        class_names = tuple(known or map(str, range(labels.max() + 1)))
    paths = lambda: unpack(builder, selection, items())  # noqa: E731
    return ImageIndex(names, labels, class_names, items, dataset, False, paths), split


def prepared_builder(name: str, data_dir: str | None) -> Any:
    """The builder of a set whose data are on this machine, downloaded and prepared where that was not done yet.

    Args:
      name: as `tfds.builder` takes it.
      data_dir: folder of the prepared sets; None: that of tfds.

    Raises:
      DataError: no such set, or no way to get its data.
    """
    import tensorflow_datasets as tfds  # slow to import

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # unknown names, versions and configurations raise nearly anything
        plain = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(plain, known, n=3)
        if plain in known:
            reason = first_line(error)
        else:
            reason = f"no such set in TensorFlow Datasets{'; close names: ' + ', '.join(close) if close else ''}"
        raise DataError(f"tfds:{name}: {reason}") from None
    try:
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksums, missing packages, manual downloads: whatever it was
        raise DataError(
            f"tfds:{name} is not in {builder.data_dir} and could not be downloaded and prepared "
            f"({type(error).__name__}: {first_line(error)}); prepare it where there is a network, and copy that folder"
        ) from None
    return builder


def _keys(builder: Any, where: str) -> tuple[str, str | None]:
    """Names of the features that hold the image and its label."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not images:
        raise DataError(f"{where} holds no images; its features are {', '.join(features)}")
    image_key = "image" if "image" in images else images[0]
    if features[image_key].np_dtype != np.uint8:
        raise DataError(f"{where} holds images of {features[image_key].np_dtype.__name__}, not of bytes (uint8)")
    label = features.get("label")
    has_label = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    return image_key, "label" if has_label else None


def examples(builder: Any, selection: str, keys: list[str]) -> tf.data.Dataset:
    """Examples in their order, with these features alone, images still encoded.

    Args:
      builder: from `prepared_builder`.
      selection: which examples, as tfds writes it.
      keys: names of the features.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    encoded = {key: tfds.decode.SkipDecoding() for key in keys if isinstance(features[key], tfds.features.Image)}
    return builder.as_dataset(
        split=selection,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(keys, True), decoders=encoded),
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def unpack(builder: Any, selection: str, items: Iterator[bytes]) -> list[str]:
    """Writes every encoded image to a file of its own, once; the folder gets its name only when it is whole.

    Args:
      builder: of the set; the files lie in its folder.
      selection: which examples, as tfds writes it.
      items: their encoded images.

    Returns:
      The files, in the order of the examples.
    """
    folder = os.path.join(builder.data_dir, "unpacked", hashlib.sha256(selection.encode()).hexdigest()[:16])
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        draft = tempfile.mkdtemp(prefix=".unpacking-", dir=os.path.dirname(folder))
        try:
            for index, item in enumerate(items):
                pathlib.Path(draft, f"{index:08d}").write_bytes(item)
            with contextlib.suppress(FileExistsError):
                os.rename(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return sorted(str(path) for path in pathlib.Path(folder).iterdir())
