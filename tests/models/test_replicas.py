"""Two and four replicas against one device on the same global batch."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SLOW = pytest.mark.slow
CASES = [
    pytest.param(("gan", 2), id="gan-2"),
    pytest.param(("gan", 4), id="gan-4", marks=SLOW),
    pytest.param(("autoencoder", 2), id="autoencoder-2", marks=SLOW),
    pytest.param(("autoencoder", 4), id="autoencoder-4", marks=SLOW),
]


def compare(model: str, replicas: int, *options: str) -> dict:
    """What tests/fixtures/model_replicas.py prints."""
    command = [sys.executable, "-m", "tests.fixtures.model_replicas", model, str(replicas), *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=CASES)
def gaps(request) -> dict:
    """Differences between replicas and one device, relative to a tensor's largest entry."""
    return compare(*request.param)


def worst(values: dict, kind: str = "") -> tuple[float, str]:
    """The largest difference and whose it is."""
    assert all(math.isfinite(gap) for gap in values.values()), values
    return max((gap, name) for name, gap in values.items() if kind in name)


def is_network(name: str) -> bool:
    """Not an optimizer's or a metric's variable."""
    return any(part in name for part in ("encoder/", "decoder/", "repair/", "discriminator/"))


def test_random_numbers(gaps):
    """Replicas that draw the same rows, or rows that depend on the number of replicas."""
    assert gaps.get("keep", True)
    assert gaps.get("dropout", True)


def test_first_step(gaps):
    """Gradients summed or averaged twice, L2 halved, metrics of one replica, batch norm or masks of a part alone.

    The momentum after a step is half of the gradient that was applied: summed, then clipped.
    """
    assert worst(gaps["metrics 1"]) < (1e-5,)
    assert worst(gaps["gradients"]) < (1e-5,)
    assert worst(gaps["state 1"], "moving_") < (1e-5,)
    assert worst(gaps["state 1"], "momentum") < (1e-5,)


def test_twenty_steps(gaps):
    """Differences that grow; Adam makes more of rounding."""
    assert worst(gaps["metrics 20"]) < (1e-3,)
    assert worst({name: gap for name, gap in gaps["state 20"].items() if is_network(name)}) < (2e-3,)
