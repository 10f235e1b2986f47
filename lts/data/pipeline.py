"""Batches for training and testing, as `tf.data` datasets with random access.

Nothing is shuffled through a buffer and nothing is remembered: what lies at position p of the endless stream of
training images is a function of (seed, p). A run that resumes at step n asks for `first_step=n` and gets the very
batches it would have got, without replaying the first n, on any number of cores.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lts.config import ImageConfig
from lts.data.augment import flip_and_colour, random_crop, test_pixels
from lts.data.sources import ImageDataset

Crop = Callable[[tf.Tensor, tf.Tensor, ImageConfig], tuple[tf.Tensor, tf.Tensor]]
View = Callable[[tf.Tensor, ImageConfig], tf.Tensor]
Share = tf.distribute.InputContext  # which machine of how many this is, and how many replicas all of them have
WHOLE = Share()  # one replica on one machine


def training_batches(
    source: ImageDataset,
    image: ImageConfig,
    *,
    batch_size: int,
    seed: int,
    steps: int,
    first_step: int = 0,
    share: Share = WHOLE,
    labels: bool = False,
    crop: Crop = random_crop,
) -> tf.data.Dataset:
    """Batches of augmented images, shuffled anew every epoch (ours; augmentation: release).

    Args:
      source: where the images come from; may hold fewer than `batch_size`.
      image: size and augmentation.
      batch_size: images a step, over all replicas.
      seed: with the step, decides every random number.
      steps: number of steps.
      first_step: number of steps to leave out at the beginning, at no cost.
      share: only this machine's parts of every batch are made, one for each of its replicas; `batch_size` is a multiple
        of the replicas of all machines.
      labels: with int32 labels [batch_size / replicas]; the source must have some.
      crop: what of an image is shown, as `random_crop`; `image` says the rest of the augmentation.

    Returns:
      Dataset of float32 [batch_size / replicas, image_size, image_size, 3] in [-1, 1], the parts of a batch one after
      the other. Epochs follow each other without a seam: each holds every image once, and a batch may hold the end of
      one and the beginning of the next.
    """
    known = tf.constant(source.labels, tf.int32) if labels else None

    def example(which: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        window, draws = crop(source.read(which), seeds, image)
        return (window, draws, known[which]) if labels else (window, draws)

    def finish(crops: tf.Tensor, draws: tf.Tensor, *more: tf.Tensor):
        images = flip_and_colour(crops, draws, image)
        return (images, *more) if labels else images

    crops = shuffled_examples(
        source.num_examples,
        example,
        batch_size=batch_size,
        seed=seed,
        steps=steps,
        first_step=first_step,
        share=share,
    ).batch(batch_size // share.num_replicas_in_sync, drop_remainder=True)
    return in_order(crops.map(finish, num_parallel_calls=tf.data.AUTOTUNE))


def shuffled_examples(
    count: int,
    example: Callable[[tf.Tensor, tf.Tensor], Any],
    *,
    batch_size: int,
    seed: int,
    steps: int,
    first_step: int = 0,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """Single examples of the endless stream, shuffled anew every epoch, not batched yet (ours).

    Args:
      count: how many examples there are.
      example: (int64 scalar in [0, count), int64 [2] seed of this visit) to tensors.
      batch_size: examples a step, over all machines.
      seed: with the position, decides order and seeds.
      steps: number of steps.
      first_step: number of steps to leave out at the beginning, at no cost.
      share: only this machine's part of every batch is made.

    Returns:
      Dataset of `steps * batch_size / machines` examples.
    """
    index = share.input_pipeline_id
    own = batch_size // share.num_input_pipelines  # examples of a batch that are made here

    def at(number: tf.Tensor) -> Any:
        position = number // own * batch_size + index * own + number % own
        epoch = position // count
        which = tf.random.experimental.index_shuffle(position % count, tf.stack([seed, epoch]), max_index=count - 1)
        return example(which, tf.stack([seed, position]))

    numbers = tf.data.Dataset.range(first_step * own, (first_step + steps) * own)
    return numbers.map(at, num_parallel_calls=tf.data.AUTOTUNE)


def test_batches(
    source: ImageDataset,
    image: ImageConfig,
    *,
    batch_size: int,
    limit: int | None = None,  # noqa: PT028 (not a pytest test)
    view: View | None = None,  # noqa: PT028
) -> tf.data.Dataset:
    """Batches of test views in the order of the source, as the bytes that an exported SavedModel takes (release).

    Args:
      source: where the images come from.
      image: size and central crop.
      batch_size: images a batch; the last batch may be smaller.
      limit: only the first `limit` images; None: all.
      view: what of an image is shown; None: `test_view`.

    Returns:
      Dataset of uint8 [<= batch_size, image_size, image_size, 3], rounded to the nearest of 0..255; of other views
      what those are.
    """
    view = view or test_view
    count = source.num_examples if limit is None else min(limit, source.num_examples)
    views = tf.data.Dataset.range(count).map(
        lambda index: view(source.read(index), image), num_parallel_calls=tf.data.AUTOTUNE
    )
    return in_order(views.batch(batch_size))


def as_bytes(signed: tf.Tensor) -> tf.Tensor:
    """Images in [-1, 1] as the bytes that an exported SavedModel takes, rounded to the nearest of 0..255."""
    return tf.cast(tf.round((tf.clip_by_value(signed, -1.0, 1.0) + 1.0) * 127.5), tf.uint8)


def test_view(image: tf.Tensor, config: ImageConfig) -> tf.Tensor:
    """`test_image` as bytes, rounded to the nearest: uint8 [image_size, image_size, 3] of uint8 [h, w, 3]."""
    return tf.cast(tf.round(test_pixels(image, config)), tf.uint8)


def in_order(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches in a fixed order, made ahead; between replicas and workers batches are shared out, not files."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
