"""Test images that a model saw in pre-training."""

import dataclasses

import pytest

from experiments.probing import run as probe_run
from experiments.probing.linear import LinearProbe
from experiments.probing.protocols import Protocol
from experiments.reporting import probe as probe_report
from tests.fixtures import probing


def run(tmp_path, **description):
    """Probe a stand-in whose export has this description."""
    model = probing.Model("runs/features")
    model.description |= description
    sources = {role: probing.source(role) for role in ("train", "test")}
    for role, source in sources.items():
        sources[role] = dataclasses.replace(source, name=f"folder:{tmp_path}")
    protocol = Protocol(dimensions=30)
    probe = LinearProbe(protocol=protocol, output=tmp_path / "out", **sources)
    return probe_run.run(probe, model, [probing.Model("runs/a", 1, "random")])


@pytest.fixture(autouse=True)
def _stand_ins(stand_in_world):
    pass


def test_test_images_of_pre_training(tmp_path, capsys):
    """Fails if accuracies on images of pre-training look like those of held-out images."""
    results = run(tmp_path, dataset=f"folder:{tmp_path}/../{tmp_path.name}", split="all")
    assert results["may_have_seen_test_images"] == ["runs/features"]
    assert "may have been among the training images of runs/features" in probe_report.caption(results)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: runs/features may have seen test images")


@pytest.mark.parametrize(
    "description", [{}, {"dataset": "synthetic", "split": "all"}, {"weights": "random", "split": "all"}]
)
def test_held_out_images(tmp_path, capsys, description):
    """Fails if a model of other images, or one that was never trained, gets the warning."""
    if description.get("weights"):
        description["dataset"] = f"folder:{tmp_path}"
    results = run(tmp_path, **description)
    assert results["may_have_seen_test_images"] == []
    assert "training images of runs" not in probe_report.caption(results)
    assert capsys.readouterr().err == ""
