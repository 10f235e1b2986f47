"""Time training steps against those of another version.

    git worktree add --detach ../before COMMIT
    python -m experiments.compare_steps --checkout=../before --rounds=15

    pip install tf_slim tf_keras
    git clone https://github.com/sjenni/LearningToSpotArtifacts ../release
    python -m experiments.compare_steps --release=../release --rounds=15

    python -m experiments.compare_steps --xla

The other version is another checkout of this project, the authors' release, or this checkout with every step compiled
by XLA. The two versions run in processes that take turns step by step, so that other load of the machine falls on both
alike. The release trains in float32, and preset `release` is compared with it in both precisions. Writes results.json
and results.md into --output.
"""

import contextlib
import dataclasses
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
KINDS = {"checkout": "lts/__init__.py", "release": "models/SpotNet.py", "xla": ""}  # and a file of their folders
RELEASE_BATCH = 16  # fewest images: the release draws montages of 2 x 8


@dataclasses.dataclass(frozen=True)
class Version:
    """Whose steps a process runs."""

    kind: str  # "checkout" | "release" | "xla"
    folder: pathlib.Path  # of the checkout, or of the release

    @property
    def package(self) -> pathlib.Path:
        """Folder of the `lts` that is imported."""
        return self.folder if self.kind == "checkout" else HERE


class StepProcess:
    """A process that runs training steps of one version.

    Args:
      version: whose steps.
      cases: (preset, stage, precision, batch size) of each step.
    """

    def __init__(self, version: Version, cases):
        code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='steps')"
        package = str(version.package)
        command = [sys.executable, "-c", code, package, __file__, json.dumps(cases), version.kind, str(version.folder)]
        environment = {**os.environ, "PYTHONPATH": package}
        # The parent has silenced TensorFlow with this variable; from the start it means that messages are wanted.
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.version = version
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
            raise UserError(f"training steps failed, see above. Received: {self.version.kind} {self.version.folder}")
        return json.loads(line)


def serve(cases, kind: str, folder: str) -> None:
    """Run a step for each line on stdin, with the `lts` of this process or the release of a folder."""
    # What else is printed must not be taken for an answer.
    with contextlib.redirect_stdout(sys.stderr):
        if kind == "release":
            steps = [build_release_step(folder, stage, batch_size) for _, stage, _, batch_size in cases]
        else:
            steps = [build_step(*case, jit_compile=kind == "xla") for case in cases]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        cpu_started = time.process_time()
        steps[int(line)]()
        print(json.dumps([time.perf_counter() - started, time.process_time() - cpu_started]), flush=True)


def build_release_step(folder: str, stage: str, batch_size: int):
    """Return a call of one training step of the release that has run once."""
    from experiments.pretraining import release_graph

    step = release_graph.build_step(folder, stage, batch_size)
    step()
    return step


def build_step(preset: str, stage: str, precision: str, batch_size: int, jit_compile: bool):
    """Return a call of one training step that has compiled."""
    # NB: not `steps.build_step`, which an older checkout lacks.
    common.import_tensorflow()
    import tensorflow as tf

    from lts.config.stages import section_of
    from lts.training.train import build_model, steps_done

    config = configs.preset(preset, section_of(stage), precision=precision, batch_size=batch_size)
    model = build_model(config, stage, 1000)
    size = config.image.image_size
    images = tf.random.uniform([batch_size, size, size, 3], -1, 1)
    function = tf.function(model.train_step, jit_compile=jit_compile or None)

    def step():
        function(images)
        steps_done(model)  # waits for the step

    step()
    return step


def measure(version: Version) -> list[dict[str, Any]]:
    """Return a row per preset, stage and precision."""
    rows = []
    # One pair of processes for each preset and stage: memory holds few models of `release`.
    for preset in ["release"] if version.kind == "release" else FLAGS.presets:
        for stage in STAGES:
            cases = [(preset, stage, precision, FLAGS.batch_size) for precision in PRECISIONS]
            ours = StepProcess(Version("checkout", HERE), cases)
            # The release has one graph, in float32.
            other_cases = cases[:1] if version.kind == "release" else cases
            other = StepProcess(version, other_cases)
            for index, case in enumerate(cases):
                other_index = min(index, len(other_cases) - 1)
                rounds = [(ours.step(index), other.step(other_index)) for _ in range(FLAGS.rounds + 1)]
                rows.append(row(case, rounds[1:]))  # the first round warms up
                speedups = f"{rows[-1]['speedup']:.2f}, in CPU seconds {rows[-1]['cpu_speedup']:.2f}"
                print(f"{preset}, {stage}, {case[2]}: {speedups}", flush=True)
            ours.close()
            other.close()
    return rows


def row(case, rounds) -> dict[str, Any]:
    """Return the row of one step.

    Args:
      case: (preset, stage, precision, batch size).
      rounds: ((seconds, CPU seconds) of this checkout, those of the other version) of each round.
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


def chosen_version() -> Version:
    """Return the version of the flags.

    Raises:
      UsageError: none or several were chosen, or a folder holds something else.
      UserError: a package that the release needs is missing.
    """
    chosen = [kind for kind in KINDS if FLAGS[kind].value]
    if len(chosen) != 1:
        received = ", ".join(f"--{kind}" for kind in chosen) or "none"
        raise common.UsageError(f"give one of --checkout, --release and --xla. Received: {received}")
    kind = chosen[0]
    if kind == "xla":
        return Version(kind, HERE)
    folder = pathlib.Path(FLAGS[kind].value).resolve()
    if not (folder / KINDS[kind]).is_file():
        raise common.UsageError(f"--{kind} must hold {KINDS[kind]}. Received: --{kind}={folder}")
    if kind == "release":
        common.refuse(["presets"], "--release")
        if FLAGS.batch_size < RELEASE_BATCH:
            raise common.UsageError(
                f"--release needs {RELEASE_BATCH} images, for its pictures. Received: --batch_size={FLAGS.batch_size}"
            )
        for package in ("tf_slim", "tf_keras"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"the release needs the package {package}. Run: pip install {package}")
    return Version(kind, folder)


def main() -> None:
    """Measure and report."""
    version = chosen_version()
    command = ["git", "-C", str(version.folder), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    common.import_tensorflow()
    from experiments.reporting import results as result_files
    from experiments.reporting import speed

    result_files.check_output(FLAGS.output)
    settings = {"other": version.kind, "other_commit": commit, "batch_size": FLAGS.batch_size, "rounds": FLAGS.rounds}
    rows = measure(version)
    results = {"kind": "step_comparison", **speed.describe_machine("compare_steps"), **settings, "rows": rows}
    speed.write(results, FLAGS.output)


def define_flags() -> None:
    """Define the flags of this binary."""
    paths.define("checkout", None, "folder of the other checkout")
    paths.define("release", None, "folder of the authors' code")
    flags.DEFINE_bool("xla", False, "this checkout, with steps compiled by XLA")
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
    serve(json.loads(sys.argv[3]), *sys.argv[4:])
