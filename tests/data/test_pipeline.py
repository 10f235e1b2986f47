"""Batches: functions of (seed, step), in complete epochs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from lts import data
from lts.config import ImageConfig
from lts.data import augment, pipeline
from lts.data.sources import ImageDataset
from lts.data.store import array_store
from tests.data.conftest import NEUTRAL

CONFIG = ImageConfig(image_size=16)
PLAIN = dataclasses.replace(NEUTRAL, image_size=16, test_crop=0.85)


def dataset_of(images: np.ndarray) -> ImageDataset:
    return ImageDataset("test", "all", array_store(images), len(images), None, (), (), (), "")


def numbered(count: int) -> ImageDataset:
    """Return grey images 16x16 whose value is their number."""
    return dataset_of(np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], [count, 16, 16, 3]))


def noise(count: int) -> ImageDataset:
    return dataset_of(np.random.RandomState(0).randint(0, 256, [count, 20, 24, 3]).astype(np.uint8))


def numbers(dataset: tf.data.Dataset) -> np.ndarray:
    """Return the numbers of the images in the batches."""
    values = np.concatenate(list(dataset.as_numpy_iterator()))[:, 8, 8, 0]
    return np.round((values + 1) * 127.5).astype(int)


def test_resume_gives_the_same_batches():
    """Fails on state between batches, a shuffle buffer, or a seed that counts from the resumed step."""
    whole = list(data.training_batches(noise(10), CONFIG, batch_size=4, seed=3, steps=7).as_numpy_iterator())
    rest = data.training_batches(noise(10), CONFIG, batch_size=4, seed=3, first_step=4, steps=3)
    for expected, batch in zip(whole[4:], rest.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(batch, expected)
    assert whole[0].shape == (4, 16, 16, 3)
    assert whole[0].dtype == np.float32


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_does_not_matter(threads):
    """Fails if the fastest thread decides order or randomness."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    batches = data.training_batches(noise(10), CONFIG, batch_size=5, seed=1, steps=6)
    for expected, batch in zip(batches, batches.with_options(options), strict=True):
        np.testing.assert_array_equal(batch, expected)


