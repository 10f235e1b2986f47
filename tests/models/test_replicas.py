"""Two and four replicas against one device on the same global batch."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.fixtures import rounding

ROOT = pathlib.Path(__file__).parents[2]
SLOW = pytest.mark.slow
CASES = [
    pytest.param(("gan", 2), id="gan-2"),
    pytest.param(("gan", 4), id="gan-4", marks=SLOW),
    pytest.param(("tasks", 2), id="tasks-2", marks=SLOW),
    pytest.param(("tasks", 4), id="tasks-4", marks=SLOW),
    pytest.param(("photographs", 2), id="photographs-2", marks=SLOW),
    pytest.param(("lci", 2), id="lci-2", marks=SLOW),
    pytest.param(("autoencoder", 2), id="autoencoder-2"),
    pytest.param(("autoencoder", 4), id="autoencoder-4", marks=SLOW),
]
FIRST_STEP = {"gradients", "metrics 1", "statistics 1", "momentum 1"}
TWENTY_STEPS = {"metrics 20", "weights 20"}


@functools.cache
def compare(model: str, replicas: int) -> dict:
    """What tests/fixtures/model_replicas.py prints: relative differences to one device."""
    command = [sys.executable, "-m", "tests.fixtures.model_replicas", model, str(replicas)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=CASES)
def results(request) -> dict:
    """Differences to one device for a model and a number of replicas."""
    return compare(*request.param)


def excess(results: dict, run: str) -> dict:
    """Kind of result to (difference to one device, allowed difference), where the first is larger."""
    allowed = {
        kind: rounding.allowed(control[kind] for control in results["controls"]) for kind in results["controls"][0]
    }
    return {kind: (gap, allowed[kind]) for kind, gap in results[run].items() if not gap <= allowed[kind]}


def test_random_numbers(results):
    """Fails if replicas draw the same rows, or rows that depend on the number of replicas."""
    assert all(results["random"].values())


def test_first_step(results):
    """Fails if gradients, L2, metrics, batch norm or masks are those of one replica, or are summed twice.

    The momentum after a step is half of the gradient that was applied: summed, then clipped.
    """
    assert results["replicas"].keys() >= FIRST_STEP
    assert not excess(results, "replicas").keys() & FIRST_STEP, excess(results, "replicas")


def test_twenty_steps(results):
    """Fails if a difference that the first step hides grows with the steps."""
    assert results["replicas"].keys() >= TWENTY_STEPS
    assert not excess(results, "replicas").keys() & TWENTY_STEPS, excess(results, "replicas")


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [("summed twice", {"gradients", "metrics 1", "momentum 1"}), ("one share", {"metrics 1", "momentum 1"})],
)
def test_wrong_gradient_is_found(fault, kinds):
    """Fails if the allowed differences are so large that a wrong gradient passes the tests above."""
    assert excess(compare("autoencoder", 2), fault).keys() == kinds
