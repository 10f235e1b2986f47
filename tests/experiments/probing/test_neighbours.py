"""Neighbours, clusters and near-duplicates of features with known answers."""

import numpy as np
import pytest

from experiments.probing import neighbours
from experiments.probing.protocols import NeighboursProtocol
from lts import data
from lts.config import ImageConfig
from tests.fixtures import probing

PROTOCOL = NeighboursProtocol(shown=3, neighbours=4, clusters=3, central=2, duplicate_similarity=0.999)


IMAGE = ImageConfig(image_size=16)


@pytest.fixture
def source():
    """Ten images of each of three classes, with names. Image 25 is a brighter copy of image 4."""
    source = probing.source("test", 10)
    source.images[25] = source.images[4] // 2 + 100
    source.names = tuple(f"{number}.png" for number in range(30))
    return source


@pytest.fixture
def features():
    """Directions of three classes with little noise; those of images 4 and 25, and of 6 and 14, are equal."""
    generator = np.random.default_rng(0)
    values = np.repeat(np.eye(3), 10, axis=0) + generator.normal(0, 0.1, (30, 3))
    values[25] = 3 * values[4]
    values[14] = values[6]
    return values.astype(np.float32)


def test_neighbours_are_compared_with_those_of_the_baseline(source, features):
    """Fails if a list is of another image or side, or if a share counts other neighbours than those of the classes."""
    noise = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)
    record = neighbours.compare(features, noise, source, PROTOCOL)
    assert [entry["of"] for entry in record["neighbours"]] == [
        {"image": "0.png", "number": 0, "class": "blue"},
        {"image": "10.png", "number": 10, "class": "green"},
        {"image": "20.png", "number": 20, "class": "red"},
    ]
    unit = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    expected = [number for number in np.argsort(-unit @ unit[10]) if number != 10][:4]
    assert [image["number"] for image in record["neighbours"][1]["baseline"]] == expected
    assert {image["class"] for image in record["neighbours"][1]["model"]} == {"green"}
    assert record["same_class"]["model"] > 0.8
    assert record["same_class"]["baseline"] < 0.5
    assert record["same_class"]["chance"] == pytest.approx(9 / 29)
    assert 0 < record["common"] < 0.5
    assert neighbours.compare(features, features, source, PROTOCOL)["common"] == 1
    source.labels = None
    record = neighbours.compare(features, noise, source, PROTOCOL)
    assert "same_class" not in record
    assert record["neighbours"][2]["of"] == {"image": "20.png", "number": 20}


def test_clusters_and_near_duplicates(source, features, monkeypatch):
    """Fails if central images are of another cluster or far from its centre, or if a pair is missing or repeated."""
    monkeypatch.setattr(data, "test_batches", probing.batches)
    records = neighbours.clusters(features, source, PROTOCOL)
    assert [record["images"] for record in records] == [12, 9, 9]
    assert {record["class"] for record in records} == {"blue", "green", "red"}
    for record in records:
        assert {image["class"] for image in record["central"]} == {record["class"]}
        assert record["share"] == pytest.approx(1 if record["class"] != "blue" else 10 / 12)
    found = neighbours.near_duplicates(features, source, IMAGE, PROTOCOL)
    (pair,) = found["pairs"]  # the pictures of 6 and 14 differ
    assert [image["image"] for image in pair["images"]] == ["4.png", "25.png"]
    assert pair["similarity"] == 1
    assert found["number"] == 1
    assert neighbours.near_duplicates(np.eye(30, dtype=np.float32), source, IMAGE, PROTOCOL)["number"] == 0
    source.labels = np.full(30, -1)
    assert "class" not in neighbours.clusters(features, source, PROTOCOL)[0]
