"""Extraction: correct values in three formats, and exact resume."""

import json
import os
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import lts
from lts import data
from lts.config import ImageConfig
from lts.data import DataError
from lts.export import saved_model
from lts.extraction import extract as extraction
from lts.extraction import feature_files
from lts.extraction.extract import ExtractionError, extract
from lts.extraction.feature_files import FeatureFileError
from lts.extraction.stream import open_stream
from lts.utils.errors import FormatError
from tests.fixtures import rounding
from tests.fixtures.exports import small_discriminator

IMAGE = ImageConfig(image_size=48, test_crop=0.85)
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small export of random weights."""
    discriminator, description = small_discriminator("batch_norm")
    path = tmp_path_factory.mktemp("export") / "features"
    saved_model.export(discriminator, path, description)
    return lts.load(path)


def save_photo(path: pathlib.Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(coarse).resize((60 + seed % 7, 50), Image.BICUBIC).convert(mode).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Twenty labelled pictures of several kinds, three without a class."""
    root = tmp_path_factory.mktemp("photos")
    for seed in range(20):
        save_photo(root / "train" / "ab"[seed % 2] / f"{seed}.{('jpg', 'png')[seed % 3 == 0]}", seed)
    for seed in range(20, 23):
        save_photo(root / "unlabelled" / f"{seed}.jpg", seed)
    return root


def break_photo(root: pathlib.Path, name: str) -> str:
    save_photo(root / name, 99)
    (root / name).write_bytes((root / name).read_bytes()[:-40])
    return name


def expected(model, root, layer, pool, split="all"):
    """Return names and features computed as evaluations do."""
    dataset = data.open_source(f"folder:{root}", split, progress=False)
    batches = [model.features(images, layer, pool) for images in data.test_batches(dataset, IMAGE, batch_size=8)]
    return dataset.names, np.concatenate(batches)


def allowed(model, root, layer) -> float:
    """Return the allowed difference of features that are computed twice."""
    dataset = data.open_source(f"folder:{root}", progress=False)
    (images,) = data.test_batches(dataset, IMAGE, batch_size=dataset.num_examples)
    return rounding.allowed_for(model.keras_model(layer), tf.cast(images, tf.float32))


def read_npz(path, layer):
    arrays = np.load(path)
    names = arrays["names"]
    features = arrays[layer]
    labels = arrays.get("labels")
    return list(names), features, labels, json.loads(str(arrays["metadata"]))


def read_parquet(path, layer):
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"lts"])
    features = table[layer].combine_chunks().flatten().to_numpy().reshape(-1, *metadata["shapes"][layer])
    labels = table["label"].fill_null(-1).to_numpy()
    return table["name"].to_pylist(), features, labels, metadata


def read_tfrecord(path, layer):
    metadata = json.loads(pathlib.Path(f"{path}.json").read_text())
    keys = {
        layer: tf.io.FixedLenFeature([], tf.string),
        "name": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64, -1),
    }
    rows = [tf.io.parse_single_example(record, keys) for record in tf.data.TFRecordDataset(str(path))]
    names = [row["name"].numpy().decode() for row in rows]
    shape = metadata["shapes"][layer]
    dtype = metadata["dtype"]
    features = np.stack([np.reshape(tf.io.decode_raw(row[layer], dtype), shape) for row in rows])
    return names, features, np.array([row["label"] for row in rows]), metadata


READ = {"npz": read_npz, "parquet": read_parquet, "tfrecord": read_tfrecord}


@pytest.mark.parametrize("format", READ)
@pytest.mark.parametrize("pool", ["none", "avg", "grid:2"])
def test_values_names_and_labels_come_back(model, photos, tmp_path, format, pool):
    """Fails if rows and names are out of step, the preprocessing differs, or a shape is lost."""
    output = tmp_path / f"X.{format}"
    stream = open_stream(f"folder:{photos}")
    result = extract(model, stream, output, ["conv_5", "conv_2"], pool, batch_size=8)
    assert result == extraction.Result(23, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [output.name] + ["X.tfrecord.json"] * (format == "tfrecord")
    )
    for layer in ("conv_5", "conv_2"):
        names, features, labels, metadata = READ[format](output, layer)
        expected_names, values = expected(model, photos, layer, pool)
        assert tuple(names) == expected_names
        assert rounding.difference(values, features) <= allowed(model, photos, layer)
        assert features.dtype == np.float32
        classes = [metadata["class_names"][label] if label >= 0 else None for label in labels]
        assert classes == [name.split("/")[1] if name.startswith("train") else None for name in names]
    assert metadata["model_fingerprint"] == model.fingerprint
    assert metadata["preprocessing"]["central_crop"] == 0.85
    assert (metadata["images"], metadata["pool"], metadata["layers"]) == (23, pool, ["conv_5", "conv_2"])
    assert metadata["model"]["name"] == "features"


