"""Images in TensorBoard's embedding projector, with labels or without.

tensorboard --logdir=OUTPUT/tensorboard
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorboard.plugins.projector import ProjectorConfig, visualize_embeddings

from experiments.probing import features
from lts import data
from lts.config import ImageConfig
from lts.utils.outputs import OutputFolder
from lts.utils.text import printable
from lts.visualization.montage import montage

FOLDER = "tensorboard"
THUMBNAIL = 32  # pixels a side
LARGEST_SPRITE = 8192  # pixels a side that the projector loads
CONFIG = "projector_config.pbtxt"
NO_LABEL = "no label"
PROJECTOR = OutputFolder(
    marker=CONFIG, names=(CONFIG, "features.tsv", "metadata.tsv", "sprite.png", "events.out.tfevents.*")
)


def write(
    model, layers: Sequence[str], source, output: str | os.PathLike, images: int = 1000, batch_size: int = 100
) -> None:
    """Write OUTPUT/tensorboard atomically.

    The folder holds features.tsv, metadata.tsv, sprite.png and the projector's configuration. A point is the spatial
    mean of the deepest of `layers`. Its label is the class, or the image's name where no image has a label. Its picture
    is a thumbnail.

    Args:
      model: a loaded SavedModel.
      layers: names of layers of the model.
      source: images, of which at most `images` and at most 65,536 are shown, see `choose`.
      output: folder of the probe.
      images: number of images to show; 0 writes nothing.
      batch_size: images in one forward pass; changes only the speed.

    Raises:
      OutputError: OUTPUT/tensorboard holds something else.
      ProbeError: features are not finite.
    """
    if images == 0:
        return
    check(output)
    folder = pathlib.Path(output) / FOLDER
    layer = max(layers, key=list(model.layers).index)
    images = min(images, source.num_examples, (LARGEST_SPRITE // THUMBNAIL) ** 2)
    rows = evenly_spaced(source.num_examples, images) if source.labels is None else choose(source.labels, images)
    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    batches = data.test_batches(Chosen(source, rows), image, batch_size=batch_size)
    title = f"{model.path}: {layer} for the projector"
    # Pooled to one cell: the spatial mean.
    points = features.extract(model, batches, len(rows), [layer], dimensions=1, title=title)[layer]
    tiles = np.concatenate([thumbnails(batch) for batch in batches])
    # A tab in a name would start another column.
    names = [printable(" ".join(name.split())) for name in point_names(source, rows)]
    with PROJECTOR.write(folder) as partial:
        partial.mkdir()
        # Nine digits: every float32 is read back exactly.
        np.savetxt(partial / "features.tsv", points, fmt="%.9g", delimiter="\t")
        (partial / "metadata.tsv").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (partial / "sprite.png").write_bytes(tf.io.encode_png(sprite(tiles)).numpy())
        visualize_embeddings(str(partial), _config(layer, tiles.shape[1]))
        # NB: without an event file TensorBoard does not find the folder below a --logdir of several runs.
        tf.summary.create_file_writer(str(partial)).close()


def check(output: str | os.PathLike) -> None:
    """Raise `OutputError` if OUTPUT/tensorboard holds something else."""
    PROJECTOR.check(pathlib.Path(output) / FOLDER)


def point_names(source, rows: np.ndarray) -> list[str]:
    """Return the classes of images, or their names where no image has a label."""
    if source.labels is None:
        return [source.names[row] for row in rows]
    return [source.class_names[label] if label >= 0 else NO_LABEL for label in source.labels[rows]]


def evenly_spaced(images: int, count: int) -> np.ndarray:
    """Return `count` of the numbers below `images`, evenly spaced: int [count], at most `images` of them."""
    return np.linspace(0, images, min(count, images), endpoint=False).astype(int)


def choose(labels: np.ndarray, images: int) -> np.ndarray:
    """Choose the images to show.

    These are the first of each class, and others that are evenly spaced over the set sorted by class.

    Args:
      labels: int [N], -1 for an image without a label.
      images: number to choose; at most N are chosen.

    Returns:
      int [min(images, N)], ascending. Every class is contained, unless there are more classes than `images`.

    Example:
      >>> choose(np.array([0, 1, 0, 1, 0, 1, 0, 1]), 4)
      array([0, 1, 2, 3])
    """
    first = np.unique(labels, return_index=True)[1][:images]
    others = np.argsort(labels, kind="stable")
    others = others[~np.isin(others, first)]
    missing = min(images, len(labels)) - len(first)
    return np.sort(np.concatenate([first, others[evenly_spaced(len(others), missing)]]))


def thumbnails(images: tf.Tensor) -> np.ndarray:
    """Shrink uint8 [B, s, s, 3] to at most THUMBNAIL pixels per side."""
    size = min(images.shape[1], THUMBNAIL)
    return tf.cast(tf.round(tf.image.resize(images, [size, size], "area")), tf.uint8).numpy()


def sprite(tiles: np.ndarray) -> np.ndarray:
    """Return all thumbnails as one square picture.

    Args:
      tiles: uint8 [N, t, t, 3].

    Returns:
      uint8 [g * t, g * t, 3], row by row, padded with black; g is the smallest number with g * g >= N.
    """
    side = int(np.ceil(np.sqrt(len(tiles))))
    padded = np.pad(tiles, ((0, side * side - len(tiles)), (0, 0), (0, 0), (0, 0)))
    return montage(padded, side)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Rows of a data set, with what `data.test_batches` needs of one."""

    source: data.ImageDataset
    rows: np.ndarray

    @property
    def num_examples(self) -> int:
        return len(self.rows)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        return self.source.read(tf.constant(self.rows)[index])


def _config(layer: str, thumbnail: int) -> ProjectorConfig:
    """Return the projector's configuration."""
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=layer, tensor_path="features.tsv", metadata_path="metadata.tsv")
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend([thumbnail, thumbnail])
    return config
