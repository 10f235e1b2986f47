"""Callbacks for `fit` of Keras."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lts.training.online_evaluation import EvaluationImages, OnlineEvaluation


class OnlineProbe(keras.callbacks.Callback):
    """Online evaluation of features at the end of every epoch.

    Adds `probe_knn_accuracy`, `probe_rank`, `probe_alignment` and `probe_uniformity` to the logs, see
    `lts.utils.representation`. The progress bar, the history and later callbacks, such as `TensorBoard` and
    `EarlyStopping`, use them like any metric.

    Args:
      features: maps a batch of images to maps [B, h, w, channels] or vectors [B, channels], with inference batch norm.
      images: array or tensor [n, H, W, 3] as `features` takes it. Choose images that the training does not use.
      labels: int [n], -1 for an image without a label; None: no `probe_knn_accuracy`.
      views: two augmented views of the images, each as `images`; None: no `probe_alignment`.

    Example:
      >>> images = np.random.default_rng(0).normal(size=[8, 16, 16, 3]).astype("float32")
      >>> model = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
      >>> model.compile("sgd", "mse")
      >>> probe = OnlineProbe(model, images)
      >>> history = model.fit(images, np.ones([8, 4]), callbacks=[probe], verbose=0).history
      >>> sorted(history)
      ['loss', 'probe_rank', 'probe_uniformity']
    """

    def __init__(
        self,
        features: Callable[[Any], Any],
        images: np.ndarray,
        labels: np.ndarray | None = None,
        views: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        super().__init__()
        labels = None if labels is None else np.asarray(labels)
        self.evaluation = OnlineEvaluation(features, EvaluationImages(images, labels, views))

    def on_epoch_end(self, epoch, logs=None):
        """Add the values to the logs."""
        if logs is not None:
            logs.update(self.evaluation.evaluate())
