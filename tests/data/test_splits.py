"""Split specifications in the syntax of tfds."""

import pytest

from lts.data.held_out import HELD_OUT, REST
from lts.data.splits import may_overlap, resolve
from lts.data.store import DataError

COUNTS = {"test": 4, "train": 10, "unlabelled": 6}


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("train", [("train", 0, 10)]),
        ("unlabelled+train", [("unlabelled", 0, 6), ("train", 0, 10)]),
        ("unlabelled + train", [("unlabelled", 0, 6), ("train", 0, 10)]),
        ("train[:80%]", [("train", 0, 8)]),
        ("train[80%:]", [("train", 8, 10)]),
        ("train[-3:]+test[:1]", [("train", 7, 10), ("test", 0, 1)]),
        ("all", [("test", 0, 4), ("train", 0, 10), ("unlabelled", 0, 6)]),
        ("all[50%:]", [("train", 6, 10), ("unlabelled", 0, 6)]),
        ("all[2:4]", [("test", 2, 4)]),
        ("train+all[:1]", [("train", 0, 10), ("test", 0, 1)]),
        ("train[5:]+train[:5]", [("train", 5, 10), ("train", 0, 5)]),
    ],
)
def test_pieces(split, pieces):
    assert resolve(split, COUNTS, "folder:x") == pieces


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", r"has no split 'validation'.* test \(4\), train \(10\), unlabelled \(6\), all \(20\)"),
        ("train+", "folder:x has no split ''"),
        ("train[:99]", r"cannot be split: .*Received: split='train\[:99\]'"),
        ("train[a:b]", "cannot be split: "),
        ("all[:99]", r"cannot be split: .*split='all\[:99\]'"),
        ("train[5:5]", "selects no images"),
        ("train[7:3]", "selects no images"),
        ("test+test", r"selects images of folder:x twice\. Received: split='test\+test'"),
        ("train[:50%]+train[40%:]", "selects images of folder:x twice"),
        ("train+all", "selects images of folder:x twice"),
        ("train[:1shard]", "not by shards"),
    ],
)
def test_errors_are_one_clear_line(split, message):
    with pytest.raises(DataError, match=message) as caught:
        resolve(split, COUNTS, "folder:x")
    assert "\n" not in str(caught.value)
    assert "_all_" not in str(caught.value)


def test_a_set_whose_only_split_is_all():
    assert resolve("all[:1]", {"all": 3}, "folder:x") == [("all", 0, 1)]


@pytest.mark.parametrize(
    ("dataset", "split", "other_dataset", "other_split", "overlap"),
    [
        ("folder:{0}", "all", "folder:{0}", "test", True),
        ("folder:{0}", "all", "folder:{0}/test", "all", True),
        ("folder:{0}/train", "all", "folder:{0}", "test", False),
        ("folder:{0}", "train", "folder:{0}/test", "all", False),
        ("folder:{0}", "linked", "folder:{0}", "test", True),
        ("folder:{0}", "train[:50%]", "folder:{0}", "train[50%:]", False),
        ("folder:{0}", "train[:60%]", "folder:{0}", "train[50%:]", True),
        ("folder:{0}", "train[:10]", "folder:{0}", "train[50%:]", True),
        ("folder:{0}", "train[:-10]", "folder:{0}", "train[-10:]", True),
        ("folder:{0}", f"all{HELD_OUT}", "folder:{0}", f"all{REST}", False),
        ("folder:{0}", f"all{HELD_OUT}", "folder:{0}", "all", True),
        ("folder:{0}", f"all{HELD_OUT}", "folder:{0}", "all[:50%]", True),
        ("tfds:stl10", "unlabelled+train", "tfds:stl10:1.0.0", "train[:5]", True),
        ("tfds:voc/2007", "train", "tfds:voc/2012", "train", False),
        ("synthetic", "unlabelled", "synthetic", "test", False),
        ("synthetic", "all", "synthetic", "test", True),
        ("synthetic", "all", "folder:synthetic", "all", False),
    ],
)
def test_selections_that_may_overlap(tmp_path, dataset, split, other_dataset, other_split, overlap):
    """Fails if training images pass for held-out ones by another name, or the other way round."""
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "test")
    first = (dataset.format(tmp_path), split)
    second = (other_dataset.format(tmp_path), other_split)
    assert may_overlap(*first, *second) == overlap
    assert may_overlap(*second, *first) == overlap
