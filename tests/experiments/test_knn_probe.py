"""Nearest neighbours against a loop in NumPy; the choice of k; the program."""

import json

import numpy as np
import pytest

from experiments import knn_probe
from experiments.probing import knn
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import KnnProtocol
from tests.fixtures import probe_binaries, probing


def _vote(train, labels, image, k):
    """Return one image's label, as the definition says."""
    similarity = train @ image / (np.linalg.norm(train, axis=1) * np.linalg.norm(image))
    nearest = np.argsort(-similarity, kind="stable")[:k]
    votes = {label: np.exp(similarity[nearest][labels[nearest] == label] / 0.07).sum() for label in labels[nearest]}
    return max(votes, key=votes.get)


@pytest.mark.parametrize(("images", "classes"), [(2, 2), (9, 2), (30, 3), (31, 7)])
def test_votes_are_those_of_the_definition(images, classes):
    """Fails if weights, order or classes of the votes are wrong."""
    generator = np.random.default_rng(images)
    train = generator.normal(size=(images, 5))
    new = generator.normal(size=(7, 5))
    labels = 10 * generator.integers(0, classes, images) + 3  # not 0 to n
    neighbours = sorted({1, images // 2 + 1, images})
    predictions = knn.predict(train.astype(np.float32), labels, new.astype(np.float32), neighbours)
    for k, prediction in zip(neighbours, predictions, strict=True):
        np.testing.assert_array_equal(prediction, [_vote(train, labels, image, k) for image in new])


def test_the_length_of_features_does_not_matter():
    """Fails if the similarity is not the cosine."""
    generator = np.random.default_rng(0)
    train = generator.normal(size=(40, 6))
    new = generator.normal(size=(20, 6))
    labels = np.arange(40) % 4
    longer = new * generator.uniform(0.1, 10, (20, 1))
    neighbours = [1, 5, 20]
    expected = knn.predict(train, labels, new, neighbours)
    np.testing.assert_array_equal(knn.predict(train, labels, longer, neighbours), expected)


def test_k_is_chosen_on_training_images_alone():
    """Fails if test labels decide k, or noise does not make it large."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    train = generator.normal(size=(200, 20)) + 0.35 * np.where(labels, 1, -1)[:, None]
    k, _ = knn.choose_neighbours(train, labels, KnnProtocol())
    assert k >= 10
    probe = knn.KnnProbe(protocol=KnnProtocol(), train=None, test=None, output=None)
    correct = probe.measure(train, labels, train, labels)
    wrong = probe.measure(train, labels, train, 1 - labels)
    assert correct["neighbours"] == wrong["neighbours"] == k
    assert correct["accuracy"] == pytest.approx(1 - wrong["accuracy"])


def test_k_is_never_more_than_the_images():
    """Fails if k exceeds the images that are not held out."""
    labels = np.arange(20) % 2
    k, _ = knn.choose_neighbours(np.random.default_rng(0).normal(size=(20, 3)), labels, KnnProtocol(neighbours=(500,)))
    assert k == 16


def test_results_of_the_program(stand_in_world, tmp_path):
    """Fails if flags do not reach the protocol, or records are not those of nearest neighbours."""
    results = probe_binaries.run_stand_ins(knn_probe, tmp_path, "--baseline=runs/a,runs/b", "--neighbours=10,3,3")
    assert results["kind"] == "knn_probe"
    assert results["protocol"]["neighbours"] == [3, 10]
    for layer in ("conv_1", "conv_2"):
        record = results["model"]["layers"][layer]
        assert record["neighbours"] in (3, 10)
        mean = np.mean([model["layers"][layer]["accuracy"] for model in results["baselines"]])
        assert results["difference"][layer]["accuracy"] == pytest.approx(record["accuracy"] - mean)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "results.json", "results.md", "results.png"]
    assert "nearest neighbours by cosine similarity" in (tmp_path / "results.md").read_text()


def test_a_class_with_one_image_is_refused(stand_in_world, tmp_path):
    """Fails if k would be chosen without an image of every class."""
    probing.with_one_red_image(stand_in_world["sources"])
    with pytest.raises(ProbeError, match=r"at least 2 training images. Received: 1 of class 'red'"):
        probe_binaries.run_stand_ins(knn_probe, tmp_path)


@pytest.mark.parametrize("value", ["0,5", "five", ""])
def test_values_of_k_must_be_whole_numbers(value):
    """Fails if a wrong list of k is accepted."""
    arguments = ["--model=nothing/here", *probe_binaries.SPLITS, f"--neighbours={value}"]
    probe_binaries.check_error(knn_probe, arguments, 2, "neighbours must be")


@pytest.mark.slow
def test_a_real_export(tiny_export, tmp_path):
    """Fails if the program does not run in a separate process on a SavedModel and the synthetic set."""
    arguments = [f"--model={tiny_export}", *probe_binaries.SPLITS, f"--output={tmp_path}", "--layers=conv_5,conv_2"]
    done = probe_binaries.process("knn_probe", *arguments)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["layers"] == ["conv_5", "conv_2"]
    assert results["dataset"]["train_images"] == 100
    assert f"{100 * results['model']['layers']['conv_5']['accuracy']:.1f} [" in done.stdout
