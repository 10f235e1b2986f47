"""Image folders: the three layouts, splits, labels, broken files."""

import errno
import os
import pathlib
import shutil

import numpy as np
import pytest

from lts.data import DataError, open_source
from lts.data.sources import describe_other_files
from lts.data.store import FileStore, MemoryStore
from lts.extraction.stream import open_stream
from tests.data.conftest import NEUTRAL, picture


def open_folder(root, split=None, **options):
    return open_source(f"folder:{root}", split, progress=False, **options)


def classes(dataset) -> list[str]:
    return [dataset.class_names[label] for label in dataset.labels]


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_split_class_image(tree):
    """Fails if classes are numbered per split, so that train and test disagree."""
    train = open_folder(tree, role="train")
    test = open_folder(tree, role="test")
    assert (train.split, test.split) == ("train", "test")
    assert train.class_names == test.class_names == ("a", "b", "c")
    assert (train.num_examples, test.num_examples) == (8, 4)
    for dataset in (train, test):
        assert classes(dataset) == [name.split("/")[1] for name in dataset.names]
        assert dataset.labels.dtype == np.int64


def test_classes_that_may_be_one(tmp_path, save, capsys):
    """Fails if a class that was copied from two systems is divided in two without a word."""
    for name in ("Cat", "cat", "caf\u00e9", "cafe\u0301", "dog"):
        for index in range(3):
            save(f"{name}/{index}.png")
    assert open_folder(tmp_path, role="test").num_classes == 5
    assert capsys.readouterr().err == ""  # the training images are opened, too
    assert open_folder(tmp_path, role="train").num_classes == 5
    warnings = capsys.readouterr().err
    assert "classes differ only in case or Unicode form. Received: Cat, cat. Merge them" in warnings
    assert warnings.count("Received: ") == 2


def test_pretraining_takes_everything(tree):
    dataset = open_folder(tree)
    assert dataset.num_examples == 17
    assert np.bincount(dataset.labels + 1).tolist() == [5, 4, 6, 2]  # some have no class
    assert open_folder(tree, "unlabelled").labels is None


def test_limit(tree):
    """Fails if a limit takes other images than the first, or more of the synthetic set's later ranges."""
    everything = open_folder(tree, role="train")
    for limit, count in ((3, 3), (100, 8)):
        first = open_folder(tree, role="train", limit=limit)
        assert first.names == everything.names[:count]
        np.testing.assert_array_equal(first.labels, everything.labels[:count])
    for limit, names in ((1, ["train[0]"]), (3, ["train[0]", "train[1]", "test[5]"])):
        synthetic = open_source("synthetic", "train[:2]+test[5:9]", limit=limit, progress=False)
        assert synthetic.names == tuple(f"synthetic {name}" for name in names)
        assert synthetic.num_examples == len(synthetic.labels) == len(names)


def test_sum_of_splits(tree):
    dataset = open_folder(tree, "unlabelled+train")
    assert dataset.num_examples == 13
    assert [name.split("/")[0] for name in dataset.names] == ["unlabelled"] * 5 + ["train"] * 8


def test_slices_cut_without_overlap(tree):
    """Fails if the order changes, so that validation images are trained on."""
    first = open_folder(tree, "train[:75%]").names
    second = open_folder(tree, "train[75%:]").names
    assert len(first) == 6
    assert first + second == open_folder(tree, "train").names


def test_slices_hold_all_classes(tmp_path, save):
    """Fails on the order of the file system, whose first half is one class."""
    for name in "ab":
        for index in range(10):
            save(f"train/{name}/{index}.png")
    assert set(open_folder(tmp_path, "train[:50%]", role="train").labels) == {0, 1}


def test_class_image(tmp_path, save):
    for name in ("dog/1.png", "cat/1.png", "cat/2.png"):
        save(name)
    dataset = open_folder(tmp_path, "all", role="train")
    assert dataset.class_names == ("cat", "dog")
    assert sorted(dataset.labels) == [0, 0, 1]
    assert open_folder(tmp_path, "all[:2]").num_examples == 2


def test_a_named_folder_is_a_split_even_without_classes(tmp_path, save):
    for name in ("one/1.png", "one/2.png", "two/1.png"):
        save(name)
    dataset = open_folder(tmp_path, "one")
    assert dataset.num_examples == 2
    assert dataset.labels is None


def test_images_alone(tmp_path, save):
    for index in range(3):
        save(f"{index}.png")
    dataset = open_folder(tmp_path)
    assert (dataset.num_examples, dataset.labels, dataset.class_names) == (3, None, ())


