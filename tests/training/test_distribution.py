"""Training under MirroredStrategy does what training on one device does."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.fixtures import rounding

pytestmark = pytest.mark.slow  # tests/models/test_replicas.py compares replicas in the quick set

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict:
    """What tests/fixtures/training_replicas.py prints: metrics of each run, on one device and on two."""
    command = [sys.executable, "-m", "tests.fixtures.training_replicas", str(tmp_path_factory.mktemp("replicas"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def allowed(metrics: dict, stage: str) -> float:
    """Allowed difference of metrics, by four steps of `fit` on one device with nudged images and weights."""
    fit = metrics[f"fit {stage}"]
    return rounding.allowed(rounding.largest_difference(fit["one"], control) for control in fit["controls"])


@pytest.mark.parametrize("stage", ["autoencoder", "gan", "cheap gan", "cheap lci"])
def test_two_replicas_equal_one_device(metrics, stage):
    """Fails if gradients are summed twice, batch norm is a replica's alone, or masks depend on the replica."""
    one = metrics["train one"][stage]
    two = metrics["train two"][stage]
    assert [line["step"] for line in two] == [1, 2]
    for expected, line in zip(one, two, strict=True):
        del expected["images_per_second"], line["images_per_second"]
        assert rounding.largest_difference(expected, line) <= allowed(metrics, stage.removeprefix("cheap "))


@pytest.mark.parametrize("stage", ["autoencoder", "gan", "lci"])
def test_fit_on_two_replicas_equals_fit_on_one(metrics, stage):
    """Fails if Keras' loop, its distribution of batches or its reduction of metrics gives numbers of one replica."""
    fit = metrics[f"fit {stage}"]
    assert fit["two"].keys() >= {"l2"}
    assert len(fit["two"]["l2"]) == 2
    assert rounding.largest_difference(fit["one"], fit["two"]) <= allowed(metrics, stage)


@pytest.mark.parametrize("fault", ["summed twice", "one share"])
def test_wrong_gradient_is_found(metrics, fault):
    """Fails if the allowed difference is so large that a wrong gradient passes the tests above."""
    fit = metrics["fit autoencoder"]
    difference = rounding.largest_difference(fit["one"], fit[fault])
    assert difference > max(allowed(metrics, stage) for stage in ("autoencoder", "gan"))
