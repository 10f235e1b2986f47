"""Online evaluation: the quality of features while they are trained (ours).

The features are those of an export without further processing: one layer, averaged over its map, with inference batch
norm. Nothing is trained on them, and an evaluation changes no variable and draws no random number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from threadpoolctl import ThreadpoolController

from lts import data
from lts.config import Config, ImageConfig
from lts.config.stages import STAGES
from lts.data.splits import may_overlap
from lts.export.choices import best_layer
from lts.export.pooling import pool
from lts.utils import representation
from lts.utils.text import warn

DEFAULT_IMAGES = 768  # most images where none were chosen; lts/README.md states their cost
BATCH = 128  # images per call of the network
VIEW_SEEDS = (0, 1)  # of the two augmented views; the same in every run, so that runs can be compared


@dataclasses.dataclass(frozen=True)
class EvaluationImages:
    """Fixed images of an online evaluation, of any type that the network takes.

    Attributes:
      images: [n, H, W, 3].
      labels: int [n], -1 for an image without a label; None: no labels.
      views: two augmented views of the images, [n, H, W, 3] each; None: no alignment.
      dataset: name of their data set; None: not known.
      split: of the data set; None: not known.

    Raises:
      DataError: fewer than two images, another number of labels or views, or labels that are no vector of integers.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    views: tuple[np.ndarray, np.ndarray] | None = None
    dataset: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if len(getattr(self.images, "shape", ())) != 4:
            received = f"images of type {type(self.images).__name__}"
            raise data.DataError(f"images must be an array or a tensor [n, H, W, 3]. Received: {received}.")
        count = len(self.images)
        if count < 2:
            raise data.DataError(f"an online evaluation needs two images at least. Received: {count}. Give more.")
        # NB: a column [n, 1], as the data sets of Keras have it, would be compared with every image.
        if self.labels is not None and (self.labels.ndim != 1 or self.labels.dtype.kind not in "iu"):
            received = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise data.DataError(
                f"labels must be integers [n]. Received: {received}. Give labels[:, 0] of a column, and the argmax of "
                "one-hot rows."
            )
        views = () if self.views is None else self.views
        if len(views) not in (0, len(VIEW_SEEDS)):
            raise data.DataError(f"there must be two views of the images. Received: {len(views)}.")
        for values in (self.labels, *views):
            if values is not None and len(values) != count:
                received = f"{len(values)} for {count} images"
                raise data.DataError(f"there must be one label and one of each view per image. Received: {received}.")

    @classmethod
    def of_dataset(cls, source: data.ImageDataset, image: ImageConfig, limit: int | None = None):
        """Return the test views and two training views of a data set's first images, as uint8.

        Args:
          source: the images, with their labels.
          image: size and augmentation.
          limit: number of images to take from the beginning; None: all.
        """
        images = _concatenated(data.test_batches(source, image, batch_size=BATCH, limit=limit))
        views = []
        for seed in VIEW_SEEDS:
            batches = data.augmented_batches(source, image, batch_size=BATCH, seed=seed, limit=limit)
            views.append(_concatenated(batches.map(data.as_bytes)))
        labels = None if source.labels is None else source.labels[: len(images)]
        return cls(images, labels, tuple(views), source.name, source.split)


