"""Tiny exports, and the tasks' binaries on a tiny devkit."""

import json
import shutil

import numpy as np
from absl import flags

from tests.training.test_transfer import made_up_export

QUICK = ("--steps=3", "--batch_size=2", "--resamples=20", "--precision=float32")


def make(folder):
    """Two exports: `features`, and `random_1`, a copy with other weights in trunk.npz, which says that it is random."""
    made_up_export(folder / "features")
    other = shutil.copytree(folder / "features", folder / "random_1")
    described = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(described | {"weights": "random"}))
    (other / "variables" / "variables.data-other").write_text("another fingerprint")
    with np.load(other / "trunk.npz") as weights:
        np.savez(other / "trunk.npz", **{name: 0.8 * weights[name] for name in weights})
    return folder


def run(binary, models, root, output, *arguments):
    """The binary's main with these flags; its results."""
    values = flags.FlagValues()
    binary.define_flags(values)
    given = (f"--model={models / 'features'}", f"--dataset=folder:{root}", f"--output={output}")
    values([binary.__name__, *given, *QUICK, *arguments])
    binary.main(values)
    return json.loads((output / "results.json").read_text())