def test_kinds_of_files(tmp_path, save):
    """Fails on upper-case extensions, hidden files, or text next to the images."""
    for name in ("a.JPG", "b.jpeg", "c.PNG", "d.bmp", "e.gif", "deep/er/f.jpg", "g.webp", "h.tif"):
        save(name)
    save(".hidden/x.png")
    save(".y.png")
    (tmp_path / "README.txt").write_text("no image")
    assert sorted(pathlib.PurePath(name).stem for name in open_folder(tmp_path).names) == list("abcdefgh")


def test_links_are_followed_and_circles_end(tmp_path, save):
    save("real/a/1.png")
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "real" / "a", root / "a")
    os.symlink(root, root / "circle")
    os.symlink(tmp_path, root / "above")
    assert open_folder(root).names == ("a/1.png",)


def test_two_names_of_one_folder(tmp_path, save):
    """Fails if a link that is no circle is dropped: which name would be kept depends on the disk."""
    for name in ("val/cat/1.png", "val/dog/2.png", "train/cat/3.png"):
        save(name)
    os.symlink("val", tmp_path / "test")
    os.symlink(tmp_path / "val" / "cat", tmp_path / "train" / "dog")
    test = open_folder(tmp_path, role="test")
    assert sorted(test.names) == ["test/cat/1.png", "test/dog/2.png"]
    assert open_folder(tmp_path, "val").num_examples == 2
    assert sorted(open_folder(tmp_path, role="train").names) == ["train/cat/3.png", "train/dog/1.png"]
    assert open_folder(tmp_path).num_examples == 6


def make_unreadable(folder: str, monkeypatch) -> None:
    """Let a folder fail as one without the right to list it does; the tests may run as root."""
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_that_cannot_be_listed_stops_by_default(tree, monkeypatch, kind):
    """Fails if a class is missing without a word."""
    if kind == "folder":
        make_unreadable(os.path.join(tree, "train", "b"), monkeypatch)
        name = "train/b"
        remaining = 13
    else:
        os.symlink(os.path.join(tree, "nowhere"), os.path.join(tree, "train", "linked"))
        name = "train/linked"
        remaining = 17
    for open_it in (open_folder, lambda root: open_stream(f"folder:{root}")):
        with pytest.raises(DataError, match=rf"{name} cannot be listed \(.*\)\. .*--skip_broken_images") as caught:
            open_it(tree)
        one_line(caught)
    dataset = open_folder(tree, skip_broken_images=True)
    assert dataset.broken == (name,)
    assert dataset.num_examples == remaining
    stream = open_stream(f"folder:{tree}", skip_broken_images=True)
    assert list(stream.unlisted) == [name]
    assert len(stream.names) == remaining


def test_thumbnails_and_system_folders_are_no_classes(tmp_path, save):
    """Fails if thumbnails of cameras, NAS and archives become classes or images."""
    save("cat/1.png")
    for name in ("@eaDir/1.png", "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/1.png", ".thumbnails/1.png"):
        save(name)
    for name in ("cat/._1.png", "lost+found/1.png", "#recycle/1.png"):
        save(name)
    dataset = open_folder(tmp_path, "all", role="train")
    assert dataset.names == ("cat/1.png",)
    assert dataset.class_names == ("cat",)


