"""Nearest neighbours against a loop in NumPy; the choice of k; the binary on stand-ins and on a real tiny export."""

import json

import numpy as np
import pytest

from experiments import knn_probe
from experiments.probing import knn
from experiments.probing.features import ProbeError
from experiments.probing.protocols import KnnProtocol
from tests.fixtures import probe_binaries, probing

BINARY = "knn_probe"


def _vote(train, labels, image, k):
    """One image's label, written as the definition says."""
    similarity = train @ image / (np.linalg.norm(train, axis=1) * np.linalg.norm(image))
    nearest = np.argsort(-similarity, kind="stable")[:k]
    votes = {label: np.exp(similarity[nearest][labels[nearest] == label] / 0.07).sum() for label in labels[nearest]}
    return max(votes, key=votes.get)


@pytest.mark.parametrize(("images", "classes"), [(2, 2), (9, 2), (30, 3), (31, 7)])
def test_votes_are_those_of_the_definition(images, classes):
    generator = np.random.default_rng(images)
    train, new = generator.normal(size=(images, 5)), generator.normal(size=(7, 5))
    labels = 10 * generator.integers(0, classes, images) + 3  # not 0 to n
    ks = sorted({1, images // 2 + 1, images})
    found = knn.predict(train.astype(np.float32), labels, new.astype(np.float32), ks)
    expected = [[_vote(train, labels, image, k) for image in new] for k in ks]
    np.testing.assert_array_equal(found, expected)


def test_the_length_of_features_does_not_matter():
    generator = np.random.default_rng(0)
    train, new, labels = generator.normal(size=(40, 6)), generator.normal(size=(20, 6)), np.arange(40) % 4
    longer = new * generator.uniform(0.1, 10, (20, 1))
    np.testing.assert_array_equal(*(knn.predict(train, labels, images, [1, 5, 20]) for images in (new, longer)))


def test_k_is_chosen_on_training_images_alone():
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    train = generator.normal(size=(200, 20)) + 0.35 * np.where(labels, 1, -1)[:, None]  # much noise: one says little
    k, _ = knn.choose_neighbours(train, labels, KnnProtocol())
    assert k >= 10
    right, wrong = (knn.measure(train, labels, train, truth, KnnProtocol()) for truth in (labels, 1 - labels))
    assert right["neighbours"] == wrong["neighbours"] == k
    assert right["accuracy"] == pytest.approx(1 - wrong["accuracy"])


def test_k_is_never_more_than_the_images():
    labels = np.arange(20) % 2
    k, _ = knn.choose_neighbours(np.random.default_rng(0).normal(size=(20, 3)), labels, KnnProtocol(neighbours=(500,)))
    assert k == 16  # the images that are not held out


def test_a_class_with_one_image_is_refused():
    with pytest.raises(ProbeError, match="too few training images"):
        knn.choose_neighbours(np.zeros([21, 2]), np.r_[np.arange(20) % 2, 9], KnnProtocol())


def test_results_of_the_binary(stand_in_world, tmp_path):
    results = probe_binaries.run(knn_probe, tmp_path, "--baseline=runs/a,runs/b", "--neighbours=10,3,3")
    assert results["protocol"]["neighbours"] == [3, 10]
    assert results["protocol"]["name"] == "knn"
    for layer in ("conv_1", "conv_2"):
        record = results["model"]["layers"][layer]
        assert record["neighbours"] in (3, 10)
        mean = np.mean([model["layers"][layer]["accuracy"] for model in results["baselines"]])
        assert results["difference"][layer]["accuracy"] == pytest.approx(record["accuracy"] - mean)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md", "results.png"]
    assert "nearest neighbours by cosine similarity" in (tmp_path / "results.md").read_text()


def test_a_stopped_run_goes_on(stand_in_world, tmp_path, monkeypatch):
    probe_binaries.check_goes_on(knn_probe, knn, "measure", stand_in_world, tmp_path, monkeypatch)


def _no_labels(sources):
    sources["train"].labels = None


def _one_image(sources):
    sources["train"] = probing.ImageDataset("train", sources["train"].images[:41], sources["train"].labels[:41])


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda sources: None, ["--layers=conv_9"], "runs/features has no layer 'conv_9'; it has conv_1, conv_2"),
        (_no_labels, [], "training images have no labels"),
        (_one_image, [], "has one training image, and needs 2 at least"),
    ],
)
def test_errors_of_model_and_data_are_one_line(stand_in_world, tmp_path, change, arguments, message):
    change(stand_in_world["sources"])
    with pytest.raises(ProbeError, match=message) as error:
        probe_binaries.run(knn_probe, tmp_path, *arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--neighbours=0,5"], 2, "neighbours must be"),
        (["--neighbours=five"], 2, "neighbours must be"),
        (["--neighbours="], 2, "neighbours must be"),
        ([], 1, "nothing/here"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, status, message):
    probe_binaries.check_complaint(BINARY, "nothing/here", arguments, status, message)


def test_a_real_export(tiny_export, tmp_path):
    output = probe_binaries.process(BINARY, tiny_export, f"--output={tmp_path}", "--layers=conv_5,conv_2")
    assert output.returncode == 0, output.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["layers"] == ["conv_5", "conv_2"]
    assert results["dataset"]["train_images"] == 100
    assert (tmp_path / "results.md").read_text() in output.stdout
