"""Shares of the labels."""

import numpy as np
import pytest

from lts.data import DataError, labels_digest, open_source, share_of_labels

LABELS = np.array([0] * 30 + [1] * 11 + [2] * 2 + [-1] * 7)
NAMES = [f"image {index}.png" for index in range(50)]


def test_shares_are_stratified_and_nested():
    """Fails if a class loses all labels, an unknown one gets a label, or a larger share drops one of a smaller."""
    smaller = np.zeros(50, bool)
    for share, counts in ((0.01, [1, 1, 1]), (0.1, [3, 1, 1]), (0.5, [15, 6, 1]), (1, [30, 11, 2])):
        kept = share_of_labels(LABELS, NAMES, share)
        assert np.bincount(kept[kept >= 0]).tolist() == counts
        np.testing.assert_array_equal(kept[kept >= 0], LABELS[kept >= 0])
        assert (kept[smaller] >= 0).all()
        smaller = kept >= 0


def test_the_choice_depends_on_the_names():
    """Fails if another order, or further images without a label, choose other images."""
    known = share_of_labels(LABELS, NAMES, 0.2)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(share_of_labels(LABELS[order], [NAMES[row] for row in order], 0.2), known[order])
    labelled = LABELS >= 0
    alone = share_of_labels(LABELS[labelled], np.array(NAMES)[labelled], 0.2)
    np.testing.assert_array_equal(alone, known[labelled])


def test_digest():
    """Fails if another label or image goes unnoticed, or images without a label, order or spelling count."""
    digest = labels_digest(LABELS, NAMES)
    order = np.random.default_rng(0).permutation(43)
    assert labels_digest(LABELS[order], [f"tfds:x:1.0.0 {NAMES[row]}" for row in order]) == digest
    changed = LABELS.copy()
    changed[3] = 1
    assert labels_digest(changed, NAMES) != digest
    assert labels_digest(LABELS, ["other.png", *NAMES[1:]]) != digest


@pytest.mark.parametrize("dataset", ["folder", "synthetic"])
def test_a_part_of_a_split_is_opened(dataset, tmp_path, save):
    """Fails if the images are not those of the labels, or the data set is taken for the whole one."""
    name = "synthetic"
    if dataset == "folder":
        name = f"folder:{tmp_path}"
        for index in range(30):
            save(f"train/{'ab'[index % 2]}/{index}.png")
            save(f"unlabelled/{index}.png")
    split = "train[:30]" if dataset == "synthetic" else "train"
    whole = open_source(name, split, role="train", progress=False)
    part = open_source(name, split, role="train", labels_share=0.2, progress=False)
    kept = np.flatnonzero(share_of_labels(whole.labels, whole.names, 0.2) >= 0)
    assert part.names == tuple(whole.names[row] for row in kept)
    np.testing.assert_array_equal(part.labels, whole.labels[kept])
    np.testing.assert_array_equal(part.read(1), whole.read(int(kept[1])))
    assert part.fingerprint != whole.fingerprint
    assert part.split == f"{split}, 20 % of each class"
    if dataset == "folder":
        pretraining = open_source(name, "unlabelled+train", progress=False)
        known = share_of_labels(pretraining.labels, pretraining.names, 0.2)
        assert {pretraining.names[row] for row in np.flatnonzero(known >= 0)} == set(part.names)
        with pytest.raises(DataError, match="has no label"):
            open_source(name, "unlabelled", role="train", labels_share=0.2, progress=False)