def test_seeds_differ():
    first = next(iter(data.training_batches(noise(10), CONFIG, batch_size=4, seed=1, steps=1)))
    second = next(iter(data.training_batches(noise(10), CONFIG, batch_size=4, seed=2, steps=1)))
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 16), (1, 3)])
def test_every_epoch_holds_every_image_once(count, batch_size):
    """Fails if an epoch loses or repeats images, and on fewer images than a batch."""
    steps = 4 * count
    seen = numbers(data.training_batches(numbered(count), PLAIN, batch_size=batch_size, seed=5, steps=steps))
    epochs = seen[: len(seen) // count * count].reshape(-1, count)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(count), epochs.shape))


def test_epochs_are_shuffled_each_in_its_own_way():
    seen = numbers(data.training_batches(numbered(50), PLAIN, batch_size=50, seed=5, steps=3))
    orders = seen.reshape(3, 50)
    for order in orders:
        assert (order == np.arange(50)).mean() < 0.2
    assert (orders[0] == orders[1]).mean() < 0.2


def test_the_same_image_looks_different_in_the_next_epoch():
    """Fails if the image seeds the augmentation instead of the position."""
    first, second = data.training_batches(noise(1), CONFIG, batch_size=1, seed=1, steps=2)
    assert np.abs(first - second).max() > 0.05


def test_test_batches_are_bytes_in_order():
    """Fails if pixels are rounded down, the last batch is lost, or images are shuffled."""
    batches = list(data.test_batches(numbered(7), PLAIN, batch_size=3).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert batches[0].dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate(batches)[:, 3, 5, 1], np.arange(7))


@pytest.mark.parametrize("shape", [(40, 40), (53, 31)])
def test_test_views_are_test_images_to_the_nearest_byte(shape):
    """Fails if values are truncated, scaled differently, or wrap at 255."""
    image = tf.constant(np.random.default_rng(1).choice([0, 1, 128, 254, 255], (*shape, 3)).astype(np.uint8))
    config = ImageConfig(image_size=24, test_crop=0.85)
    exact = (augment.test_image(image, config).numpy().astype(np.float64) + 1) * 127.5
    view = pipeline.test_view(image, config).numpy()
    assert view.dtype == np.uint8
    assert np.abs(view - exact).max() <= 0.5 + 1e-4


def test_limit_of_test_batches():
    assert sum(len(batch) for batch in data.test_batches(numbered(7), PLAIN, batch_size=3, limit=4)) == 4
    assert sum(len(batch) for batch in data.test_batches(numbered(7), PLAIN, batch_size=3, limit=99)) == 7


def test_augmented_batches_are_two_views_of_the_same_images():
    """Fails if images are shuffled or lost, or the seed or an image's number does not decide its view."""
    options = {"batch_size": 3, "limit": 5}
    np.testing.assert_array_equal(numbers(data.augmented_batches(numbered(7), PLAIN, seed=1, **options)), np.arange(5))
    first, again, second = (
        np.concatenate(list(data.augmented_batches(noise(7), CONFIG, seed=seed, **options))) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max((1, 2, 3)).min() > 0.05


def test_batch_shapes_are_known_to_the_graph():
    """Fails if a network cannot be built because a dimension is None."""
    training = data.training_batches(noise(3), CONFIG, batch_size=2, seed=1, steps=1)
    assert training.element_spec == tf.TensorSpec([2, 16, 16, 3], tf.float32)
    testing = data.test_batches(noise(3), CONFIG, batch_size=2)
    assert testing.element_spec == tf.TensorSpec([None, 16, 16, 3], tf.uint8)


def test_labels_stay_beside_their_images():
    """Fails if labels keep the order of the dataset."""
    dataset = dataclasses.replace(numbered(50), labels=np.arange(50) * 3)
    labelled = data.training_batches(dataset, PLAIN, batch_size=10, seed=1, steps=7, labels=True)
    alone = data.training_batches(dataset, PLAIN, batch_size=10, seed=1, steps=7)
    for (images, labels), same in zip(labelled, alone, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, 3 * numbers(tf.data.Dataset.from_tensors(images)))


@pytest.mark.parametrize("machines", [1, 2])
def test_a_part_of_every_batch_has_labels(machines):
    """Fails if chosen rows hold other images, a stream repeats an image within its epoch, or a resumed run differs."""
    labels = np.full(20, -1)
    labels[[3, 7, 11]] = [0, 1, 1]
    dataset = dataclasses.replace(numbered(20), labels=labels)
    options = {"batch_size": 6, "seed": 1, "labels": True, "labelled_rows": 2}
    parts = []
    for machine in range(machines):
        share = tf.distribute.InputContext(machines, machine, machines)
        batches = data.training_batches(dataset, PLAIN, steps=15, share=share, **options)
        resumed = data.training_batches(dataset, PLAIN, steps=5, first_step=10, share=share, **options)
        part = [(numbers(tf.data.Dataset.from_tensors(images)), known.numpy()) for images, known in batches]
        for (expected, _), (images, _) in zip(part[10:], resumed, strict=True):
            np.testing.assert_array_equal(numbers(tf.data.Dataset.from_tensors(images)), expected)
        parts.append(part)
    shown = np.concatenate([np.stack([images for images, _ in part]) for part in parts], axis=1)
    known = np.concatenate([np.stack([known for _, known in part]) for part in parts], axis=1)
    np.testing.assert_array_equal(known, labels[shown])
    for epoch in shown[:, :2].reshape(-1, 3):
        assert sorted(epoch) == [3, 7, 11]
    for epoch in shown[:, 2:].reshape(-1, 20):
        assert sorted(epoch) == list(range(20))
