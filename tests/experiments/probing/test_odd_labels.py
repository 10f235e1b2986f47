"""Probes of odd labels and features: a number or one clear line."""

import json

import numpy as np
import pytest

from experiments.probing import run as probe_run
from experiments.probing.few_shot import FewShotProbe
from experiments.probing.knn import KnnProbe
from experiments.probing.linear import LinearProbe
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import FewShotProtocol, KnnProtocol, Protocol
from tests.fixtures import probing

OPTIONS = {"dimensions": 30}
PROBES = {
    "ridge": (LinearProbe, Protocol(**OPTIONS)),
    "logistic": (LinearProbe, Protocol(classifier="logistic", **OPTIONS)),
    "knn": (KnnProbe, KnnProtocol(**OPTIONS)),
    "few_shot": (FewShotProbe, FewShotProtocol(shares=(50.0,), draws=2, **OPTIONS)),
}


@pytest.fixture(autouse=True)
def _stand_ins(stand_in_world):
    pass


def images(split, *counts, constant=False):
    """Return a data set with this many images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.random.default_rng(len(split)).integers(0, 256, [len(labels), 16, 16, 3])
    pixels = np.full_like(pixels, 7) if constant else pixels
    return probing.ImageDataset(split, pixels.astype(np.uint8), labels, ("a", "b", "c")[: len(counts)])


def run(name, train, test, output):
    """Run a probe by its name."""
    probe_class, protocol = PROBES[name]
    probe = probe_class(protocol=protocol, train=train, test=test, output=output)
    return probe_run.run(probe, probing.Model("runs/features"), [probing.Model("runs/a", 1, "random")])


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("train", "test"),
    [
        (images("train", 10, 10, constant=True), images("test", 4, 4, constant=True)),
        (images("train", 100, 2), images("test", 4, 4)),
        (images("train", 10, 10), images("test", 1, 1)),
    ],
    ids=["constant", "imbalanced", "one test image"],
)
def test_a_number(name, train, test, tmp_path):
    """Fails if an accuracy or interval is not a number, which JSON cannot hold."""
    results = run(name, train, test, tmp_path)
    json.dumps(results, allow_nan=False)
    assert probe_run.summary(results).count("nan") == 0


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (images("train", 10), images("test", 4), "at least two classes"),
        (images("train", 10, 10, 10), images("test", 4, 4, 0), "at least 1 test image. Received: 0 of class 'c'"),
        (images("train", 10, 10, 0), images("test", 4, 4, 4), "training images. Received: 0 of class 'c'"),
        (images("train", 1, 1), images("test", 2, 2), "training images. Received: 1 of class 'a'"),
    ],
    ids=["one class", "missing in test", "missing in train", "one image per class"],
)
def test_a_line(name, train, test, message, tmp_path):
    """Fails if labels that no classifier can use end in a traceback or a meaningless figure."""
    with pytest.raises(ProbeError, match=message) as error:
        run(name, train, test, tmp_path)
    assert "\n" not in str(error.value)
