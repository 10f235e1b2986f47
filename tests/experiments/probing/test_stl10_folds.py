"""The folds of STL-10: their file, the order in which tfds writes images, mean and deviation."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import linear_probe
from experiments.probing import linear, stl10_folds
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import FoldsProtocol
from lts import data
from tests.fixtures import probe_binaries, probing

COUNT = 30


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A small STL-10 of tfds' builder. Image number i of the official order has the colour i."""
    source = tmp_path / "download" / "stl10_binary"
    source.mkdir(parents=True)
    (source / "class_names.txt").write_text("\n".join("abcdefghij") + "\n")
    images = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 3, 96, 96))
    for name in ("train", "test", "unlabeled"):
        (source / f"{name}_X.bin").write_bytes(images.tobytes())
        (source / f"{name}_y.bin").write_bytes((np.arange(COUNT, dtype=np.uint8) % 10 + 1).tobytes())
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda *_: str(source.parent))
    return str(tmp_path / "data")


def test_rows_are_the_official_images_though_tfds_shuffles(prepared):
    """Fails if the order of tfds is not undone, for example because tfds changes its hash."""
    train = data.open_source("tfds:stl10", "train", role="train", data_dir=prepared, progress=False)
    colours = np.array([int(train.read(row)[0, 0, 0]) for row in range(COUNT)])
    assert (colours != np.arange(COUNT)).any()  # else there is nothing to undo
    official = [np.arange(10), np.array([29, 3, 11])]
    for fold, rows in zip(official, stl10_folds.rows_of_folds(official, train), strict=True):
        np.testing.assert_array_equal(colours[rows], fold)
        np.testing.assert_array_equal(train.labels[rows], fold % 10)


def test_the_file_has_a_line_per_fold(tmp_path):
    """Fails if folds or the order of their indices are lost."""
    path = tmp_path / "fold_indices.txt"
    path.write_text("3 1 2 \n7 0 5 \n")
    assert [fold.tolist() for fold in stl10_folds.read_folds(path)] == [[3, 1, 2], [7, 0, 5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: .*Give fold_indices.txt of STL-10"),
        ("1 2 three\n4 5 6\n", "must contain a line of indices for each fold"),
        ("1 99999999999999999999999\n4 5\n", "must contain a line of indices for each fold"),
        ("1 2 3\n", "at least two folds"),
        ("1 2 2\n3 4 5\n", "different indices"),
        ("1 -2\n3 4\n", "different indices"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    """Fails if a wrong file is accepted, or its error has several lines."""
    path = tmp_path / "fold_indices.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ProbeError, match=message) as error:
        stl10_folds.read_folds(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "tfds:cifar10"}, "Received: tfds:cifar10"),
        ({"split": "train[:50]"}, r"split 'train\[:50\]'"),
        ({"broken": ("one",)}, "1 images skipped"),
        ({}, "must be below 60. Received: 60"),
    ],
)
def test_other_images_are_refused(change, message):
    """Fails if the folds are applied to images that they do not belong to."""
    train = probing.source("train")
    train.name = "tfds:stl10"
    for name, value in change.items():
        setattr(train, name, value)
    with pytest.raises(ProbeError, match=message):
        stl10_folds.rows_of_folds([np.array([0, 60]), np.array([1, 2])], train)


def test_each_fold_is_a_probe_of_its_images():
    """Fails if a fold is fitted to other images, or mean and deviation are wrong."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    train = generator.normal(size=(90, 8)) + labels[:, None]
    test = generator.normal(size=(90, 8)) + labels[:, None]
    rows = [np.arange(0, 60), np.arange(30, 90)]
    probe = stl10_folds.FoldsProbe(protocol=FoldsProtocol(), train=None, test=None, output=None, folds=rows)
    record = probe.measure(train, labels, test, labels)
    single = []
    for fold in rows:
        splits = [linear.hold_out(labels[fold], FoldsProtocol())]
        result = linear.linear_probe(train[fold], labels[fold], test, labels, "logistic", splits)
        single.append(result.correct.mean())
    assert record["accuracies"] == pytest.approx(single)
    assert record["accuracy"] == pytest.approx(np.mean(single))
    assert record["deviation"] == pytest.approx(np.std(single, ddof=1))


def test_the_program(stand_in_world, tmp_path):
    """Fails if the program does not probe the ten folds, or its table does not show their deviation."""
    stand_in_world["sources"]["train"].name = "tfds:stl10"
    lines = [" ".join(map(str, np.random.default_rng(seed).permutation(60)[:45])) for seed in range(10)]
    (tmp_path / "fold_indices.txt").write_text("\n".join(lines))
    flags = ["--protocol=stl10_folds", f"--folds={tmp_path}/fold_indices.txt", "--projector_images=0"]
    results = probe_binaries.run_stand_ins(linear_probe, tmp_path / "out", "--baseline=runs/a", *flags)
    assert results["protocol"]["name"] == "stl10_folds"
    assert len(results["protocol"]["folds"]) == 16
    record = results["model"]["layers"]["conv_1"]
    assert len(record["accuracies"]) == 10
    shown = f"{100 * record['accuracy']:.1f} ± {100 * record['deviation']:.1f}"
    assert shown in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize("flags", [["--protocol=stl10_folds"], ["--protocol=logistic", "--folds=x"]])
def test_folds_and_protocol_go_together(flags):
    """Fails if --folds is missing, or ignored."""
    arguments = ["--model=nothing/here", *probe_binaries.SPLITS, *flags]
    probe_binaries.check_error(linear_probe, arguments, 2, "--folds=fold_indices.txt")
