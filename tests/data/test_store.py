"""The two stores."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lts.data.decoding import decode_once, read_header
from lts.data.store import FileStore, MemoryStore, aligned_empty, array_store
from tests.data.conftest import picture


def test_stores_read_the_same(tmp_path):
    """Fails on wrong offsets, exchanged height and width, or another decoder."""
    images = [picture(5, 9), picture(12, 4), picture(7, 7)]
    paths = [str(tmp_path / f"{index}.jpg") for index in range(3)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    decoded = [decode_once(path, read_header(path))[0] for path in paths]
    flat = aligned_empty(sum(image.size for image in decoded))
    flat[:] = np.concatenate([image.reshape(-1) for image in decoded])
    sizes = np.array([image.size for image in decoded])
    memory = MemoryStore(flat, np.cumsum(sizes) - sizes, np.array([image.shape[:2] for image in decoded]))
    files = FileStore(paths)
    for index, image in enumerate(decoded):
        np.testing.assert_array_equal(memory.read(tf.constant(index, tf.int64)), image)
        np.testing.assert_array_equal(files.read(tf.constant(index, tf.int64)), image)


@pytest.mark.parametrize("in_graph", [False, True])
def test_memory_beyond_two_gigabytes(in_graph):
    """Fails on 32-bit offsets; untouched pages cost no memory."""
    flat = aligned_empty(2**31 + 100)
    flat[-50:] = 9
    flat[-50:-2] = np.arange(48)
    memory = MemoryStore(flat, np.array([2**31 + 50]), np.array([[4, 4]]))
    read = tf.function(memory.read) if in_graph else memory.read
    np.testing.assert_array_equal(read(tf.constant(0, tf.int64)), np.arange(48).reshape(4, 4, 3))


def test_array_store_reads_what_it_was_given():
    images = np.stack([picture(seed=seed) for seed in range(3)])
    memory = array_store(images)
    for index in range(3):
        np.testing.assert_array_equal(memory.read(tf.constant(index, tf.int64)), images[index])


def test_static_shape_is_known():
    assert array_store(picture()[None]).read(tf.constant(0, tf.int64)).shape.rank == 3
