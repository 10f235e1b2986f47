"""compare and ablate as processes: wrong usage, whole runs on the synthetic set, SIGTERM and going on."""

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
        ("ablate", ("--validation_split=test",), "validation_split must hold no test images"),
        ("ablate", ("--validation_split=train+test[:9]",), "validation_split must hold no test images"),
        ("ablate", ("--variant=mine",), "field=value"),
        ("ablate", ("--variant=mine:width=3",), "unknown field. Received: 'width'"),
        ("ablate", ("--autoencoder_training=repair=false",), "no field 'repair'"),
        ("ablate", ("--keep_probability=3",), "keep_probability must be in [0, 1]"),
        ("compare", ("--budget_minutes=1", "--steps=9"), "steps follow from --budget_minutes"),
        ("compare", ("--budget_minutes=1", "--autoencoder_training=steps=9"), "steps follow from --budget_minutes"),
        ("compare", ("--budget_minutes=1", "--autoencoder_share=1"), "autoencoder_share must be between 0 and 1"),
        ("compare", (), "budget_minutes"),
        ("compare", ("--budget_minutes=0",), "budget_minutes must be above 0"),
        ("compare", ("--budget_minutes=nan",), "budget_minutes must be above 0"),
    ],
)
def test_wrong_usage_is_one_line_at_once(binary, flags, message, tmp_path):
    given = ("--preset=tiny", "--dataset=synthetic", f"--output={tmp_path / 'run'}", *flags)
    done = runs.run(f"experiments.{binary}", *given)
    assert done.returncode == 2, done.stderr
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith(f"{binary}: ")
    assert message in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("binary", ["ablate", "compare"])
def test_a_folder_without_labels_is_said_before_anything_is_trained(binary, tmp_path):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for index in range(20):
        Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / "photos" / "train" / f"{index}.png")
    budget = ("--budget_minutes=1",) if binary == "compare" else ()
    given = ("--preset=tiny", f"--dataset=folder:{tmp_path / 'photos'}", "--split=train", *budget)
    done = runs.run(f"experiments.{binary}", *given, f"--output={tmp_path / 'run'}")
    assert done.returncode == 1, done.stderr
    (complaint,) = done.stderr.splitlines()
    assert "lies in no class folder, so it has no label" in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("binary", ["ablate", "compare"])
def test_an_output_that_is_a_file_is_said_before_images_are_read(binary, tmp_path):
    """Not after the trainings were timed."""
    (tmp_path / "file").touch()
    budget = ("--budget_minutes=1",) if binary == "compare" else ()
    given = ("--preset=tiny", "--dataset=folder:nowhere", f"--output={tmp_path / 'file'}", *budget)
    done = runs.run(f"experiments.{binary}", *given)
    assert done.returncode == 1, done.stderr
    (complaint,) = done.stderr.splitlines()
    assert "file should be a folder" in complaint


def without_times(results):
    """Results without times."""
    volatile = ("seconds", "wall_seconds", "images_per_second")
    if isinstance(results, dict):
        return {key: without_times(value) for key, value in results.items() if key not in volatile}
    return [without_times(value) for value in results] if isinstance(results, list) else results


def stop(binary, at, number, *flags):
    """Starts a binary and sends it a signal when a line of it begins with `at`; its status and last line."""
    process = runs.start(f"experiments.{binary}", *flags)
    for line in process.stdout:
        if line.startswith(at):
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err.splitlines()[-1:]


@pytest.mark.slow
def test_ablate_whole_stopped_and_extended(tmp_path):
    output = f"--output={tmp_path / 'run'}"
    given = (*ABLATE, output, "--only=encoder_3x3,mine", "--variant=mine:keep_probability=0.5")
    stopped = stop("ablate", "== encoder_3x3 (encoder_kernel=3): gan", signal.SIGTERM, *given)
    assert stopped == (143, ["ablate: terminated"])
    done = runs.run("experiments.ablate", *given, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "== base: gan: done before" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {name: one["changed"] for name, one in results["variants"].items()} == {
        "encoder_3x3": ["autoencoder.encoder_kernel: 2 -> 3"],
        "mine": ["damage.keep_probability: 0.3 -> 0.5"],
    }
    assert results["dataset"]["test_split"] == "train[60:110]"
    assert results["base"]["description"]["config"]["gan_training"]["batch_size"] == 4
    own = json.loads((tmp_path / "run" / "encoder_3x3" / "autoencoder" / "config.json").read_text())
    assert own["config"]["autoencoder"]["encoder_kernel"] == 3
    again = runs.run("experiments.ablate", *given, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert "features of the" not in again.stdout  # nothing is trained or probed again
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    other = runs.run("experiments.ablate", *given, "--crop_area=0.5,1", timeout=PATIENCE)
    assert (other.returncode, "holds another run" in other.stderr) == (1, True)


@pytest.mark.slow
def test_compare_whole_stopped_and_resumed(tmp_path):
    """Stopped in a training and started again, the plan stays and the figures are those of a run that never was."""
    stopped = stop("compare", "== rotation: rotation", signal.SIGTERM, *COMPARE, f"--output={tmp_path / 'halves'}")
    assert stopped == (143, ["compare: terminated"])
    plan = (tmp_path / "halves" / "plan.json").read_bytes()
    done = runs.run("experiments.compare", *COMPARE, f"--output={tmp_path / 'halves'}", timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "halves" / "plan.json").read_bytes() == plan
    assert "== calibration: done before" in done.stdout
    (tmp_path / "whole").mkdir()
    shutil.copy(tmp_path / "halves" / "plan.json", tmp_path / "whole")
    whole = runs.run("experiments.compare", *COMPARE, f"--output={tmp_path / 'whole'}", timeout=PATIENCE)
    assert whole.returncode == 0, whole.stderr
    halves, whole = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("halves", "whole"))
    assert without_times(halves) == without_times(whole)
    for place in ("random/1", *(f"{name}/features" for name in halves["methods"])):
        one, other = (np.load(tmp_path / run / place / "backbone.npz") for run in ("halves", "whole"))
        assert sorted(one) == sorted(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=f"{place}: {name}")
    steps = json.loads(plan)["steps"]
    for name, one in halves["methods"].items():
        assert one["description"]["step"] == list(steps[name].values())[-1] >= 10
        assert one["description"]["step"] % 10 == 0
    assert list(halves["methods"]["autoencoder"]["layers"]) == ["conv_1", "conv_2", "conv_3", "conv_4"]
    assert len(halves["layers"]) == 5
    table = (tmp_path / "halves" / "results.md").read_text()
    assert "| the autoencoder's own encoder |" in table
    assert "**ours**" in table
    changed = runs.run(
        "experiments.compare", *COMPARE, "--budget_minutes=0.2", f"--output={tmp_path / 'halves'}", timeout=PATIENCE
    )
    assert changed.returncode == 1
    assert "was made for budget_minutes=0.1" in changed.stderr
