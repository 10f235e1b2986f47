"""Decoding of every kind of file, and the two stores."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lts.data import store
from lts.data.store import FileStore, Header, MemoryStore, aligned_empty, array_store, decode_once, read_header
from tests.data.conftest import picture


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(picture())
GREY = RGB.convert("L")
ALPHA = Image.fromarray(np.dstack([picture(), np.full([20, 30], 7, np.uint8)]))


def decode(encoded: bytes) -> np.ndarray:
    header = read_header(encoded)
    image, _ = decode_once(encoded, header)
    assert image.shape == (header.height, header.width, 3)
    assert header.encoded_bytes == len(encoded)
    return image


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param(encode(RGB, "PNG"), RGB, id="png"),
        pytest.param(encode(RGB, "BMP"), RGB, id="bmp"),
        pytest.param(encode(GREY, "PNG"), GREY, id="grey png"),
        pytest.param(encode(GREY, "BMP"), GREY, id="grey bmp"),
        pytest.param(encode(GREY.convert("1"), "PNG"), GREY.convert("1"), id="black and white png"),
        pytest.param(encode(GREY.convert("1"), "BMP"), GREY.convert("1"), id="black and white bmp"),
        pytest.param(encode(GREY.convert("LA"), "PNG"), GREY, id="grey png with alpha"),
        pytest.param(encode(ALPHA, "PNG"), RGB, id="rgba png: alpha is dropped"),
        pytest.param(encode(ALPHA, "BMP"), RGB, id="rgba bmp: alpha is dropped"),
        pytest.param(encode(RGB.convert("P"), "PNG"), RGB.convert("P"), id="palette png"),
        pytest.param(encode(RGB.convert("P"), "BMP"), RGB.convert("P"), id="palette bmp: TensorFlow gets it wrong"),
        pytest.param(encode(RGB.convert("P"), "GIF"), RGB.convert("P"), id="gif"),
    ],
)
def test_lossless_kinds_are_exact(encoded, expected):
    np.testing.assert_array_equal(decode(encoded), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_close(mode, progressive):
    """Fails on inverted CMYK or exchanged channels."""
    image = RGB.convert(mode)
    decoded = decode(encode(image, "JPEG", quality=95, progressive=progressive, subsampling=0))
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB"))).mean() < 6


def test_sixteen_bits_become_the_upper_eight():
    """Fails if values are clipped to white, or if the lower byte is taken."""
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    decoded = decode(encode(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat((values >> 8)[..., None], 3, axis=-1))


def test_first_frame_of_a_gif():
    first = Image.fromarray(np.full([8, 9, 3], 50, np.uint8))
    second = Image.fromarray(np.full([8, 9, 3], 200, np.uint8))
    decoded = decode(encode(first, "GIF", save_all=True, append_images=[second]))
    np.testing.assert_array_equal(decoded, np.full([8, 9, 3], 50))


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


def test_header_of_a_palette_bmp():
    assert read_header(encode(RGB.convert("P"), "BMP")) == Header(20, 30, len(encode(RGB.convert("P"), "BMP")), True)


def test_free_memory_is_a_number_of_bytes():
    assert 2**20 < store.free_memory() < 2**50
