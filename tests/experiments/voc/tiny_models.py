"""Tiny exports, and the tasks' binaries on a tiny devkit."""

import json

from absl import flags

from tests.training.test_transfer import CONFIG, made_up_export

QUICK = ("--steps=3", "--batch_size=2", "--resamples=20", "--precision=float32")


def make(folder):
    """Exports of one trunk: `features`, and `random_1` and `random_2`, which say that their weights are random."""
    for seed, name in enumerate(("features", "random_1", "random_2"), 1):
        made_up_export(folder / name, CONFIG.replace(seed=seed))
        path = folder / name / "config.json"
        weights = "trained" if seed == 1 else "random"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": weights, "seed": seed}))
        (folder / name / "variables" / "variables.data-tag").write_text(str(seed))  # another fingerprint
    return folder


def run(binary, models, root, output, *arguments):
    """The binary's main with these flags; its results."""
    values = flags.FlagValues()
    binary.define_flags(values)
    given = (f"--model={models / 'features'}", f"--dataset=folder:{root}", f"--output={output}")
    values([binary.__name__, *given, *QUICK, *arguments])
    binary.main(values)
    return json.loads((output / "results.json").read_text())
