"""The comparison: its plan, its trainings and its results."""

import json
import math

import pytest

from experiments.pretraining import baselines, timing
from experiments.pretraining.baselines import Comparison, Images, PlanError, Request
from experiments.pretraining.pipeline import Pipeline
from experiments.probing.protocols import Protocol
from lts.config import differences, preset
from lts.export import saved_model
from tests.fixtures import probing

BASE = preset("small")
SETTINGS = {"rotation": {"learning_rate": 1e-3, "beta_1": 0.9}, "supervised": {"learning_rate": 2e-3, "beta_1": 0.9}}
REQUEST = Request(budget_minutes=2.0, autoencoder_share=0.25, settings=SETTINGS)
TURNS = {  # seconds a step: 0.05, 0.2, 0.1, 0.04
    "autoencoder": [[100, 5.0], [100, 90.0], [200, 10.0]],  # the machine stood still in the second
    "gan": [[10, 2.0], [20, 4.0], [10, 2.0]],
    "rotation": [[40, 4.4], [40, 4.0], [40, 3.6]],
    "supervised": [[100, 4.0]],
}


def images():
    """Return small data sets."""
    return Images(probing.source("pretrain"), probing.source("train"), probing.source("test", 10))


def test_plan():
    """Fails if a method gets other steps than fit into the budget at the median rate."""
    planned = baselines.make_plan(REQUEST, BASE, TURNS)
    assert planned["steps"] == {
        "autoencoder": {"autoencoder": 2400},  # 120 / 0.05
        "rotation": {"rotation": 1200},
        "supervised": {"supervised": 3000},
        "ours": {"autoencoder": 600, "gan": 450},  # 30 / 0.05 and 90 / 0.2
    }
    assert [rate["batch_size"] for rate in planned["rates"].values()] == [16, 32, 32, 32]
    assert planned["rates"]["autoencoder"]["images_per_second"] == pytest.approx(16 / 0.05)
    assert planned["rates"]["autoencoder"]["turns"] == TURNS["autoencoder"]
    assert (planned["budget_minutes"], planned["autoencoder_share"], planned["settings"]) == (2.0, 0.25, SETTINGS)


def test_chosen_methods():
    """Fails if a method that was not chosen is planned, or one with its own fields gets another's rate."""
    request = Request(2.0, 0.25, SETTINGS, ("lci", "ours", "turned"))
    turns = {"lci": [[10, 3.0]], "turned/autoencoder": [[10, 1.0]], "turned/gan": [[10, 3.0]]} | TURNS
    planned = baselines.make_plan(request, BASE, turns)
    assert planned["steps"] == {
        "lci": {"lci": 400},
        "ours": {"autoencoder": 600, "gan": 450},
        "turned": {"autoencoder": 300, "gan": 300},
    }
    assert planned["rates"]["turned/autoencoder"]["batch_size"] == 16
    assert "300 steps of gan at 107 images/s" in baselines.describe_plan(planned)
    changed = differences(BASE, baselines.config_of("turned", BASE, SETTINGS))
    assert changed == [
        "loss.real_source: reconstruction -> mixed",
        "loss.rotation_weight: 0.0 -> 1.0",
        "loss.rotation_images: real -> both",
    ]
    assert baselines.config_of("lci", BASE, baselines.SETTINGS).gan_training.optimizer == "adamw"


@pytest.mark.parametrize(
    ("budget", "step", "steps"), [(60, 0.25, 240), (1, 0.1, 10), (59.9, 0.3, 190), (1e4, 0.33, 30300)]
)
def test_steps_within(budget, step, steps):
    """Fails if steps exceed the budget, waste ten steps of it, or are not rounded down to tens."""
    assert baselines.steps_within(budget, step, "x") == steps
    assert steps * step <= budget < (steps + 10) * step


def test_a_small_budget_is_refused():
    """Fails if the message does not name the training that does not fit."""
    with pytest.raises(
        PlanError, match=r"10 steps of rotation .* Received: 0\.9 s at 0\.100 s per step\. Raise --budget"
    ):
        baselines.steps_within(0.9, 0.1, "rotation")
    with pytest.raises(PlanError, match="of ours, stage gan"):
        baselines.make_plan(Request(2.0, 0.99, SETTINGS), BASE, TURNS)


