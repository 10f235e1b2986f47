"""Time training steps against those of another checkout of this project.

    git worktree add --detach ../before COMMIT
    python -m experiments.compare_steps --checkout=../before --rounds=15

The checkouts run in two processes that take turns step by step, so that other load of the machine falls on both alike.
Writes results.json and results.md into --output.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

from absl import flags

from lts import config as configs
from lts.bin import common, paths
from lts.utils.errors import UserError

FLAGS = flags.FLAGS
STAGES = ("autoencoder", "gan")
PRECISIONS = ("float32", "bfloat16")
HERE = pathlib.Path(__file__).resolve().parents[1]


class StepProcess:
    """A process that runs training steps of one checkout.

    Args:
      checkout: folder with the package `lts`.
      cases: (preset, stage, precision, batch size) of each step.
    """

    def __init__(self, checkout: pathlib.Path, cases):
        code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='steps')"
        command = [sys.executable, "-c", code, str(checkout), __file__, json.dumps(cases)]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        # The parent has silenced TensorFlow with this variable; from the start it means that messages are wanted.
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.checkout = checkout
        self.process = subprocess.Popen(command, cwd=checkout, env=environment, **pipes)
        self._read()  # waits for the first steps, which compile

    def step(self, case: int) -> tuple[float, float]:
        """Run one step; return its seconds and its CPU seconds."""
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        return tuple(self._read())

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"the steps of a checkout failed, see above. Received: checkout={self.checkout}")
        return json.loads(line)


def serve(cases) -> None:
    """Run a step for each line on stdin, with the `lts` of this process."""
    common.import_tensorflow()
    steps = [build_step(*case) for case in cases]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        cpu_started = time.process_time()
        steps[int(line)]()
        print(json.dumps([time.perf_counter() - started, time.process_time() - cpu_started]), flush=True)


def build_step(preset: str, stage: str, precision: str, batch_size: int):
    """Return a call of one training step that has compiled."""
    import tensorflow as tf

    from lts.config.stages import section_of
    from lts.training.train import build_model, steps_done

    config = configs.preset(preset, section_of(stage), precision=precision, batch_size=batch_size)
    model = build_model(config, stage, 1000)
    size = config.image.image_size
    images = tf.random.uniform([batch_size, size, size, 3], -1, 1)
    function = tf.function(model.train_step)

    def step():
        function(images)
        steps_done(model)  # waits for the step

    step()
    return step


def measure(checkout: pathlib.Path) -> list[dict[str, Any]]:
    """Return a row per preset, stage and precision."""
    rows = []
    # One pair of processes for each preset and stage: memory holds few models of `release`.
    for preset in FLAGS.presets:
        for stage in STAGES:
            cases = [(preset, stage, precision, FLAGS.batch_size) for precision in PRECISIONS]
            processes = [StepProcess(folder, cases) for folder in (HERE, checkout)]
            for index, case in enumerate(cases):
                rounds = [[process.step(index) for process in processes] for _ in range(FLAGS.rounds + 1)]
                rows.append(row(case, rounds[1:]))  # the first round warms up
                speedups = f"{rows[-1]['speedup']:.2f}, in CPU seconds {rows[-1]['cpu_speedup']:.2f}"
                print(f"{preset}, {stage}, {case[2]}: {speedups}", flush=True)
            for process in processes:
                process.close()
    return rows


def row(case, rounds) -> dict[str, Any]:
    """Return the row of one step.

    Args:
      case: (preset, stage, precision, batch size).
      rounds: ((seconds, CPU seconds) of this checkout, those of the other one) of each round.
    """
    preset, stage, precision, batch_size = case
    speedups = [other[0] / ours[0] for ours, other in rounds]
    return {
        "preset": preset,
        "stage": stage,
        "precision": precision,
        "images_per_second": batch_size / statistics.median(ours[0] for ours, _ in rounds),
        "speedup": statistics.median(speedups),
        "speedup_range": [min(speedups), max(speedups)],
        "cpu_speedup": statistics.median(other[1] / ours[1] for ours, other in rounds),
    }


def other_commit(checkout: pathlib.Path) -> str:
    """Return the commit of a checkout."""
    if not (checkout / "lts" / "__init__.py").is_file():
        raise common.UsageError(f"--checkout must be a checkout of this project. Received: --checkout={checkout}")
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> None:
    """Measure and report."""
    checkout = pathlib.Path(FLAGS.checkout).resolve()
    commit = other_commit(checkout)
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    settings = {"other_commit": commit, "batch_size": FLAGS.batch_size, "rounds": FLAGS.rounds}
    rows = measure(checkout)
    results = {"kind": "step_comparison", **speed.describe_machine("compare_steps"), **settings, "rows": rows}
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("checkout", None, "folder of the other checkout", required=True)
    flags.DEFINE_multi_enum("presets", ["release", "small"], list(configs.PRESETS), "named configuration; repeatable")
    flags.DEFINE_integer("batch_size", 32, "images per step", lower_bound=1)
    flags.DEFINE_integer("rounds", 7, "rounds of each step", lower_bound=1)
    paths.define("output", "runs/compare_steps", "folder of the results")


def console() -> None:
    """Run the command."""
    define_flags()
    common.run(main)


if __name__ == "__main__":
    console()
if __name__ == "steps":
    serve(json.loads(sys.argv[3]))
