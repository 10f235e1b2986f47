"""Time training steps against those of another checkout of this project, or of the authors' release.

    git worktree add --detach ../before COMMIT
    python -m experiments.compare_steps --checkout=../before --rounds=15
    pip install tf_slim tf_keras
    git clone https://github.com/sjenni/LearningToSpotArtifacts ../release
    python -m experiments.compare_steps --release=../release --rounds=15

Both run in processes that take turns step by step, so that other load of the machine falls on both alike. The release
trains in float32, and preset `release` is compared with it in both precisions. Writes results.json and results.md into
--output.
"""

import contextlib
import importlib.util
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
      checkout: folder with the package `lts`, or with the release.
      cases: (preset, stage, precision, batch size) of each step.
      is_release: whether the steps are those of the release.
    """

    def __init__(self, checkout: pathlib.Path, cases, is_release: bool = False):
        package = HERE if is_release else checkout
        code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='steps')"
        release = [str(checkout)] if is_release else []
        command = [sys.executable, "-c", code, str(package), __file__, json.dumps(cases), *release]
        environment = {**os.environ, "PYTHONPATH": str(package)}
        # The parent has silenced TensorFlow with this variable; from the start it means that messages are wanted.
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.checkout = checkout
        self.process = subprocess.Popen(command, cwd=package, env=environment, **pipes)
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


def serve(cases, release: str | None) -> None:
    """Run a step for each line on stdin, with the `lts` of this process or the release of a folder."""
    # What else is printed must not be taken for an answer.
    with contextlib.redirect_stdout(sys.stderr):
        steps = [build_release_step(release, *case) if release else build_step(*case) for case in cases]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        cpu_started = time.process_time()
        steps[int(line)]()
        print(json.dumps([time.perf_counter() - started, time.process_time() - cpu_started]), flush=True)


def build_release_step(release: str, preset: str, stage: str, precision: str, batch_size: int):
    """Return a call of one training step of the release that has run once."""
    from experiments.pretraining import release_graph

    step = release_graph.build_step(release, stage, batch_size)
    step()
    return step


def build_step(preset: str, stage: str, precision: str, batch_size: int):
    """Return a call of one training step that has compiled."""
    common.import_tensorflow()
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


def measure(checkout: pathlib.Path, is_release: bool) -> list[dict[str, Any]]:
    """Return a row per preset, stage and precision."""
    rows = []
    # One pair of processes for each preset and stage: memory holds few models of `release`.
    for preset in ["release"] if is_release else FLAGS.presets:
        for stage in STAGES:
            cases = [(preset, stage, precision, FLAGS.batch_size) for precision in PRECISIONS]
            # The release has one graph, in float32.
            others = cases[:1] if is_release else cases
            processes = [StepProcess(HERE, cases), StepProcess(checkout, others, is_release)]
            for index, case in enumerate(cases):
                numbers = (index, min(index, len(others) - 1))
                rounds = [
                    [process.step(number) for process, number in zip(processes, numbers, strict=True)]
                    for _ in range(FLAGS.rounds + 1)
                ]
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


def other_commit(checkout: pathlib.Path, is_release: bool) -> str:
    """Return the commit of a checkout."""
    if is_release:
        if not (checkout / "models" / "SpotNet.py").is_file():
            raise common.UsageError(f"--release must hold the authors' code. Received: --release={checkout}")
        for package in ("tf_slim", "tf_keras"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"the release needs the package {package}. Run: pip install {package}")
    elif not (checkout / "lts" / "__init__.py").is_file():
        raise common.UsageError(f"--checkout must be a checkout of this project. Received: --checkout={checkout}")
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> None:
    """Measure and report."""
    if (FLAGS.checkout is None) == (FLAGS.release is None):
        raise common.UsageError("give either --checkout or --release")
    is_release = FLAGS.release is not None
    if is_release:
        common.refuse(["presets"], "--release")
    checkout = pathlib.Path(FLAGS.release or FLAGS.checkout).resolve()
    commit = other_commit(checkout, is_release)
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    settings = {
        "other_commit": commit,
        "is_release": is_release,
        "batch_size": FLAGS.batch_size,
        "rounds": FLAGS.rounds,
    }
    rows = measure(checkout, is_release)
    results = {"kind": "step_comparison", **speed.describe_machine("compare_steps"), **settings, "rows": rows}
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("checkout", None, "folder of the other checkout")
    paths.define("release", None, "folder of the authors' code instead")
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
    serve(json.loads(sys.argv[3]), *sys.argv[4:] or [None])
