"""Training under MirroredStrategy does what training on one device does."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> dict:
    """Metrics of two steps of both stages, on one device and on two."""
    command = [sys.executable, "-m", "tests.fixtures.training_replicas", str(tmp_path_factory.mktemp("replicas"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_two_replicas_equal_one_device(metrics, stage):
    """Gradients summed twice, batch norm of a replica alone, or masks that depend on the replica would show here."""
    one, two = metrics[f"one {stage}"], metrics[f"two {stage}"]
    assert [line["step"] for line in two] == [1, 2]
    for step, tolerance in ((0, 1e-5), (1, 1e-3)):  # Adam's first step amplifies rounding
        for name, value in one[step].items():
            if name != "images_per_second":
                assert two[step][name] == pytest.approx(value, rel=tolerance, abs=1e-6), (name, step)


@pytest.mark.parametrize("stage", ["autoencoder", "gan"])
def test_fit_on_two_replicas_equals_fit_on_one(metrics, stage):
    """Keras alone: its loop, its distribution of the batches, its reduction of what train_step returns.

    Norms of gradients are held to 1e-5 in the first step (above); after four steps of Adam they scatter more.
    """
    one, two = metrics[f"one fit {stage}"], metrics[f"two fit {stage}"]
    assert len(one["l2"]) == 2
    assert one.keys() == two.keys() >= {"l2"}
    for name, values in one.items():
        tolerance = 5e-3 if name.endswith("gradient_norm") else 2e-4
        assert two[name] == pytest.approx(values, rel=tolerance, abs=1e-6), name
