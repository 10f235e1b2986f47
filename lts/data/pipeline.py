"""Batches for training and testing, with random access.

There is no shuffle buffer and no other state: the image at position p of the endless training stream is a function of
(seed, p). A run that resumes at step n passes `first_step=n` and gets the same batches as an uninterrupted run.
Skipping costs nothing, and the batches do not depend on the number of cores.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from lts.config import ImageConfig
from lts.data.augment import flip_and_colour, random_crop, test_pixels
from lts.data.sources import ImageDataset
from lts.data.store import require_labels

Crop = Callable[[tf.Tensor, tf.Tensor, ImageConfig], tuple[tf.Tensor, tf.Tensor]]
View = Callable[[tf.Tensor, ImageConfig], tf.Tensor]
# Index of this machine, number of machines, number of replicas of all machines.
Share: TypeAlias = tf.distribute.InputContext
WHOLE = Share()  # one replica on one machine


def training_batches(
    dataset: ImageDataset,
    image: ImageConfig,
    *,
    batch_size: int,
    seed: int,
    steps: int,
    first_step: int = 0,
    share: Share = WHOLE,
    labels: bool = False,
    labelled_rows: int = 0,
    crop: Crop = random_crop,
) -> tf.data.Dataset:
    """Return batches of augmented images, reshuffled every epoch.

    The augmentation is the release's; the random access is this project's. Epochs follow each other without a gap:
    each holds every image once, and a batch may span two epochs.

    Shapes: `batch_size=64` on 2 replicas gives batches of float32 [32, image_size, image_size, 3] in [-1, 1], the
    parts of a batch one after the other.

    Args:
      dataset: the images; may hold fewer than `batch_size`.
      image: size and augmentation.
      batch_size: images per step, over all replicas of all machines; a multiple of their number.
      seed: decides every random number, together with the step.
      steps: number of steps.
      first_step: number of steps to skip.
      share: this machine's share; only its parts of every batch are computed, one for each of its replicas.
      labels: also return int32 labels [batch_size / replicas], -1 where unknown; the dataset must have labels.
      labelled_rows: first rows of every batch that are drawn from the images with a label (ours). The other rows are
        drawn from all images.
      crop: replaces `random_crop`; `image` describes the rest of the augmentation.

    Returns:
      Dataset of images, or of (images, labels).
    """
    known = tf.constant(require_labels(dataset.labels), tf.int32) if labels else None

    def example(index: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        window, amounts = crop(dataset.read(index), seeds, image)
        return (window, amounts) if known is None else (window, amounts, known[index])

    def finish(crops: tf.Tensor, amounts: tf.Tensor, *more: tf.Tensor):
        images = flip_and_colour(crops, amounts, image)
        return (images, *more) if labels else images

    position = {"batch_size": batch_size, "seed": seed, "steps": steps, "first_step": first_step, "share": share}
    if labelled_rows:
        position.update(chosen=dataset.labelled, chosen_rows=labelled_rows)
    crops = shuffled_examples(dataset.num_examples, example, **position)
    batches = crops.batch(batch_size // share.num_replicas_in_sync, drop_remainder=True)
    return in_order(batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE))


def shuffled_examples(
    count: int,
    example: Callable[[tf.Tensor, tf.Tensor], Any],
    *,
    batch_size: int,
    seed: int,
    steps: int,
    first_step: int = 0,
    share: Share = WHOLE,
    chosen: np.ndarray | None = None,
    chosen_rows: int = 0,
) -> tf.data.Dataset:
    """Return single examples, reshuffled every epoch.

    Args:
      count: number of examples.
      example: function of an int64 index in [0, count) and an int64 [2] seed, which differs at every visit.
      batch_size: examples per step, over all machines.
      seed: decides order and seeds, together with the position.
      steps: number of steps.
      first_step: number of steps to skip.
      share: this machine's share; only its part of every batch is computed.
      chosen: int64 [M], indices of some examples.
      chosen_rows: first rows of every batch that are drawn from `chosen`; the other rows are drawn from all examples.

    Returns:
      Dataset of `steps * batch_size / machines` examples, not batched.
    """
    per_machine = batch_size // share.num_input_pipelines

    def at(number: tf.Tensor) -> Any:
        # Example `number` of this machine has this position in the stream of all machines.
        step = number // per_machine
        row = share.input_pipeline_id * per_machine + number % per_machine
        position = step * batch_size + row
        if chosen is not None and chosen_rows:
            # Two streams with different orders.
            from_chosen = tf.gather(chosen, shuffled(step * chosen_rows + row, len(chosen), -1 - seed))
            from_all = shuffled(step * (batch_size - chosen_rows) + row - chosen_rows, count, seed)
            index = tf.where(row < chosen_rows, from_chosen, from_all)
        else:
            index = shuffled(position, count, seed)
        return example(index, tf.stack([seed, position]))

    def shuffled(position: Any, length: int, order: int) -> tf.Tensor:
        epoch_seed = tf.stack([order, position // length])
        return index_shuffle(position % length, epoch_seed, max_index=length - 1)

    index_shuffle = tf.random.experimental.index_shuffle  # pyright: ignore[reportAttributeAccessIssue]
    numbers = tf.data.Dataset.range(first_step * per_machine, (first_step + steps) * per_machine)
    return numbers.map(at, num_parallel_calls=tf.data.AUTOTUNE)


def test_batches(
    dataset: ImageDataset,
    image: ImageConfig,
    *,
    batch_size: int,
    limit: int | None = None,  # noqa: PT028 (not a pytest test)
    view: View | None = None,  # noqa: PT028
) -> tf.data.Dataset:
    """Return batches of test views in the order of the dataset.

    Args:
      dataset: the images.
      image: size and central crop.
      batch_size: images per batch; the last batch may be smaller.
      limit: number of images to take from the beginning; None: all.
      view: replaces `test_view`.

    Returns:
      Dataset of uint8 [<= batch_size, image_size, image_size, 3], as an exported SavedModel takes them.
    """
    view = view or test_view
    count = dataset.num_examples if limit is None else min(limit, dataset.num_examples)
    indices = tf.data.Dataset.range(count)
    views = indices.map(lambda index: view(dataset.read(index), image), num_parallel_calls=tf.data.AUTOTUNE)
    return in_order(views.batch(batch_size))


def augmented_batches(
    dataset: ImageDataset, image: ImageConfig, *, batch_size: int, seed: int, limit: int | None = None
) -> tf.data.Dataset:
    """Return batches of augmented images in the order of the dataset.

    Each image is a function of (seed, its number). Two seeds give two views of every image.

    Args:
      dataset: the images.
      image: size and augmentation.
      batch_size: images per batch; the last batch may be smaller.
      seed: of all random numbers.
      limit: number of images to take from the beginning; None: all.

    Returns:
      Dataset of float32 [<= batch_size, image_size, image_size, 3] in [-1, 1].
    """
    count = dataset.num_examples if limit is None else min(limit, dataset.num_examples)

    def example(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return random_crop(dataset.read(index), tf.stack([tf.constant(seed, tf.int64), index]), image)

    crops = tf.data.Dataset.range(count).map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    return in_order(crops.map(lambda windows, amounts: flip_and_colour(windows, amounts, image)))


def as_signed(images: tf.Tensor, dtype: tf.DType | str = tf.float32) -> tf.Tensor:
    """Convert images in [0, 255] to `dtype` in [-1, 1], as the networks take them."""
    return tf.cast(images, dtype) / 127.5 - 1


def as_bytes(signed: tf.Tensor) -> tf.Tensor:
    """Convert images in [-1, 1] to uint8, rounded to nearest."""
    return tf.cast(tf.round((tf.clip_by_value(signed, -1.0, 1.0) + 1.0) * 127.5), tf.uint8)


def test_view(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """Return `test_image` as bytes: uint8 [image_size, image_size, 3].

    Rounding the resized pixels directly takes two thirds of the time of the detour through [-1, 1], whose rounding
    changed 0.25 % of the pixels by one.
    """
    return tf.cast(tf.round(test_pixels(image, config)), tf.uint8)


def in_order(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the batches in a fixed order, prefetched.

    `tf.distribute` shards them between workers by batch, not by file.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