class OnlineEvaluation:
    """Quality of a network's features on fixed images.

    Args:
      features: maps a batch of the images to maps [B, h, w, channels] or vectors [B, channels].
      images: the images.
    """

    def __init__(self, features: Callable[[np.ndarray], Any], images: EvaluationImages):
        self.features = features
        self.images = images

    def evaluate(self) -> dict[str, float]:
        """Return the values by name.

        Returns:
          `probe_knn_accuracy` if there are labels, `probe_rank`, `probe_alignment` if there are views, and
          `probe_uniformity`, see `lts.utils.representation`. Empty if a feature is not finite, with a warning.
        """
        features = self._compute(self.images.images)
        views = [] if self.images.views is None else [self._compute(view) for view in self.images.views]
        if not all(np.isfinite(values).all() for values in (features, *views)):
            warn("the online evaluation was skipped, because features are not finite")
            return {}
        # On busy cores BLAS threads wait for each other: up to ten times slower than one thread.
        with ThreadpoolController().limit(limits=1, user_api="blas"):
            return self._measure(features, views)

    def _measure(self, features: np.ndarray, views: list[np.ndarray]) -> dict[str, float]:
        """Return the values of `evaluate`."""
        values = {}
        labels = self.images.labels
        labelled = np.flatnonzero(labels >= 0) if labels is not None else ()
        if len(labelled) > 1:
            values["probe_knn_accuracy"] = representation.knn_accuracy(features[labelled], labels[labelled])
        values["probe_rank"] = representation.effective_rank(features)
        if views:
            values["probe_alignment"] = representation.alignment(*views)
        values["probe_uniformity"] = representation.uniformity(features)
        return values

    def _compute(self, images: np.ndarray) -> np.ndarray:
        """Return the features [n, channels] of images, in batches.

        Raises:
          DataError: the features are neither maps nor vectors, or not one per image.
        """
        batches = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            values = tf.cast(self.features(batch), tf.float32)
            if values.shape.rank not in (2, 4) or len(values) != len(batch):
                raise data.DataError(
                    "features of an online evaluation must be maps [B, h, w, channels] or vectors [B, channels]. "
                    f"Received: {list(values.shape)} for {len(batch)} images."
                )
            if values.shape.rank == 4:
                values = pool(values, "avg")
            batches.append(values.numpy())
        return np.concatenate(batches)


def exported_features(model: keras.Model, config: Config, stage: str) -> Callable[[np.ndarray], tf.Tensor]:
    """Return the default layer of the network that a stage exports.

    Args:
      model: of the stage.
      config: of the run.
      stage: a key of `STAGES`.

    Returns:
      A map of images, uint8 [B, H, W, 3], to features [B, channels].
    """
    kind = STAGES[stage]
    network = getattr(model, kind.network)
    layers = network if kind.layers == "encoder" else network.backbone
    layer = best_layer(layers.layer_names, config.discriminator.backbone, stage)
    size = config.image.image_size

    # One trace serves all batches, the smaller last one included.
    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)])
    def features(images):
        endpoints = layers.endpoints(data.as_signed(images), training=False, last=layer)
        return pool(tf.cast(endpoints[layer], tf.float32), "avg")

    return features


def of_run(
    model: keras.Model,
    config: Config,
    stage: str,
    source: data.ImageDataset,
    images: EvaluationImages | None,
    steps: int,
) -> OnlineEvaluation:
    """Return the evaluation of a run, and print what it uses.

    Args:
      model: of the stage.
      config: of the run.
      stage: a key of `STAGES`.
      source: training images.
      images: of the evaluation; None: the first of `source`, without labels.
      steps: between two evaluations.
    """
    if images is None:
        # NB: labels of the training images may be those of test images, which must decide nothing.
        unlabelled = dataclasses.replace(source, labels=None)
        images = EvaluationImages.of_dataset(unlabelled, config.image, limit=DEFAULT_IMAGES)
    place = f" of split {images.split}" if images.split else ""
    labels = "without labels" if images.labels is None else f"{len(set(images.labels[images.labels >= 0]))} classes"
    shared = images.dataset is None or may_overlap(source.name, source.split, images.dataset, images.split)
    use = "training may use them, too; --probe_split names others" if shared else "not used by the training"
    print(
        f"{stage}: online evaluation every {steps:,} steps on {len(images.images):,} images{place}, {labels} ({use})",
        flush=True,
    )
    return OnlineEvaluation(exported_features(model, config, stage), images)


def _concatenated(batches: tf.data.Dataset) -> np.ndarray:
    return np.concatenate(list(batches.as_numpy_iterator()))