def test_streamed_views_are_those_of_test_batches(photos):
    """Fails if the stream decodes or preprocesses to other bits."""
    stream = open_stream(f"folder:{photos}")
    views = np.concatenate([view.images for view in stream.views(IMAGE, batch_size=5, first=3)])
    dataset = data.open_source(f"folder:{photos}", "all", progress=False)
    batches = np.concatenate(list(data.test_batches(dataset, IMAGE, batch_size=7).as_numpy_iterator()))
    np.testing.assert_array_equal(views, batches[3:])


def test_kinds_that_tensorflow_does_not_read_keep_their_place(tmp_path):
    """Fails on palettes read as grey levels, on animations, or if such a row moves to the end."""
    for seed, name in enumerate(["1.jpg", "2.bmp", "3.png", "4.bmp", "5.gif", "6.png", "7.png"]):
        save_photo(tmp_path / name, seed, "P" if name in ("2.bmp", "5.gif", "3.png") else "RGB")
    save_photo(tmp_path / "8.png", 8, "RGBA")
    save_photo(tmp_path / "9.png", 9, "L")
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    dataset = data.open_source(f"folder:{tmp_path}", progress=False)
    for size in (1, 3, 100):
        stream = open_stream(f"folder:{tmp_path}")
        assert stream.names == dataset.names
        views = np.concatenate([view.images for view in stream.views(IMAGE, batch_size=size)])
        batches = np.concatenate(list(data.test_batches(dataset, IMAGE, batch_size=7).as_numpy_iterator()))
        np.testing.assert_array_equal(views, batches)


def test_the_embedded_set(model, tmp_path):
    extract(model, open_stream("synthetic", "test[:5]+unlabelled[:2]"), tmp_path / "X.npz", pool="avg")
    names, features, labels, _ = read_npz(tmp_path / "X.npz", "conv_5")
    assert names[6] == "synthetic unlabelled[1]"
    assert features.shape == (7, 8)
    assert (labels >= 0).tolist() == [True] * 5 + [False] * 2


@pytest.mark.parametrize("format", READ)
def test_half_precision(model, photos, tmp_path, format):
    extract(model, open_stream(f"folder:{photos}"), tmp_path / f"X.{format}", pool="avg", dtype="float16")
    _, features, _, metadata = READ[format](tmp_path / f"X.{format}", "conv_5")
    np.testing.assert_allclose(features, expected(model, photos, "conv_5", "avg")[1], rtol=2**-10, atol=2**-10)
    assert metadata["dtype"] == "float16"


def test_a_broken_image_stops_it_and_what_is_done_stays(model, tmp_path):
    """Fails if a broken image shifts the rows, or if repairing it loses finished work."""
    for seed in range(30):
        save_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    bad = break_photo(tmp_path / "photos", "bad.jpg")
    stream = open_stream(f"folder:{tmp_path / 'photos'}")
    output = tmp_path / "X.npz"
    at = stream.names.index(bad)
    with pytest.raises(DataError, match=r"bad\.jpg is broken \(.*\)\. Repair or remove it, or pass --skip"):
        extract(model, stream, output, pool="avg", batch_size=4)
    assert not output.exists()
    assert json.loads((tmp_path / "X.npz.partial" / "progress.json").read_text())["done"] == at // 4 * 4
    result = extract(model, stream, output, pool="avg", batch_size=4, skip_broken_images=True)
    assert (result.images, list(result.broken)) == (30, [bad])
    names, features, _, metadata = read_npz(output, "conv_5")
    assert list(metadata["broken"]) == [bad]
    (tmp_path / "photos" / bad).unlink()
    expected_names, values = expected(model, tmp_path / "photos", "conv_5", "avg")
    assert tuple(names) == expected_names
    assert rounding.difference(values, features) <= allowed(model, tmp_path / "photos", "conv_5")


def test_all_broken(model, tmp_path):
    for index in range(5):
        break_photo(tmp_path / "photos", f"{index}.jpg")
    stream = open_stream(f"folder:{tmp_path / 'photos'}")
    with pytest.raises(DataError, match="all 5 images are broken"):
        extract(model, stream, tmp_path / "X.npz", batch_size=2, skip_broken_images=True)


