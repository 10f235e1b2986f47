"""The table of runs, and the removal of older checkpoints."""

import json
import shutil

import numpy as np
import tensorflow as tf

from lts.config import preset
from lts.utils import files
from tests.fixtures.binaries import invoke

SCALARS = {"disc_total": 1.5, "accuracy_real": 0.98, "images_per_second": 290.0}


def write_run(folder, checkpoints, stage="gan", **changes):
    """Write a run without its event files."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"stage": stage, "config": preset("tiny", **changes).to_dict(), "data": {"images": 64}}
    for step in checkpoints:
        checkpoint = folder / "checkpoints" / f"step_{step:08}"
        checkpoint.mkdir(parents=True)
        tf.raw_ops.SaveV2(
            prefix=str(checkpoint / "weights"), tensor_names=["a"], shape_and_slices=[""], tensors=[np.ones(9)]
        )
    (folder / "config.json").write_text(json.dumps(record))
    lines = [{"step": 20, **SCALARS}, {"step": 40, **SCALARS, "probe_rank": 12.5}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_table(tmp_path):
    """Fails if a run is missing, a line is too wide, or one damaged run hides the others."""
    write_run(tmp_path / "ablate" / "a_variant_with_a_name_that_is_very_long", [20, 40], steps=60, keep_probability=0.5)
    write_run(tmp_path / "ae", [], stage="autoencoder", steps=30)
    (write_run(tmp_path / "broken", [5]) / "config.json").write_text("{")
    shutil.copytree(tmp_path / "ae", tmp_path / "ae" / "tensorboard")  # never a run
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "config.json").write_text("{}")  # an export
    done = invoke("lts.bin.list_runs", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["run", "stage", "steps", "size"]
    assert lines[1].split()[:5] == ["...with_a_name_that_is_very_long", "gan", "40", "of", "60"]
    assert lines[2:5] == [
        "  preset tiny with keep_probability=0.5 steps=60",
        "  accuracy real 98% | 290 images/s | disc_total 1.5",
        "  rank 12.5",
    ]
    assert lines[5].split()[:5] == ["ae", "autoencoder", "0", "of", "30"]
    assert "cannot be read as JSON" in " ".join(done.stdout.split())
    assert lines[-1].endswith(" MB in 3 runs")
    assert invoke("lts.bin.list_runs", str(tmp_path / "none")).returncode == 2
    assert invoke("lts.bin.list_runs").returncode == 2


def test_keep_last_checkpoint(tmp_path):
    """Fails if another file than an older checkpoint is removed, or anything of a run that trains or is damaged."""
    run = write_run(tmp_path / "run", [1, 2, 30])
    (run / "checkpoints" / "step_00000001.bak").mkdir()
    (run / "checkpoints" / "step_00000040").symlink_to("step_00000002")
    command = ("lts.bin.list_runs", f"--keep_last_checkpoint={run}")

    def names():
        return sorted(path.name for path in (run / "checkpoints").iterdir())

    before = names()
    with files.locked(run):
        done = invoke(*command)
    assert (done.returncode, "workdir is in use by process" in done.stderr) == (1, True)
    (data,) = (run / "checkpoints" / "step_00000030").glob("*.data*")
    content = data.read_bytes()
    data.write_bytes(content[:10])
    assert invoke(*command).returncode == 1
    assert names() == before
    data.write_bytes(content)
    done = invoke(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"removed 2 checkpoints of {run}, ")
    assert names() == ["step_00000001.bak", "step_00000030", "step_00000040"]
    assert invoke("lts.bin.list_runs", f"--keep_last_checkpoint={tmp_path}").returncode == 1
