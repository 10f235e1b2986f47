"""Two replicas against one device on the same global batch."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> dict:
    """What tests/models/replicas.py prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.replicas"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_random_numbers(results):
    """Replicas that draw the same rows, or rows that depend on the number of replicas."""
    assert results["gan"]["draws"] == [True, True]


@pytest.mark.parametrize("model", ["autoencoder", "gan"])
def test_weights(results, model):
    """Gradients that are summed or averaged twice, L2 that is halved, batch norm over half of the batch."""
    worst = max(results[model]["weights"].items(), key=lambda item: item[1])
    assert worst[1] < 1e-4, worst


@pytest.mark.parametrize("model", ["autoencoder", "gan"])
def test_losses(results, model):
    """Metrics of one replica alone."""
    logs = {name: gap for name, gap in results[model]["logs"].items() if not name.startswith("accuracy")}
    assert max(logs.values()) < 1e-4, logs