@pytest.mark.parametrize("format", ["npz", pytest.param("parquet", marks=SLOW), pytest.param("tfrecord", marks=SLOW)])
def test_stopped_at_any_batch_it_ends_with_the_same_file(model, photos, tmp_path, format, monkeypatch):
    """Fails if rows are lost or repeated, or if the file holds a time of day."""
    stream = open_stream(f"folder:{photos}")
    extract(model, stream, tmp_path / f"whole.{format}", batch_size=3)
    output = tmp_path / f"X.{format}"
    stops = 0
    append = extraction._Partial.append

    def append_and_stop(partial, *args):
        append(partial, *args)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(extraction._Partial, "append", append_and_stop)
    while (result := extract(model, stream, output, batch_size=3)).signal is not None:
        assert (result.signal, output.exists()) == (signal.SIGTERM, False)
        stops += 1
    assert stops >= 8
    assert output.read_bytes() == (tmp_path / f"whole.{format}").read_bytes()


def test_stopped_while_the_file_is_written(model, photos, tmp_path, monkeypatch):
    stream = open_stream(f"folder:{photos}")
    output = tmp_path / "X.npz"
    extract(model, stream, tmp_path / "whole.npz")
    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "PIECE_BYTES", 1)
        header = np.lib.format.write_array_header_1_0
        patch.setattr(
            np.lib.format, "write_array_header_1_0", lambda *args: (header(*args), signal.raise_signal(signal.SIGINT))
        )
        assert extract(model, stream, output).signal == signal.SIGINT
    assert not output.exists()
    assert extract(model, stream, output).signal is None
    assert output.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_what_a_killed_process_wrote_beyond_its_record_is_dropped(model, photos, tmp_path, monkeypatch):
    stream = open_stream(f"folder:{photos}")
    output = tmp_path / "X.npz"
    extract(model, stream, tmp_path / "whole.npz", batch_size=4)
    monkeypatch.setattr(feature_files, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(model, stream, output, batch_size=4)
    monkeypatch.undo()
    folder = tmp_path / "X.npz.partial"
    progress = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps({**progress, "done": 8}))
    extract(model, stream, output, batch_size=4)
    assert output.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_another_request_is_never_mixed_in(model, photos, tmp_path, monkeypatch):
    stream = open_stream(f"folder:{photos}")
    output = tmp_path / "X.npz"
    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract(model, stream, output, pool="avg")
    with pytest.raises(ExtractionError, match=r"holds part of another extraction\. Received: pool: avg -> max"):
        extract(model, stream, output, pool="max")
    assert extract(model, stream, output, pool="avg") == extraction.Result(23, {})
    assert extract(model, stream, output, pool="avg").already_complete
    with pytest.raises(ExtractionError, match=r"X\.npz exists and differs\. Received: layers: "):
        extract(model, stream, output, ["conv_1"], pool="avg")
    with pytest.raises(ExtractionError, match=r"exists and differs\. Received: data_fingerprint: "):
        extract(model, open_stream(f"folder:{photos}", "train"), output, pool="avg")
    output.write_text("my thesis")
    with pytest.raises(FeatureFileError, match="cannot be read as a feature file"):
        extract(model, stream, output, pool="avg")
    assert output.read_text() == "my thesis"


def test_other_pixels_of_one_size_are_another_request(model, tmp_path):
    """Fails if images that changed within the same names and sizes pass as finished."""
    save_photo(tmp_path / "photos" / "a.bmp", 7)
    extract(model, open_stream(f"folder:{tmp_path / 'photos'}"), tmp_path / "X.npz")
    save_photo(tmp_path / "photos" / "a.bmp", 14)
    with pytest.raises(ExtractionError, match=r"exists and differs\. Received: data_fingerprint: "):
        extract(model, open_stream(f"folder:{tmp_path / 'photos'}"), tmp_path / "X.npz")


@pytest.mark.parametrize("format", READ)
def test_names_that_are_no_text(model, tmp_path, format):
    """Fails if a name in Latin-1 stops the extraction at its end."""
    root = tmp_path / "photos"
    save_photo(root / "a.png", 1)
    os.rename(root / "a.png", os.path.join(os.fsencode(root), b"caf\xe9.png"))
    output = tmp_path / f"X.{format}"
    assert extract(model, open_stream(f"folder:{root}"), output, pool="avg") == extraction.Result(1, {})
    assert extract(model, open_stream(f"folder:{root}"), output, pool="avg").already_complete


