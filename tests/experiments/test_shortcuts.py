"""The program `experiments.shortcuts` on untrained networks."""

import json

import pytest

from lts.export.choices import FILES
from lts.training import export
from lts.utils import outputs
from tests.fixtures.binaries import invoke
from tests.fixtures.runs import run
from tests.fixtures.spotting import write_photos, write_run

MODULE = "experiments.shortcuts"
QUICK = ("--max_images=9", "--occlusion_images=2", "--resamples=10", "--sigmas=1", "--qualities=50", "--factors=2")


@pytest.mark.slow
def test_the_program(tmp_path):
    """Fails on a corruption whose images need each other, on images that the model has seen, or in a folder in use."""
    gan = write_run(tmp_path / "gan", "gan", corruption="cell_swap", rotation_weight="1")
    export.export_run(gan, tmp_path / "features")
    photos = write_photos(tmp_path / "photos", [f"{number}.png" for number in range(10)])
    config = tmp_path / "features" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dataset": f"folder:{photos}", "split": "all"}))
    flags = (f"--model={tmp_path / 'features'}", f"--evaluate={gan}", f"--dataset=folder:{photos}", *QUICK)
    flags = (*flags, f"--output={tmp_path / 'out'}")
    with outputs.locked(tmp_path / "out"):
        assert "output is in use by process" in invoke(MODULE, *flags).stderr
    done = run(MODULE, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "may have seen test images" in done.stderr
    assert "score: 4 of 4 cells dropped" in done.stdout
    assert (tmp_path / "out" / "results.html").exists()
    assert not (tmp_path / "out" / "partial.json").exists()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["images"]["number"] == 8  # whole pairs
    assert list(results["layers"]) == [f"conv_{number}" for number in range(1, 6)]
    assert results["may_have_seen_test_images"] == [str(tmp_path / "features")]


def test_refused_before_the_work(tmp_path):
    """Fails if an export without a real/fake score, or a picture of the user, is not one line."""
    baseline = tmp_path / "rotation"
    baseline.mkdir()
    for name in FILES:
        (baseline / name).touch()
    fields = {"image_size": 16, "test_crop": 0.85, "spot": False, "layers": [], "config": {}}
    (baseline / "config.json").write_text(json.dumps(fields))
    flags = (f"--model={baseline}", "--evaluate=x", "--dataset=synthetic", f"--output={tmp_path / 'out'}")
    done = invoke(MODULE, *flags)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "has features alone: its checkpoint had no heads that spot artifacts" in done.stderr
    spot = (f"--model={baseline}", f"--images={tmp_path / 'photos'}", f"--output={tmp_path / 'spotted'}")
    assert invoke("lts.bin.spot_artifacts", *spot).stderr.endswith("its checkpoint had no heads that spot artifacts\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "occlusion.png").touch()
    done = invoke(MODULE, *flags)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "occlusion.png would be replaced" in done.stderr
    assert invoke(MODULE, *flags, "--sigmas=0").returncode == 2
    # A filter of this width would need gigabytes.
    assert invoke(MODULE, *flags, "--sigmas=1e9").returncode == 2
