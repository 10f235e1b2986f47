"""Frozen features, and the base of the probes that read them."""

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.probing.probe import LayerResult, Probe, ProbeError
from lts import data
from lts.config import ImageConfig
from lts.export.pooling import adaptive_pool
from lts.utils.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureProbe(Probe):
    """Probe of features that are extracted once.

    The protocol names `dimensions` and `pool` of the features, see `extract`. A subclass defines `measure`.
    """

    @abc.abstractmethod
    def measure(
        self, train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
    ) -> dict[str, Any]:
        """Evaluate the features of one layer.

        Args:
          train: float32 [images, dimensions], features of the training images.
          train_labels: int [images].
          test: float32 [images, dimensions], features of the test images. Nothing may be chosen on them.
          test_labels: int [images].

        Returns:
          A record, see `experiments.probing.statistics`, or several by name.
        """

    def run(self, model, layers: Sequence[str]) -> Iterator[LayerResult]:
        """Evaluate one model; see `Probe.run`."""
        # All layers come from one pass, so each is charged an equal part of its time.
        began = time.monotonic()
        train = self._extract(model, layers, self.train, "training")
        test = self._extract(model, layers, self.test, "test")
        extraction_seconds = (time.monotonic() - began) / len(layers)
        for layer in layers:
            began = time.monotonic()
            # Features of a layer can be gigabytes: `pop` lets them be freed after use.
            record = self.measure(train.pop(layer), self.train.labels, test.pop(layer), self.test.labels)
            yield LayerResult(layer, record, extraction_seconds + time.monotonic() - began)

    def _extract(self, model, layers: Sequence[str], source, role: str) -> dict[str, np.ndarray]:
        """Extract the features of a set by layer."""
        image = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
        return extract(
            model,
            data.test_batches(source, image, batch_size=self.batch_size),
            source.num_examples,
            layers,
            dimensions=self.protocol.dimensions,
            pool=self.protocol.pool,
            title=f"  features of the {role} images",
        )


def pooled_cells(height: int, width: int, channels: int, dimensions: int) -> int:
    """Return the cells per side of the pooled map.

    This is the g for which g * g * channels comes closest to `dimensions`. For 9,000 dimensions and sufficiently large
    maps, AlexNet's conv_1 to conv_5 get 9,600, 9,216, 9,600, 9,600 and 9,216 values, as in RotNet's release.

    Args:
      height: cells of the feature map. It is never enlarged: g is at most the smaller of height and width.
      width: cells of the feature map.
      channels: channels of the feature map.
      dimensions: requested number of values.

    Returns:
      g, at least 1.

    Example:
      >>> pooled_cells(24, 24, 96, 9000)
      10
    """
    return min(range(1, min(height, width) + 1), key=lambda cells: abs(cells * cells * channels - dimensions))


def extract(
    model: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    batches: Iterable[tf.Tensor],
    num_images: int,
    layers: Sequence[str],
    dimensions: int = 9000,
    pool: str = "average",
    title: str = "",
) -> dict[str, np.ndarray]:
    """Extract pooled features of all images in one pass.

    Args:
      model: a loaded SavedModel; maps uint8 [batch, size, size, 3] to a dict that holds each of `layers`.
      batches: uint8 images, in order.
      num_images: number of images in `batches`.
      layers: names of the layers.
      dimensions: approximate number of values per layer, see `pooled_cells`.
      pool: see `lts.export.pooling.adaptive_pool`.
      title: of the progress line.

    Returns:
      Layer name to float32 [num_images, about `dimensions`].

    Raises:
      ProbeError: the model lacks a layer, values are not finite, or `batches` has another number of images.
    """
    features: dict[str, np.ndarray] = {}
    with Progress(title, num_images) as progress:
        for images in batches:
            outputs = model(images)
            start = progress.done
            end = start + int(images.shape[0])
            if end > num_images:
                raise ProbeError(f"{title}: the number of images must be {num_images}. Received: {end} or more")
            for layer in layers:
                if layer not in outputs:
                    raise ProbeError(f"{title}: layer must be one of {', '.join(outputs)}. Received: {layer!r}")
                cells = pooled_cells(*outputs[layer].shape[1:], dimensions)
                pooled = adaptive_pool(outputs[layer], cells, pool)
                values = pooled.numpy().reshape(len(images), -1)
                if not np.isfinite(values).all():
                    raise ProbeError(f"{title}: {layer} has values that are not finite. Export the model again.")
                # Allocated once: a list of batches would need the memory twice when it is joined.
                if layer not in features:
                    features[layer] = np.empty([num_images, values.shape[1]], np.float32)
                features[layer][start:end] = values
            progress.advance(end - start)
        if progress.done != num_images:
            raise ProbeError(f"{title}: the number of images must be {num_images}. Received: {progress.done}")
    return features
