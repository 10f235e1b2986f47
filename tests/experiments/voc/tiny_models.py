"""Tiny exports, and the tasks' binaries on a tiny devkit."""

import json

from absl import flags

from tests.training.test_transfer import made_up_export

QUICK = ("--steps=3", "--batch_size=2", "--resamples=20", "--precision=float32")


def make(folder):
    """Two exports of other weights: `features`, and `random_1`, which says that it is random."""
    for name in ("features", "random_1"):
        made_up_export(folder / name)
    path = folder / "random_1" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "random"}))
    return folder


def run(binary, models, root, output, *arguments):
    """The binary's main with these flags; its results."""
    values = flags.FlagValues()
    binary.define_flags(values)
    given = (f"--model={models / 'features'}", f"--dataset=folder:{root}", f"--output={output}")
    values([binary.__name__, *given, *QUICK, *arguments])
    binary.main(values)
    return json.loads((output / "results.json").read_text())
