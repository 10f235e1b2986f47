"""The binary's main on a tiny stand-in model and data set."""

import subprocess
import sys

import numpy as np
import pytest

from experiments import linear_probe
from experiments.probing import projector
from experiments.probing import run as probe_run
from experiments.probing.features import ProbeError
from tests.fixtures import probe_binaries, probing


@pytest.fixture
def world(stand_in_world):
    """Models and sources that tests change."""
    return stand_in_world


def run(output, *arguments):
    """The binary's main with these flags."""
    return probe_binaries.run(linear_probe, output, *arguments)


def test_writes_json_table_and_plot(world, tmp_path, capsys):
    results = run(tmp_path, "--baseline=runs/a,runs/b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.json",
        "results.md",
        "results.png",
        "tensorboard",
    ]
    assert results["layers"] == ["conv_1", "conv_2"]
    assert results["dataset"]["train_images"] == 60
    assert results["dataset"]["test_images"] == 30
    assert [model["path"] for model in results["baselines"]] == ["runs/a", "runs/b"]
    for layer in results["layers"]:
        accuracies = [model["layers"][layer]["accuracy"] for model in results["baselines"]]
        mean = results["baseline_mean"][layer]["accuracy"]
        assert mean == pytest.approx(np.mean(accuracies))
        difference = results["difference"][layer]
        assert difference["accuracy"] == pytest.approx(results["model"]["layers"][layer]["accuracy"] - mean)
        assert difference["interval"][0] <= difference["accuracy"] <= difference["interval"][1]
    assert results["model"]["layers"]["conv_1"]["accuracy"] > 0.6
    table = (tmp_path / "results.md").read_text()
    assert "| runs/a (random) |" in table
    assert "| mean of 2 random |" in table
    assert table in capsys.readouterr().out
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_twice(world, tmp_path):
    first, second = run(tmp_path / "1"), run(tmp_path / "2", "--batch_size=60")
    assert "difference" not in first
    first.pop("seconds"), second.pop("seconds")
    assert first == second


def test_a_stopped_run_goes_on(world, tmp_path, monkeypatch):
    once = run(tmp_path / "once", "--baseline=runs/a")
    world["models"]["runs/features"].calls = 0
    whole = probe_run.probes.linear_probe
    calls = []

    def stops_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(probe_run.probes, "linear_probe", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "twice", "--baseline=runs/a")
    assert [path.name for path in (tmp_path / "twice").iterdir()] == ["partial.json"]
    used = world["models"]["runs/features"].calls
    twice = run(tmp_path / "twice", "--baseline=runs/a", "--batch_size=30")
    assert world["models"]["runs/features"].calls == used + 1  # not looked at again, but for the projector
    assert len((tmp_path / "twice" / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 30
    assert len(calls) == 5  # two, the stopped one, and the two that were missing
    assert {**once, "seconds": 0} == {**twice, "seconds": 0}
    assert not (tmp_path / "twice" / "partial.json").exists()


def test_a_run_stopped_in_the_projector_goes_on(world, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(projector, "visualize_embeddings", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "partial.json",
        "results.json",
        "results.md",
        "results.png",
    ]
    before = (tmp_path / "results.json").read_text()
    run(tmp_path)
    assert (tmp_path / "results.json").read_text() == before
    assert (tmp_path / "tensorboard" / "projector_config.pbtxt").exists()
    assert not (tmp_path / "partial.json").exists()


def test_the_projector_shows_the_deepest_layer_of_the_model(world, tmp_path):
    run(tmp_path, "--baseline=runs/a", "--layers=conv_2,conv_1", "--projector_images=9")
    model, images = world["models"]["runs/features"], world["sources"]["test"].images
    chosen = projector.choose(world["sources"]["test"].labels, 9)
    expected = model(images[chosen])["conv_2"].numpy().mean(axis=(1, 2))
    found = np.loadtxt(tmp_path / "tensorboard" / "features.tsv")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_no_projector_where_none_is_asked_for(world, tmp_path):
    run(tmp_path, "--projector_images=0")
    assert not (tmp_path / "tensorboard").exists()


def test_partial_results_of_another_protocol_are_not_used(world, tmp_path):
    partial = [probe_run.Partial(tmp_path / "partial.json", {"seed": seed}) for seed in (1, 2)]
    model = world["models"]["runs/features"]
    partial[0].put(model, {"conv_1": {"accuracy": 1.0}})
    assert probe_run.Partial(tmp_path / "partial.json", {"seed": 1}).get(model, "conv_1") == {"accuracy": 1.0}
    assert partial[1].get(model, "conv_1") is None
    assert partial[0].get(world["models"]["runs/a"], "conv_1") is None


def _no_labels(sources):
    sources["train"].labels = None


def _other_classes(sources):
    sources["test"].class_names = ("blue", "green", "violet")


def _class_without_test_images(sources):
    sources["test"] = probing.ImageDataset("test", sources["test"].images[:20], sources["test"].labels[:20])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_labels, "training images have no labels"),
        (_other_classes, "only on one side: red, violet"),
        (_class_without_test_images, "class 'red' has no test images"),
    ],
)
def test_errors_of_the_data_are_one_line(world, tmp_path, change, message):
    change(world["sources"])
    with pytest.raises(ProbeError, match=message) as error:
        run(tmp_path)
    assert "\n" not in str(error.value)


def test_a_layer_that_is_not_there(world, tmp_path):
    with pytest.raises(ProbeError, match=r"runs/features has no layer 'conv_9'; it has conv_1, conv_2"):
        run(tmp_path, "--layers=conv_1,conv_9")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--dataset=synthetic", "--output=nowhere"], 2, "--model"),
        (["--model=x", "--dataset=synthetic", "--output=nowhere", "--pool=median"], 2, "median"),
        (["--model=x", "--dataset=synthetic", "--output=nowhere", "--projector_images=-1"], 2, "projector_images"),
        (["--model=x", "--dataset=synthetic", "--output=nowhere", "stray"], 2, "stray"),
        (["--model=nothing/here", "--dataset=synthetic", "--output=nowhere"], 1, "nothing/here"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, status, message):
    command = [sys.executable, "-m", "experiments.linear_probe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status
    complaint = done.stderr.splitlines()[-1]  # TensorFlow may have said something before
    assert complaint.startswith("linear_probe: ")
    assert message in complaint
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
