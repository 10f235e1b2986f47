"""Callbacks for `fit` of Keras."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lts.models.base import CustomStepModel
from lts.training.checkpoints import Checkpoints, TrainingError, newest_step
from lts.training.monitor import write_pictures
from lts.training.online_evaluation import EvaluationImages, OnlineEvaluation
from lts.training.task import checkpoint_items


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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the values to the logs."""
        if logs is not None:
            logs.update(self.evaluation.evaluate())


class PictureStrip(keras.callbacks.Callback):
    """Picture strip of a model of `lts.models` at the end of every epoch.

    Writes the columns of `model.pictures` as an image of TensorBoard and as `latest.png`, as the binaries do.

    Args:
      samples: batch for `model.pictures`, such as images [n, H, W, 3] in [-1, 1].
      folder: for the event file and `latest.png`, for example "logs/pictures" next to `TensorBoard("logs")`.

    Raises:
      OSError, ValueError: when `fit` begins: the folder is a file, or the model is none of `lts.models`.

    Example:
      >>> callbacks = [PictureStrip(np.zeros([8, 48, 48, 3], "float32"), "logs/pictures")]
    """

    def __init__(self, samples: Any, folder: str | os.PathLike):
        super().__init__()
        self.samples = samples
        self.folder = pathlib.Path(folder)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the event file."""
        model = _check_model(self, "")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pictures = tf.function(model.pictures)
        self._writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the strip."""
        samples = tf.nest.map_structure(tf.convert_to_tensor, self.samples)
        with self._writer.as_default(step=epoch):
            write_pictures(self.folder / "latest.png", self._pictures(samples))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event file."""
        self._writer.close()


class ExactCheckpoint(keras.callbacks.Callback):
    """Checkpoint of every epoch, with which the same `fit` resumes.

    Holds what a checkpoint of the binaries holds: all networks, batch norm statistics, the step, and the moments and
    moving averages of each optimizer. It is written atomically, and a damaged one is skipped. The resumed `fit` is
    bit-identical to an uninterrupted one if the batches of an epoch do not depend on earlier epochs.

    Args:
      folder: of the checkpoints. `checkpoints/step_N` is that of epoch N.
      keep: number of checkpoints to keep, at least 1.

    Raises:
      ValueError: `keep` is below 1.
      TrainingError: when `fit` begins: the folder is a run of the binaries, or its checkpoints do not fit the model.
      ValueError: when `fit` begins: the model is none of `lts.models`.

    Example:
      >>> callbacks = [ExactCheckpoint("logs/checkpoints", keep=2)]
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 3):
        super().__init__()
        if keep < 1:
            raise ValueError(f"every checkpoint would be removed. Received: keep={keep}. Give 1 or more.")
        self.folder = pathlib.Path(folder)
        self.keep = keep

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the newest checkpoint."""
        model = _check_model(self, " Use keras.callbacks.BackupAndRestore for others.")
        if (self.folder / "config.json").exists():
            raise TrainingError(
                f"{self.folder} is a run of the binaries. Received: folder={self.folder}. Give another."
            )
        model.build_optimizers()
        self._checkpoints = Checkpoints(self.folder, checkpoint_items(model), self.keep)
        model._initial_epoch = None
        if self._checkpoints.restore():
            epoch = newest_step(self.folder)
            print(f"ExactCheckpoint: resuming after epoch {epoch}, from {self.folder}", flush=True)
            model._initial_epoch = epoch  # as keras.callbacks.BackupAndRestore does

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Let another `fit` of the model begin with its first epoch."""
        # NB: this `fit` has read it, and Keras never resets it.
        _check_model(self, "")._initial_epoch = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Do the same after a `fit` that had no epoch left."""
        _check_model(self, "")._initial_epoch = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write a checkpoint."""
        self._checkpoints.save(epoch + 1)


def _check_model(callback: keras.callbacks.Callback, advice: str) -> CustomStepModel:
    """Return the model; raise `ValueError` unless it is one of `lts.models`."""
    if not isinstance(callback.model, CustomStepModel):
        received = f"Received: model={type(callback.model).__name__}."
        raise ValueError(f"{type(callback).__name__} knows the models of lts.models. {received}{advice}")
    return callback.model