@pytest.fixture
def measured(monkeypatch):
    """Calls of the calibration, which returns TURNS."""
    calls = []

    def time_loops(trainings, rounds, seconds):
        calls.append((trainings, rounds, seconds))
        return TURNS

    monkeypatch.setattr(timing, "time_loops", time_loops)
    return calls


def comparison(output):
    """Return the comparison in a folder, as a new start of the program sees it."""
    return Comparison(BASE, images(), output, Pipeline(output / "stages.json", BASE))


def plan(output, request=REQUEST):
    """Return the plan of a comparison in a folder."""
    return comparison(output).plan(request, 3, 15.0)


def test_a_plan_is_measured_once(measured, tmp_path):
    """Fails if a later start measures again, or if a stage is timed on the wrong images."""
    planned = plan(tmp_path)
    ((trainings, rounds, seconds),) = measured
    assert (rounds, seconds) == (3, 15.0)
    assert {name: (stage, source.split) for name, (_, stage, source) in trainings.items()} == {
        "autoencoder": ("autoencoder", "pretrain"),
        "rotation": ("rotation", "pretrain"),
        "supervised": ("supervised", "train"),
        "gan": ("gan", "pretrain"),
    }
    text = (tmp_path / "plan.json").read_text()
    assert plan(tmp_path) == planned == json.loads(text)
    assert len(measured) == 1
    assert (tmp_path / "plan.json").read_text() == text
    assert "2400 steps of autoencoder at 320 images/s" in baselines.describe_plan(planned)


def test_a_plan_survives_a_kill(measured, tmp_path):
    """Fails if a run killed between plan.json and stages.json measures again."""
    planned = plan(tmp_path)
    (tmp_path / "stages.json").unlink()
    assert plan(tmp_path) == planned
    assert len(measured) == 1


def test_a_plan_is_never_replaced(measured, tmp_path):
    """Fails if trainings that have begun get another plan."""
    plan(tmp_path)
    for request, message in (
        (Request(3.0, 0.25, SETTINGS), r"budget_minutes=2.0.*Received: budget_minutes=3.0"),
        (Request(2.0, 0.5, SETTINGS), "autoencoder_share=0.25"),
        (Request(2.0, 0.25, {}), "settings="),
    ):
        with pytest.raises(PlanError, match=message):
            plan(tmp_path, request)
    path = tmp_path / "plan.json"
    text = path.read_text()
    for damaged in (
        "",
        text[:-20],
        "[]",
        json.dumps({**json.loads(text), "steps": {}}),
        text.replace("steps", "x"),
        "[" * 9999,
    ):
        path.write_text(damaged)
        with pytest.raises(PlanError, match="the plan is damaged"):
            plan(tmp_path)
    path.unlink()
    with pytest.raises(PlanError, match=r"plan is missing.*plan\.json"):
        plan(tmp_path)
    (tmp_path / "stages.json").unlink()
    (tmp_path / "rotation").mkdir()
    with pytest.raises(PlanError, match=r"plan is missing.*plan\.json"):
        plan(tmp_path)
    assert len(measured) == 1


def test_a_failed_calibration_leaves_no_plan(monkeypatch, tmp_path):
    """Fails if a stopped calibration leaves a plan, or blocks the next start."""

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "time_loops", fails)
    with pytest.raises(KeyboardInterrupt):
        plan(tmp_path)
    assert not (tmp_path / "plan.json").exists()
    monkeypatch.setattr(timing, "time_loops", lambda *_: TURNS)
    assert plan(tmp_path)["steps"]["rotation"] == {"rotation": 1200}


class Encoder(probing.Model):
    """A model without the last layer."""

    layers = ("conv_1",)


@pytest.fixture
def world(monkeypatch):
    """Calls of trainings and exports, and models in their places."""
    from lts import training

    calls = []

    def train_stage(config, stage, source, folder, **more):
        calls.append((folder, config, stage, source.split, more))

    monkeypatch.setattr(baselines, "train_stage", train_stage)
    monkeypatch.setattr(training, "export_run", lambda run, output, source: calls.append((run, output)))
    monkeypatch.setattr(training, "export_random", lambda config, source, seed, output: calls.append((seed, output)))

    def load(path):
        name = path.parent.name
        model = (Encoder if name == "autoencoder" else probing.Model)(path, sum(map(ord, str(path)[-20:])))
        model.description["seconds"] = {"stage 1": 30, "stage 2": 60} if name == "ours" else {"stage": 90}
        return model

    monkeypatch.setattr(saved_model, "load", load)
    monkeypatch.setattr("lts.data.test_batches", probing.batches)
    return calls


