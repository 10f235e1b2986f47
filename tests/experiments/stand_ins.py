"""A tiny model and data set that keep to the interfaces of lts.saved_model and lts.data."""

import dataclasses

import numpy as np
import tensorflow as tf


class Model:
    """Two layers: conv_1 is the image itself at half size, conv_2 its colours at a quarter."""

    layers = ("conv_1", "conv_2")
    image_size = 16
    test_crop = 0.85

    def __init__(self, path, seed=0, weights="trained"):
        self.path = path
        self.fingerprint = f"{seed:08x}"
        self.description = {"preset": "tiny", "weights": weights, "seed": seed}
        self.calls = 0
        self._mix = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)

    def __call__(self, images):
        self.calls += 1
        values = tf.nn.relu(tf.cast(images, tf.float32) @ self._mix)
        return {"conv_1": tf.nn.avg_pool2d(values, 2, 2, "VALID"), "conv_2": tf.nn.max_pool2d(values, 4, 4, "VALID")}


@dataclasses.dataclass
class Source:
    """Images whose colour is their class, with noise."""

    split: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple = ("blue", "green", "red")
    name: str = "stand-in"
    broken: tuple = ()
    names: tuple = ()

    @property
    def num_examples(self):
        return len(self.images)

    @property
    def fingerprint(self):
        return f"{self.split}-{self.num_examples}"

    def read(self, index):
        return tf.constant(self.images)[index]


def source(split, per_class=20, noise=60, seed=0):
    """A `Source` with `per_class` images of each of three classes."""
    generator = np.random.default_rng([seed, len(split)])
    labels = np.repeat(np.arange(3), per_class)
    images = generator.normal(100, noise, (len(labels), 16, 16, 3))
    images[np.arange(len(labels)), :, :, labels] += 15
    return Source(split, np.clip(images, 0, 255).astype(np.uint8), labels)


def batches(source, image, *, batch_size, limit=None):
    """As `lts.data.test_batches` (its own name would look like a test), without a resize."""
    assert image.image_size == source.read(0).shape[0]
    return tf.data.Dataset.range(limit or source.num_examples).map(source.read).batch(batch_size)
