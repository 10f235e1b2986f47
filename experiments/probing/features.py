"""Frozen features of a SavedModel: one pass over the images, every layer pooled to about the same number of values."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from lts.export.pooling import adaptive_pool
from lts.utils.errors import UserError
from lts.utils.progress import Progress


class ProbeError(UserError):
    """An evaluation that cannot be done: the message says in one line what is missing or does not fit."""


def pooled_cells(height: int, width: int, channels: int, dimensions: int) -> int:
    """Cells a side of the pooled map: the g for which g * g * channels comes closest to `dimensions`.

    For 9,000 dimensions, the widths of AlexNet and maps that are large enough this gives 9,600, 9,216, 9,600, 9,600
    and 9,216 values for conv_1 to conv_5.

    Args:
      height, width: cells of the feature map; it is never enlarged, so g is at most the smaller of the two.
      channels: channels of the feature map.
      dimensions: number of values wanted.

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
    """Pooled features of all images, every layer from one pass. Shows how far it is.

    Args:
      model: a loaded SavedModel; maps uint8 [batch, size, size, 3] to a dict that holds each of `layers`.
      batches: uint8 images, in order.
      num_images: how many images `batches` holds.
      layers: names of the layers.
      dimensions, pool: see `pooled_cells` and `lts.export.pooling.adaptive_pool`.
      title: what the progress line says.

    Returns:
      Layer name to float32 [num_images, about `dimensions`].

    Raises:
      ProbeError: a layer the model does not have, values that are not finite, or another number of images.
    """
    features: dict[str, np.ndarray] = {}
    with Progress(title, num_images) as progress:
        for images in batches:
            outputs = model(images)
            done, end = progress.done, progress.done + int(images.shape[0])
            if end > num_images:
                raise ProbeError(f"{title}: more images than the {num_images} announced")
            for layer in layers:
                if layer not in outputs:
                    raise ProbeError(f"{title}: no layer {layer!r}; there are {', '.join(outputs)}")
                cells = pooled_cells(*outputs[layer].shape[1:], dimensions)
                values = adaptive_pool(outputs[layer], cells, pool).numpy().reshape(len(images), -1)
                if not np.isfinite(values).all():
                    raise ProbeError(f"{title}: {layer} has values that are not finite")
                rows = features.setdefault(layer, np.empty([num_images, values.shape[1]], np.float32))
                rows[done:end] = values
            progress.advance(end - done)
        if progress.done != num_images:
            raise ProbeError(f"{title}: {progress.done} images came of the {num_images} announced")
    return features