def test_trainings(measured, world, tmp_path):
    """Fails if a method is trained on wrong images, for wrong steps, with wrong settings, or twice."""
    planned = plan(tmp_path)
    comparison(tmp_path).pretrain(planned)
    assert [call for call in world if len(call) == 2] == [
        *((seed, tmp_path / "random" / str(seed)) for seed in (1, 2, 3)),
        (tmp_path / "autoencoder" / "autoencoder", tmp_path / "autoencoder" / "features"),
        (tmp_path / "rotation" / "rotation", tmp_path / "rotation" / "features"),
        (tmp_path / "supervised" / "supervised", tmp_path / "supervised" / "features"),
        (tmp_path / "ours" / "gan", tmp_path / "ours" / "features"),
    ]
    trained = {f"{call[0].relative_to(tmp_path)}": call[1:] for call in world if len(call) > 2}
    assert {name: (stage, split, more) for name, (_, stage, split, more) in trained.items()} == {
        "autoencoder/autoencoder": ("autoencoder", "pretrain", {}),
        "rotation/rotation": ("rotation", "pretrain", {}),
        "supervised/supervised": ("supervised", "train", {}),
        "ours/autoencoder": ("autoencoder", "pretrain", {}),
        "ours/gan": ("gan", "pretrain", {"autoencoder": tmp_path / "ours" / "autoencoder"}),
    }
    changed = {name: differences(BASE, config) for name, (config, *_) in trained.items()}
    both = ["autoencoder_training.steps: 16000 -> 600", "gan_training.steps: 9000 -> 450"]
    beta = "gan_training.beta_1: 0.5 -> 0.9"
    assert changed == {
        "autoencoder/autoencoder": ["autoencoder_training.steps: 16000 -> 2400"],
        "rotation/rotation": ["gan_training.steps: 9000 -> 1200", beta],
        "supervised/supervised": [
            "gan_training.steps: 9000 -> 3000",
            "gan_training.learning_rate: 0.001 -> 0.002",
            beta,
        ],
        "ours/autoencoder": both,
        "ours/gan": both,
    }
    count = len(world)
    comparison(tmp_path).pretrain(planned)
    assert len(world) == count


def test_results(measured, world, tmp_path):
    """Fails if a mean, a paired difference or a cost is not that of the records."""
    planned = plan(tmp_path)
    run = comparison(tmp_path)
    run.pretrain(planned)
    results = run.probe(planned, Protocol(dimensions=30))
    assert results["layers"] == ["conv_1", "conv_2"]
    methods = results["methods"]
    assert {name: list(method["layers"]) for name, method in methods.items()} == {
        "autoencoder": ["conv_1"],
        "rotation": ["conv_1", "conv_2"],
        "supervised": ["conv_1", "conv_2"],
        "ours": ["conv_1", "conv_2"],
    }

    def at(records):
        return records["conv_1"]["accuracy"]

    mean = math.fsum(at(model["layers"]) for model in results["random"]) / 3
    assert at(results["random_mean"]) == pytest.approx(mean)
    for name, method in methods.items():
        assert at(method["difference"]) == pytest.approx(at(method["layers"]) - mean, abs=1e-12)
        if name != "ours":
            expected = at(methods["ours"]["layers"]) - at(method["layers"])
            assert at(results["ours_minus"][name]) == pytest.approx(expected, abs=1e-12)
    assert methods["ours"]["seconds"] == {"autoencoder": 30, "gan": 60}
    assert methods["ours"]["steps"] == {"autoencoder": 600, "gan": 450}
    assert methods["ours"]["images_per_second"] == {"autoencoder": 600 * 16 / 30, "gan": 450 * 32 / 60}
    assert methods["rotation"]["seconds"] == {"rotation": 90}
    assert methods["ours"]["path"] == "ours/features"
    json.dumps(results)
