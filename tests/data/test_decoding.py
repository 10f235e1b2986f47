"""Decoding of every kind of file, alike in memory, from files and in the stream."""

import io
import os
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import ExifTags, Image

from lts.data import DataError, decoding, open_source
from lts.data.decoding import BrokenImage, Header, decode_once, decode_with_pillow, read_header
from lts.data.pipeline import test_view as view_of
from lts.extraction.stream import open_stream
from tests.data.conftest import NEUTRAL, picture


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
        pytest.param(encode(RGB, "WEBP", lossless=True), RGB, id="webp"),
        pytest.param(encode(RGB, "TIFF"), RGB, id="tiff"),
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


def test_header_of_a_palette_bmp():
    encoded = encode(RGB.convert("P"), "BMP")
    assert read_header(encoded) == Header(20, 30, len(encoded), True)


def decode_everywhere(path) -> np.ndarray:
    """Return an image of `path`'s folder, which every reader must decode alike."""
    folder = f"folder:{path.parent}"
    memory = open_source(folder, progress=False)
    files = open_source(folder, progress=False, cache_gb=0)
    image = memory.read(0).numpy()
    np.testing.assert_array_equal(files.read(0), image)
    (from_files,) = tf.data.Dataset.range(1).map(files.read)
    np.testing.assert_array_equal(from_files, image)
    (views,) = open_stream(folder).views(NEUTRAL, batch_size=1)
    np.testing.assert_array_equal(views.images[0], view_of(memory.read(0), NEUTRAL))
    return image


SQUARE = Image.fromarray(picture(32, 32, seed=4))
UPRIGHT = np.asarray(SQUARE)


def save_turned(path, orientation: int, **options) -> None:
    """Save SQUARE as a camera does that was held in another way."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # The inverse of each turn; a quarter turn is undone by the opposite one.
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turn = inverse.get(orientation, decoding.TURNS.get(orientation))
    stored = SQUARE if turn is None else SQUARE.transpose(turn)
    stored.save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {})])
def test_exif_orientation_turns_the_image(tmp_path, name, options, orientation):
    """Fails if a photograph of a phone lies on its side, or is turned twice."""
    save_turned(tmp_path / name, orientation, **options)
    np.testing.assert_array_equal(decode_with_pillow(str(tmp_path / name)), UPRIGHT)


@pytest.mark.parametrize("orientation", [3, 6])
def test_every_reader_turns_a_photograph(tmp_path, orientation):
    """Fails if one of memory, files and stream ignores the orientation."""
    save_turned(tmp_path / "a.jpg", orientation, quality=95, subsampling=0)
    difference = decode_everywhere(tmp_path / "a.jpg") - UPRIGHT.astype(int)
    assert np.abs(difference).mean() < 6


def test_header_of_a_turned_image_is_upright(tmp_path):
    """Fails if height and width are those of the stored image."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        encoded = encode(RGB, kind, exif=exif)
        assert read_header(encoded) == Header(30, 20, len(encoded), True)
        assert decode_with_pillow(encoded).shape == (30, 20, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"])
def test_damaged_exif_is_no_damaged_image(exif):
    """Fails if an image with intact pixels is broken for its metadata."""
    encoded = encode(RGB, "JPEG", exif=exif)
    assert read_header(encoded) == Header(20, 30, len(encoded), False)
    assert decode(encoded).shape == (20, 30, 3)


def bmp_with_fields(masks: tuple[int, ...], pixels: np.ndarray) -> bytes:
    """Return a BMP of 32 bits per pixel whose bit fields name the channels."""
    height, width, _ = pixels.shape
    body = pixels[::-1].tobytes()
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 0, 0, 0, 0)
    info += struct.pack("<IIII", *masks) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(body), 0, 0, 14 + len(info)) + info + body


def test_bit_fields_of_a_bmp(tmp_path):
    """Fails if red and blue are exchanged."""
    rgba = np.dstack([UPRIGHT, np.full([32, 32], 255, np.uint8)])
    (tmp_path / "a.bmp").write_bytes(bmp_with_fields((0xFF, 0xFF00, 0xFF0000, 0xFF000000), rgba))
    np.testing.assert_array_equal(decode_everywhere(tmp_path / "a.bmp"), UPRIGHT)


