"""Image sets of TensorFlow Datasets (tfds)."""

import contextlib
import difflib
import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from lts.data.held_out import default_split, hold_out
from lts.data.splits import resolve
from lts.data.store import LABELLED, DataError, ImageIndex
from lts.utils import files
from lts.utils.errors import first_line

# By role, the first split that the set has. `tfds:stl10` is the release's data. Labelled roles take `default_split`.
DEFAULT_SPLITS = {"pretrain": ("unlabelled", "train"), "features": ("all",)}
FILES_PER_FOLDER = 1000  # of unpacked images


def list_tfds(name: str, split: str | None, role: str, data_dir: str | None) -> tuple[ImageIndex, str]:
    """Return the images of a tfds set.

    Downloads and prepares the set first if necessary.

    Args:
      name: as `tfds.builder` takes it: "stl10" or "name/config:version".
      split: as tfds writes it; None: the first of `DEFAULT_SPLITS` that exists, or `held_out.default_split`.
      role: see `lts.data.store.ROLES`.
      data_dir: folder of the prepared sets; None: the default of tfds.

    Returns:
      The images, and the resolved split.

    Raises:
      DataError: no such set or split, no network, no images, or no labels where they are needed.
    """
    where = f"tfds:{name}"
    builder = prepared_builder(name, data_dir)
    image_key, label_key = _keys(builder, where)
    counts = {key: info.num_examples for key, info in builder.info.splits.items()}
    divides = False
    if not split:
        if role in LABELLED:
            split, divides = default_split(role, counts)
        else:
            existing = [key for key in DEFAULT_SPLITS[role] if key in counts]
            split = str(existing[0] if existing else DEFAULT_SPLITS[role][0])
    pieces = resolve(split, counts, where)
    selection = "+".join(f"{key}[{start}:{stop}]" for key, start, stop in pieces)
    names = []
    for key, start, stop in pieces:
        names += [f"{where} {key}[{index}]" for index in range(start, stop)]

    def images() -> tf.data.Dataset:
        return examples(builder, selection, [image_key]).map(lambda example: example[image_key])

    labels = None
    class_names = ()
    if label_key:
        rows = examples(builder, selection, [label_key]).as_numpy_iterator()
        labels = np.array([row[label_key] for row in rows], np.int64)
        # The unlabelled split of STL-10 has the label -1 everywhere.
        if labels.max() < 0 or (labels.min() < 0 and role in LABELLED):
            labels = None
    if labels is None and role in LABELLED:
        raise DataError(f"{where} has no labels for this split. Received: split={split!r}. Give a labelled one.")
    if labels is not None:
        declared = getattr(builder.info.features[label_key], "names", None)
        class_names = tuple(declared or map(str, range(labels.max() + 1)))
    paths = lambda: unpack(builder.data_dir, selection, images().as_numpy_iterator())  # noqa: E731
    index = ImageIndex(tuple(names), labels, class_names, images, in_files=False, paths=paths)
    return hold_out(index, split, role) if divides else (index, split)


def prepared_builder(name: str, data_dir: str | None) -> Any:
    """Return the builder of a prepared set.

    Downloads and prepares the set first if necessary. The arguments are those of `list_tfds`.

    Raises:
      DataError: no such set, or its data cannot be downloaded and prepared.
    """
    import tensorflow_datasets as tfds  # slow to import

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # unknown names, versions and configurations raise nearly any type
        plain = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        reason = first_line(error)
        if plain not in known:
            close = ", ".join(difflib.get_close_matches(plain, known, n=3))
            reason = "no such set in TensorFlow Datasets" + (f"; close names: {close}" if close else "")
        raise DataError(f"tfds:{name}: {reason}. Received: dataset=tfds:{name}.") from None
    try:
        builder.download_and_prepare()
    except Exception as error:  # network, disk, checksums, missing packages, manual downloads
        raise DataError(
            f"tfds:{name} could not be downloaded and prepared ({type(error).__name__}: {first_line(error)}). "
            f"Received: data_dir={builder.data_dir}. Prepare it on a machine with a network, and copy that folder."
        ) from None
    return builder


def _keys(builder: Any, where: str) -> tuple[str, str | None]:
    """Return the names of image and label feature."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image_keys = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not image_keys:
        raise DataError(f"{where} holds no images. Received: features {', '.join(features)}.")
    image_key = "image" if "image" in image_keys else image_keys[0]
    dtype = features[image_key].np_dtype
    if dtype != np.uint8:
        raise DataError(f"{where} must hold uint8 images. Received: {dtype.__name__} images.")
    label = features.get("label")
    has_label = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    return image_key, "label" if has_label else None


def examples(builder: Any, selection: str, keys: list[str]) -> tf.data.Dataset:
    """Return features `keys` of the selected examples; images stay encoded."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    encoded: Any = {key: tfds.decode.SkipDecoding() for key in keys if isinstance(features[key], tfds.features.Image)}
    return builder.as_dataset(
        split=selection,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(keys, True), decoders=encoded),
        # NB: reading several files in turn would change the order of the examples.
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def unpack(data_dir: str | os.PathLike, selection: str, images: Iterable[Any]) -> list[str]:
    """Write every encoded image to a file, once.

    Training needs random access, and the TFRecord files of tfds have none. Example 1234 of the selection becomes
    unpacked/SELECTION/00001/00001234. A folder holds at most 1,000 files, because many file systems and tools fail on
    one folder of 1.28 million files (ImageNet).

    Returns:
      The files, in the order of the examples.
    """
    folder = pathlib.Path(data_dir, "unpacked", hashlib.sha256(selection.encode()).hexdigest()[:16])
    if not folder.is_dir():
        # Another process may unpack the same images in the meantime. The first one wins: its files may be open.
        with contextlib.suppress(FileExistsError), files.atomic_write(folder) as draft:
            for index, image in enumerate(images):
                path = draft / f"{index // FILES_PER_FOLDER:05d}" / f"{index:08d}"
                if index % FILES_PER_FOLDER == 0:
                    path.parent.mkdir(parents=True)
                path.write_bytes(image)
            if folder.is_dir():
                raise FileExistsError
    return sorted(str(path) for path in folder.glob("*/*"))
