"""Test images in TensorBoard's embedding projector: a point for each, where the features of one layer put it.

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
from experiments.probing.features import ProbeError
from lts import data
from lts.config import ImageConfig
from lts.utils import files
from lts.visualization.montage import montage

FOLDER = "tensorboard"
THUMBNAIL = 32  # pixels a side
LARGEST_SPRITE = 8192  # pixels a side that the projector loads
CONFIG = "projector_config.pbtxt"


def write(
    model, layers: Sequence[str], source, output: str | os.PathLike, images: int = 1000, batch_size: int = 100
) -> None:
    """Writes OUTPUT/tensorboard, whole or not at all: features.tsv, metadata.tsv, sprite.png and the file that
    tells the projector of them.

    A point is the spatial mean of the deepest of `layers`; its label is the class, its picture a thumbnail. An event
    file is there too: without one TensorBoard would not find the folder below a --logdir of several runs.

    Args:
      model: a loaded SavedModel.
      layers: names of layers of the model.
      source: labelled images; at most `images` of them are shown (and at most 65,536), see `choose`.
      output: folder of the probe.
      images: how many to show; 0 writes nothing.
      batch_size: images in one forward pass; changes nothing but speed.

    Raises:
      ProbeError: OUTPUT/tensorboard holds something else; features that are not finite.
    """
    if images == 0:
        return
    folder = pathlib.Path(output) / FOLDER
    if folder.exists() and not (folder / CONFIG).exists():
        raise ProbeError(f"{folder} exists and holds no projector: give another --output or remove it")
    layer = max(layers, key=list(model.layers).index)
    rows = choose(source.labels, min(images, (LARGEST_SPRITE // THUMBNAIL) ** 2))
    image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    batches = data.test_batches(_Chosen(source, rows), image, batch_size=batch_size)
    title = f"{model.path}: {layer} for the projector"
    points = features.extract(model, batches, len(rows), [layer], dimensions=1, title=title)[layer]  # spatial mean
    tiles = np.concatenate([thumbnails(batch) for batch in batches])
    names = [" ".join(source.class_names[label].split()) for label in source.labels[rows]]  # a tab would be a column
    with files.atomic_write(folder) as beside:
        beside.mkdir()
        np.savetxt(beside / "features.tsv", points, fmt="%.9g", delimiter="\t")  # 9 digits: every float32 comes back
        (beside / "metadata.tsv").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        (beside / "sprite.png").write_bytes(tf.io.encode_png(sprite(tiles)).numpy())
        visualize_embeddings(str(beside), _config(layer, tiles.shape[1]))
        tf.summary.create_file_writer(str(beside)).close()


def choose(labels: np.ndarray, images: int) -> np.ndarray:
    """Which images are shown: the first of each class, and others evenly spaced over the set sorted by class.

    Args:
      labels: int [N].
      images: how many to choose; all N where there are fewer.

    Returns:
      int [min(images, N)], ascending: every class is there, unless there are more classes than `images`.

    Example:
      >>> choose(np.array([0, 1, 0, 1, 0, 1, 0, 1]), 4)
      array([0, 1, 2, 3])
    """
    first = np.unique(labels, return_index=True)[1][:images]
    others = np.argsort(labels, kind="stable")
    others = others[~np.isin(others, first)]
    wanted = min(images, len(labels)) - len(first)
    return np.sort(np.concatenate([first, others[np.linspace(0, len(others), wanted, endpoint=False).astype(int)]]))


def thumbnails(images: tf.Tensor) -> np.ndarray:
    """Images made small by averaging areas: uint8 [B, s, s, 3] becomes [B, t, t, 3], t = min(s, THUMBNAIL)."""
    size = min(images.shape[1], THUMBNAIL)
    return tf.cast(tf.round(tf.image.resize(images, [size, size], "area")), tf.uint8).numpy()


def sprite(tiles: np.ndarray) -> np.ndarray:
    """All thumbnails in one square picture, row by row, black where there are none left.

    Args:
      tiles: uint8 [N, t, t, 3].

    Returns:
      uint8 [g * t, g * t, 3], g the smallest number with g * g >= N.
    """
    side = int(np.ceil(np.sqrt(len(tiles))))
    padded = np.pad(tiles, ((0, side * side - len(tiles)), (0, 0), (0, 0), (0, 0)))
    return montage(padded, side)


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """Rows of a source, as `data.test_batches` takes a source."""

    source: data.ImageDataset
    rows: np.ndarray

    @property
    def num_examples(self) -> int:
        return len(self.rows)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        return self.source.read(tf.constant(self.rows)[index])


def _config(layer: str, thumbnail: int) -> ProjectorConfig:
    """What names the files of the folder and the size of a thumbnail."""
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=layer, tensor_path="features.tsv", metadata_path="metadata.tsv")
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend([thumbnail, thumbnail])
    return config
