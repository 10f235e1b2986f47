"""compare and ablate as processes: wrong usage, complete runs, SIGTERM and resume."""

import json
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from tests.fixtures import runs

SMALL = (
    *("--preset=tiny", "--batch_size=4", "--autoencoder_training=batch_size=4", *runs.TINY),
    *("--dataset=synthetic", "--split=unlabelled[:40]", "--train_split=train[:60]"),
)
BUDGET = ("--budget_minutes=0.1", "--autoencoder_share=0.5", "--calibration_seconds=0.2", "--calibration_rounds=2")
PATIENCE = 15 * 60  # a busy machine takes many times as long
COMPARE = (*SMALL, *BUDGET, "--test_split=test[:50]")
ABLATE = (*SMALL, "--steps=2", "--autoencoder_training=steps=2,batch_size=4", "--validation_split=train[60:110]")


@pytest.mark.parametrize(
    ("binary", "flags", "message"),
    [
        ("ablate", ("--only=keep_0.4",), "unknown ablation. Received: 'keep_0.4'"),
        ("ablate", ("--validation_split=train+test[:9]",), "validation_split must hold no test images"),
        ("ablate", ("--autoencoder_training=repair=false",), "--autoencoder_training"),
        ("ablate", ("--seeds=3",), "seeds must be two or more"),
        ("ablate", ("--seeds=1,2", "--seed=3"), "--seed does not go with --seeds"),
        ("compare", ("--budget_minutes=1", "--steps=9"), "steps follow from --budget_minutes"),
        ("compare", ("--budget_minutes=1", "--autoencoder_training=steps=9"), "steps follow from --budget_minutes"),
        ("compare", ("--budget_minutes=1", "--autoencoder_share=1"), "autoencoder_share must be between 0 and 1"),
        ("compare", (), "budget_minutes"),
        ("compare", ("--budget_minutes=1", "--baselines=lcl"), "unknown baseline. Received: --baselines=lcl. Known:"),
        (
            "compare",
            ("--budget_minutes=1", "--baselines=joint", "--rotation_weight=1"),
            "joint_turns replaces the task",
        ),
        ("compare", ("--budget_minutes=nan",), "budget_minutes must be a finite number"),
    ],
)
def test_wrong_usage_is_one_line(binary, flags, message, tmp_path):
    """Fails if wrong flags begin a run, show a traceback or another status than 2."""
    given = ("--preset=tiny", "--dataset=synthetic", f"--output={tmp_path / 'run'}", *flags)
    done = runs.run(f"experiments.{binary}", *given)
    assert done.returncode == 2, done.stderr
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith(f"{binary}: ")
    assert message in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("binary", "budget"), [("ablate", ()), pytest.param("compare", ("--budget_minutes=1",), marks=pytest.mark.slow)]
)
def test_wrong_inputs_stop_before_training(binary, budget, tmp_path):
    """Fails if images without labels, or an --output that is a file, are found only after a training."""
    images = tmp_path / "photos" / "train"
    images.mkdir(parents=True)
    for index in range(20):
        Image.new("RGB", (20, 20), (index, 0, 0)).save(images / f"{index}.png")
    (tmp_path / "file").touch()
    given = ("--preset=tiny", f"--dataset=folder:{tmp_path / 'photos'}", "--split=train", *budget)
    for output, message in (("run", "has no label"), ("file", "not a folder")):
        done = runs.run(f"experiments.{binary}", *given, f"--output={tmp_path / output}")
        assert done.returncode == 1, done.stderr
        (complaint,) = done.stderr.splitlines()
        assert message in complaint
    assert not (tmp_path / "run").exists()


def without_times(results):
    """Return results without times."""
    volatile = ("seconds", "wall_seconds", "images_per_second")
    if isinstance(results, dict):
        return {key: without_times(value) for key, value in results.items() if key not in volatile}
    return [without_times(value) for value in results] if isinstance(results, list) else results


def stop(binary, line_start, *flags):
    """Stop a binary by SIGTERM when it prints a line; return its status and last line of errors."""
    process = runs.start(f"experiments.{binary}", *flags)
    for line in process.stdout:
        if line.startswith(line_start):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors.splitlines()[-1:]