def test_folders_that_cannot_be_listed_are_in_the_metadata(model, tmp_path):
    """Fails if the images of a class are missing without a word in the file."""
    save_photo(tmp_path / "photos" / "cat" / "a.png", 1)
    os.symlink("nowhere", tmp_path / "photos" / "dog")
    stream = open_stream(f"folder:{tmp_path / 'photos'}", skip_broken_images=True)
    result = extract(model, stream, tmp_path / "X.npz", skip_broken_images=True, pool="avg")
    assert result == extraction.Result(1, {"dog": "link without a target"})
    *_, metadata = read_npz(tmp_path / "X.npz", "conv_5")
    assert (metadata["images"], metadata["broken"]) == (1, {"dog": "link without a target"})


def test_a_damaged_partial_folder(model, photos, tmp_path):
    stream = open_stream(f"folder:{photos}")
    folder = tmp_path / "X.npz.partial"
    folder.mkdir()
    (folder / "progress.json").write_text("{")
    with pytest.raises(ExtractionError, match=r"is damaged\. Remove it"):
        extract(model, stream, tmp_path / "X.npz")


@pytest.mark.parametrize(
    "change",
    [{"done": "5"}, {"done": 100}, {"done": -1}, {"done": 5, "broken": {"99": "x"}}, {"request": []}, {"broken": []}],
)
def test_progress_of_another_shape(model, photos, tmp_path, monkeypatch, change):
    """Fails if a changed record gives a traceback, or values of other images."""
    stream = open_stream(f"folder:{photos}")
    with monkeypatch.context() as patch:
        patch.setattr(feature_files, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract(model, stream, tmp_path / "X.npz", pool="avg")
    path = tmp_path / "X.npz.partial" / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ExtractionError, match=r"is damaged\. Remove it"):
        extract(model, stream, tmp_path / "X.npz", pool="avg")


def test_a_partial_folder_of_a_finished_output_is_removed(model, photos, tmp_path):
    """Fails if a process that is killed after its last rename leaves gigabytes forever."""
    stream = open_stream(f"folder:{photos}")
    output = tmp_path / "X.npz"
    extract(model, stream, output, pool="avg")
    folder = tmp_path / "X.npz.partial"
    folder.mkdir()
    (folder / "conv_5.raw").write_bytes(b"gigabytes")
    from lts.utils import files

    with files.locked(folder):
        assert extract(model, stream, output, pool="avg").already_complete
        assert folder.exists()
    assert extract(model, stream, output, pool="avg").already_complete
    assert [path.name for path in tmp_path.iterdir()] == ["X.npz"]


def test_files_of_the_user_next_to_an_output_are_kept(model, photos, tmp_path):
    """Fails if a file is deleted or replaced because it has a name of an extraction."""
    stream = open_stream(f"folder:{photos}")
    (tmp_path / "X.npz.partial").mkdir()
    (tmp_path / "X.npz.partial" / "1.raw").write_text("precious")
    with pytest.raises(ExtractionError, match=r"1\.raw is no partial result"):
        extract(model, stream, tmp_path / "X.npz", pool="avg")
    (tmp_path / "X.tfrecord.json").write_text('{"notes": "precious"}')
    with pytest.raises(FeatureFileError, match=r"X\.tfrecord\.json is no metadata"):
        extract(model, stream, tmp_path / "X.tfrecord", pool="avg")
    assert (tmp_path / "X.npz.partial" / "1.raw").exists()
    assert "precious" in (tmp_path / "X.tfrecord.json").read_text()


def test_a_link_stays(model, photos, tmp_path):
    """Fails if the features are written next to a link to another disk, instead of to its target."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "X.npz").symlink_to(tmp_path / "disk" / "features.npz")
    extract(model, open_stream(f"folder:{photos}"), tmp_path / "X.npz", pool="avg")
    assert (tmp_path / "X.npz").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["features.npz"]
    assert extract(model, open_stream(f"folder:{photos}"), tmp_path / "X.npz", pool="avg").already_complete


def test_two_processes_at_one_output(model, photos, tmp_path):
    from lts.utils import files

    with files.locked(tmp_path / "X.npz.partial"), pytest.raises(ExtractionError, match="is in use by process"):
        extract(model, open_stream(f"folder:{photos}"), tmp_path / "X.npz")


def test_formats(tmp_path, monkeypatch):
    with pytest.raises(FormatError, match=r"must end in \.npz, \.tfrecord, \.parquet. Received: output='X.csv'"):
        feature_files.check_format("X.csv")
    monkeypatch.setattr(feature_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FormatError, match="need pyarrow"):
        feature_files.check_format("X.parquet")