def test_files_that_are_not_read_are_counted(tmp_path, save, capsys):
    """Fails if photographs of another format are missing without a word."""
    save("a.jpg")
    for name in ("1.heic", "2.HEIC", "labels.txt", "README", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    open_source(f"folder:{tmp_path}")
    expected = "4 files of other kinds are not read: .heic 2, .txt 1, without extension 1"
    assert expected in capsys.readouterr().out
    assert describe_other_files(open_stream(f"folder:{tmp_path}").other_files) == expected


def test_names_that_are_no_text(tmp_path, save):
    """Fails if a name in Latin-1 stops a reader."""
    root = os.fsencode(tmp_path)
    os.mkdir(os.path.join(root, b"kat\xe9gorie"))
    for index in range(3):
        os.rename(save(f"{index}.png", seed=index), os.path.join(root, b"kat\xe9gorie", b"caf\xe9%d.png" % index))
    memory = open_folder(tmp_path, "all", role="train")
    files = open_folder(tmp_path, "all", role="train", cache_gb=0)
    assert memory.class_names == ("kat\udce9gorie",)
    assert memory.fingerprint == files.fingerprint == open_stream(f"folder:{tmp_path}").fingerprint
    for index in range(3):
        np.testing.assert_array_equal(memory.read(index), files.read(index))
    (views,) = open_stream(f"folder:{tmp_path}").views(NEUTRAL, batch_size=3)
    assert len(views.images) == 3


def test_images_are_what_was_written(tmp_path, save):
    """Fails if images and names are out of step."""
    for seed in range(6):
        save(f"{seed}.png", seed=seed)
    dataset = open_folder(tmp_path)
    for index, name in enumerate(dataset.names):
        np.testing.assert_array_equal(dataset.read(index), picture(seed=int(pathlib.PurePath(name).stem)))


def test_files_equal_memory(tree):
    memory = open_folder(tree)
    files = open_folder(tree, cache_gb=0)
    assert isinstance(memory.store, MemoryStore)
    assert isinstance(files.store, FileStore)
    assert memory.fingerprint == files.fingerprint
    for index in range(memory.num_examples):
        np.testing.assert_array_equal(memory.read(index), files.read(index))


@pytest.mark.parametrize("cache_gb", [0, 1])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_file_stops_by_default(tmp_path, save, damage, cache_gb):
    for index in range(3):
        save(f"{index}.jpg", seed=index)
    bad = pathlib.Path(save("bad.jpg"))
    bad.write_bytes({"truncated": bad.read_bytes()[:-300], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(DataError, match=r"bad\.jpg is broken .*--skip_broken_images") as caught:
        open_folder(tmp_path, cache_gb=cache_gb)
    one_line(caught)
    dataset = open_folder(tmp_path, cache_gb=cache_gb, skip_broken_images=True)
    assert dataset.broken == ("bad.jpg",)
    assert dataset.num_examples == 3
    for index, name in enumerate(dataset.names):  # the others did not move
        difference = dataset.read(index).numpy() - picture(seed=int(pathlib.PurePath(name).stem)).astype(float)
        assert np.abs(difference).mean() < 25


def test_labels_follow_when_a_file_is_skipped(tmp_path, save):
    for name in "abc":
        save(f"train/{name}/1.png")
    (tmp_path / "train/b/1.png").write_bytes(b"")
    dataset = open_folder(tmp_path, role="train", skip_broken_images=True)
    assert classes(dataset) == [name.split("/")[1] for name in dataset.names]
    assert dataset.class_names == ("a", "b", "c")


def test_all_broken(tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="all 1 images are broken"):
        open_folder(tmp_path, skip_broken_images=True)


def test_skipped_files_are_listed(tmp_path, save, capsys):
    save("good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    open_source(f"folder:{tmp_path}", skip_broken_images=True)
    assert "skipped 1 broken images: bad.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("root", "split", "role", "message"),
    [
        ("missing", None, "pretrain", "missing is not a folder"),
        ("empty", None, "pretrain", r"empty holds no images \(\.jpg"),
        (".", "validation", "pretrain", r"no split 'validation'.* test \(4\), train \(8\), unlabelled \(5\), all"),
        (".", "unlabelled", "train", r"unlabelled/\d\.png is in no class folder"),
        (".", "train[:0]", "train", "selects no images"),
    ],
)
def test_errors_are_one_clear_line(tree, root, split, role, message):
    pathlib.Path(tree, "empty").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        open_folder(os.path.join(tree, root), split, role=role)
    one_line(caught)


def test_a_folder_without_its_kind(tmp_path):
    """Fails if a bare path is refused without the form that works."""
    with pytest.raises(DataError, match=rf"Received: dataset='{tmp_path}'\. Give --dataset=folder:{tmp_path}\."):
        open_source(str(tmp_path))


@pytest.mark.parametrize("dataset", ["stl10", "folder:", "tfds:", "zip:x", ""])
def test_unknown_kind_of_dataset(dataset):
    with pytest.raises(DataError, match="synthetic, tfds:NAME or folder:PATH"):
        open_source(dataset)


def test_fingerprint_tells_changes(tree, save):
    """Fails if a run could resume on other data."""
    before = open_folder(tree).fingerprint
    assert before == open_folder(tree).fingerprint
    assert before != open_folder(tree, "train").fingerprint
    save("train/a/new.png")
    assert before != open_folder(tree).fingerprint


def test_fingerprint_tells_contents_from_place(tmp_path, save):
    """Fails if other pixels of the same name and size pass as the same images, or a copied folder as another one."""

    def fingerprints(root):
        memory = open_folder(root).fingerprint
        assert open_folder(root, cache_gb=0).fingerprint == memory
        return memory, open_stream(f"folder:{root}").fingerprint

    save("photos/a.bmp", seed=1)
    before = fingerprints(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    os.utime(tmp_path / "copy" / "a.bmp", (0, 0))
    assert fingerprints(tmp_path / "copy") == before
    save("photos/a.bmp", seed=2)
    after = fingerprints(tmp_path / "photos")
    assert after[0] != before[0]
    assert after[1] != before[1]