def run(binary, *flags, status=0):
    """Run a binary to its end and check its status."""
    done = runs.run(f"experiments.{binary}", *flags, timeout=PATIENCE)
    assert done.returncode == status, done.stderr
    return done


def read(path):
    """Return the content of a JSON file."""
    return json.loads(path.read_text())


@pytest.mark.slow
def test_ablate_stopped_and_resumed(tmp_path):
    """Fails if a stopped run of ablate trains or probes again, or mixes configurations."""
    output = tmp_path / "run"
    custom = ("--only=encoder_3x3,mine", "--variant=mine:keep_probability=0.5")
    given = (*ABLATE, f"--output={output}", *custom)
    assert stop("ablate", "== encoder_3x3 (encoder_kernel=3): gan", *given) == (143, ["ablate: terminated"])
    assert "== base: gan: done before" in run("ablate", *given).stdout
    results = read(output / "results.json")
    assert {name: variant["changed"] for name, variant in results["variants"].items()} == {
        "encoder_3x3": ["autoencoder.encoder_kernel: 2 -> 3"],
        "mine": ["damage.keep_probability: 0.3 -> 0.5"],
    }
    assert results["dataset"]["test_split"] == "train[60:110]"
    assert results["base"]["description"]["config"]["gan_training"]["batch_size"] == 4
    autoencoder = read(output / "encoder_3x3" / "autoencoder" / "config.json")
    assert autoencoder["config"]["autoencoder"]["encoder_kernel"] == 3
    assert "features of the" not in run("ablate", *given).stdout  # nothing is trained or probed again
    assert read(output / "results.json") == results
    assert "holds another run" in run("ablate", *given, "--crop_area=0.5,1", status=1).stderr
    output = tmp_path / "seeds"
    run("ablate", *ABLATE, f"--output={output}", "--only=mine", custom[1], "--seeds=1,2")
    results = read(output / "results.json")
    assert results["seeds"] == [1, 2]
    assert len(results["variants"]["mine"]["layers"]["conv_1"]["accuracies"]) == 2
    assert read(output / "seed_2" / "base" / "gan" / "config.json")["config"]["autoencoder_training"]["seed"] == 2


@pytest.mark.slow
def test_compare_stopped_and_resumed(tmp_path):
    """Fails if a stopped run of compare changes its plan, or a figure of an uninterrupted run."""
    halves = tmp_path / "halves"
    whole = tmp_path / "whole"
    assert stop("compare", "== rotation: rotation", *COMPARE, f"--output={halves}") == (143, ["compare: terminated"])
    plan = (halves / "plan.json").read_bytes()
    assert "== calibration: done before" in run("compare", *COMPARE, f"--output={halves}").stdout
    assert (halves / "plan.json").read_bytes() == plan
    whole.mkdir()
    shutil.copy(halves / "plan.json", whole)
    run("compare", *COMPARE, f"--output={whole}")
    results = read(halves / "results.json")
    assert without_times(results) == without_times(read(whole / "results.json"))
    for place in ("random/1", *[f"{name}/features" for name in results["methods"]]):
        resumed = np.load(halves / place / "backbone.npz")
        uninterrupted = np.load(whole / place / "backbone.npz")
        assert sorted(resumed) == sorted(uninterrupted)
        for name in resumed:
            np.testing.assert_array_equal(resumed[name], uninterrupted[name], err_msg=f"{place}: {name}")
    steps = json.loads(plan)["steps"]
    for name, method in results["methods"].items():
        assert method["description"]["step"] == list(steps[name].values())[-1] >= 10
        assert method["description"]["step"] % 10 == 0
    assert list(results["methods"]["autoencoder"]["layers"]) == ["conv_1", "conv_2", "conv_3", "conv_4"]
    assert len(results["layers"]) == 5
    table = (halves / "results.md").read_text()
    assert "| the autoencoder's own encoder |" in table
    assert "**ours**" in table
    changed = run("compare", *COMPARE, "--budget_minutes=0.2", f"--output={halves}", status=1)
    assert "was made for budget_minutes=0.1" in changed.stderr
