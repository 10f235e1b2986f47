"""Training runs as real processes, for the tests: start, kill, compare what they leave."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
from PIL import Image

from lts.training.workdir import read_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ("--image_size=16", "--encoder_widths=4,8,8,8", "--conv_1_kernel=3", "--trunk_widths=4,8,8,8,8", "--fc_width=8")
BASE = ("--preset=tiny", "--batch_size=4", "--average_decay=0.9", *TINY)

# The environment of a user: without what conftest.py sets for the comparison with the release.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}


def make_photos(folder: pathlib.Path) -> pathlib.Path:
    """Twelve small pictures without classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(12):
        coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(coarse).resize((25, 20), Image.BICUBIC).save(folder / f"{index}.png")
    return folder


def start(module: str, *flags: str, **environment: str) -> subprocess.Popen:
    """Starts a binary; stdout and stderr are pipes of text."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a CI's background job ignores Ctrl-C
    )


def run(module: str, *flags: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
    """Runs a binary to its end."""
    process = start(module, *flags, **environment)
    out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def newest(workdir: pathlib.Path) -> dict:
    """Every variable in the newest checkpoint by name."""
    return read_checkpoint(max((workdir / "checkpoints").glob("step_*")))


def metrics(workdir: pathlib.Path) -> list[dict]:
    """Lines of metrics.jsonl without the speed."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def assert_same(workdir: pathlib.Path, other: pathlib.Path) -> None:
    """The same lines of metrics and, bit by bit, the same weights, statistics, slots, averages and means."""
    ours, theirs = newest(workdir), newest(other)
    assert ours.keys() == theirs.keys()
    assert {name.split("/")[0] for name in ours} >= {"encoder", "decoder", "optimizer", "means"}
    assert any("average" in name for name in ours)
    assert any("velocity" in name for name in ours)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert metrics(workdir) == metrics(other)


def assert_close(workdir: pathlib.Path, other: pathlib.Path, losses: float = 1e-3, weights: float = 2e-3) -> None:
    """The same steps of metrics within `losses`, and weights within `weights` of a tensor's largest entry."""
    ours, theirs = newest(workdir), newest(other)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name.startswith(("encoder", "decoder", "repair", "discriminator")):
            np.testing.assert_allclose(ours[name], value, rtol=0, atol=weights * np.abs(value).max(), err_msg=name)
    for one, two in zip(metrics(workdir), metrics(other), strict=True):
        for name, value in two.items():
            np.testing.assert_allclose(one[name], value, rtol=losses, err_msg=f"{name} at step {two['step']}")