DEEP = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        pytest.param(DEEP, DEEP >> 8, id="16 bits"),
        pytest.param((DEEP / 65535).astype(np.float32), np.round(DEEP / 65535 * 255), id="floats in [0, 1]"),
    ],
)
def test_deep_grey_of_a_tiff_is_scaled(tmp_path, values, grey):
    """Fails if values above 255 become white, or floats become black."""
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(decode_everywhere(tmp_path / "a.tif"), np.repeat(grey[..., None], 3, axis=-1))


def test_deep_inverted_grey_of_a_tiff():
    """Fails if white-is-zero, as scanners write it, gives a negative."""
    encoded = encode(Image.fromarray(DEEP), "TIFF", tiffinfo={ExifTags.Base.PhotometricInterpretation: 0})
    np.testing.assert_array_equal(decode_with_pillow(encoded)[..., 0], 255 - (DEEP >> 8))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_range_are_refused(dtype):
    """Fails if values that 8 bits cannot show are clipped."""
    encoded = encode(Image.fromarray(DEEP.astype(dtype)), "TIFF")
    with pytest.raises(BrokenImage, match=r"pixels must be 8 or 16 bits, or floats in \[0, 1\]\. Received: mode [IF]"):
        decode_once(encoded, read_header(encoded))


def test_signed_bytes_are_refused():
    """Fails if negative values of a TIFF become bright ones without a word."""
    encoded = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(encoded, "TIFF", tiffinfo={ExifTags.Base.SampleFormat: 2})
    with pytest.raises(BrokenImage, match="pixels must be unsigned"):
        decode_with_pillow(encoded.getvalue())


def test_one_limit_of_pixels(tmp_path, monkeypatch):
    """Fails if one reader takes an image that another one refuses, or decodes it before it looks at the header."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 30 // 2)
    RGB.save(tmp_path / "at the limit.png")
    assert open_source(f"folder:{tmp_path}", progress=False, cache_gb=0).num_examples == 1
    Image.fromarray(picture(20, 31)).save(tmp_path / "above.png")
    monkeypatch.setattr(decoding, "decode_image", None)
    for cache_gb in (0, 1):
        with pytest.raises(DataError, match=r"above\.png is broken \(more than 268,435,456 pixels\)"):
            open_source(f"folder:{tmp_path}", progress=False, cache_gb=cache_gb)
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 30 // 2)
    (views,) = open_stream(f"folder:{tmp_path}").views(NEUTRAL, batch_size=2, skip_broken=True)
    assert list(views.broken.values()) == ["more than 268,435,456 pixels"]


def test_limit_of_pixels_is_pillows():
    """Fails if Pillow refuses an image below the limit, such as a panorama of 200 megapixels, or warns about it."""
    assert Image.MAX_IMAGE_PIXELS * 2 == decoding.MAX_PIXELS > 20_000 * 10_000


def test_an_image_with_gigabytes_behind_it_is_broken(tmp_path):
    """Fails if a file of a few blocks on the disk fills the memory."""
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    os.truncate(path, decoding.MAX_BYTES + 1)  # a sparse file
    with pytest.raises(BrokenImage, match="more than 1,073,741,824 bytes"):
        decoding.read_bytes(str(path))


def test_postscript_is_no_image(tmp_path, monkeypatch):
    """Fails if a PostScript file called .jpg starts Ghostscript."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    postscript = tmp_path / "a.jpg"
    postscript.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (read_header, decode_with_pillow):
        with pytest.raises(BrokenImage, match="not an image"):
            read(str(postscript))
    assert not (tmp_path / "started").exists()


def test_a_named_pipe_is_no_image(tmp_path):
    """Fails (hangs) if a pipe is opened."""
    RGB.save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.jpg")
    with pytest.raises(DataError, match=r"b\.jpg is broken \(not a regular file\)"):
        open_source(f"folder:{tmp_path}", progress=False)
    (views,) = open_stream(f"folder:{tmp_path}").views(NEUTRAL, batch_size=2, skip_broken=True)
    assert list(views.broken.values()) == ["not a regular file"]
    for read in (read_header, decode_with_pillow, decoding.read_bytes):
        with pytest.raises(BrokenImage, match="not a regular file"):
            read(str(tmp_path / "b.jpg"))


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1)])
def test_images_of_one_pixel(tmp_path, size):
    """Fails if a very elongated image is broken."""
    Image.fromarray(picture(*size)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_everywhere(tmp_path / "a.png"), picture(*size))
