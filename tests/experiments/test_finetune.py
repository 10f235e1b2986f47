"""Fine-tuning and training from scratch: runs of the programs' main on a tiny export and the synthetic set."""

import dataclasses
import json
import signal

import numpy as np
import pytest

import lts
from experiments import finetune, report, supervised
from experiments.probing import run as probe_run
from experiments.probing.finetuning import FinetuneProbe
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import FINETUNE
from experiments.reporting import results as result_files
from experiments.reporting import tables
from lts import data, training
from lts.export.saved_model import ExportError
from lts.networks.variables import variables_by_path
from lts.training import checkpoints, run_dir
from lts.training.loop import Loop
from lts.training.train import build_model
from lts.utils.files import OutputError
from tests.fixtures import probe_binaries
from tests.fixtures.binaries import call
from tests.fixtures.exports import CONFIG, noisy_export

SPLITS = ("--dataset=synthetic", "--train_split=train[:40]", "--test_split=test[:30]")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two exports of the same backbone, the second with random weights."""
    folder = tmp_path_factory.mktemp("models")
    noisy_export(folder / "features", CONFIG)
    noisy_export(folder / "random", CONFIG.replace(seed=2))
    path = folder / "random" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "random", "seed": 2}))
    return folder


@pytest.fixture(scope="module")
def sources():
    """Training and test images."""
    train = data.open_source("synthetic", "train[:40]", progress=False)
    test = data.open_source("synthetic", "test[:30]", role="test", progress=False)
    return {"train": train, "test": test}


def run(program, models, output, *arguments):
    """Run a program's main for one epoch; return its results."""
    return probe_binaries.run(program, output, f"--model={models / 'features'}", *SPLITS, "--epochs=1", *arguments)


def trained(output, seed=1):
    """Return the weights that the run of `features` trained, by name."""
    model = json.loads((output / "results.json").read_text())["model"]
    return checkpoints.read_newest(output / "training" / f"{model['fingerprint']}_{seed}")[0]


def moved_layers(output, models) -> set[str]:
    """Return the layers of the backbone that are not bit-identical to those of the export."""
    exported = variables_by_path(lts.load(models / "features").keras_model().backbone)
    values = trained(output)
    moved = set()
    for path, value in exported.items():
        if not np.array_equal(values[f"network/trunk/{path}"], value):
            moved.add(path.split("/")[0])
    return moved


@pytest.mark.parametrize(
    ("head", "train_layers", "layers", "caption"),
    [
        pytest.param("fc", None, {1, 2, 3, 4, 5}, "all layers", marks=pytest.mark.slow),
        ("linear", 2, {4, 5}, "the last 2 layers"),
        pytest.param("pooled", 0, set(), "the head alone", marks=pytest.mark.slow),
    ],
)
def test_a_complete_run(head, train_layers, layers, caption, models, tmp_path, capsys):
    """Fails if other layers than requested move, the test accuracy is wrong, or another run shares the folder."""
    flags = [] if train_layers is None else [f"--train_layers={train_layers}"]
    results = run(finetune, models, tmp_path, f"--head={head}", *flags)
    assert moved_layers(tmp_path, models) == {f"conv_{layer}" for layer in layers}
    record = results["model"]["layers"]["fine-tuned"]
    assert results["kind"] == "finetune"
    assert results["layers"] == ["fine-tuned"]
    assert record["interval"][0] <= record["accuracy"] <= record["interval"][1]
    assert results["protocol"]["head"] == head
    (workdir,) = (tmp_path / "training").iterdir()
    assert workdir.name == f"{results['model']['fingerprint']}_1"
    assert list((workdir / "tensorboard").iterdir())
    classifier = training.load_classifier(workdir)
    test = data.open_source("synthetic", "test[:30]", progress=False)
    views = next(iter(data.test_batches(test, CONFIG.image, batch_size=30)))
    correct = np.argmax(classifier(views), 1) == test.labels
    assert record["accuracy"] == pytest.approx(correct.mean())
    printed = capsys.readouterr().out
    assert "1 of 1 steps" in printed
    assert f"{100 * record['accuracy']:.1f} [" in printed
    table = (tmp_path / "results.md").read_text()
    assert "fine-tuning on synthetic: 40 training, 30 test images, 10 classes" in table
    assert caption in table
    with pytest.raises(training.TrainingError, match=rf"head: {head} -> .*another folder"):
        run(finetune, models, tmp_path, "--head=" + ("pooled" if head == "linear" else "linear"))
    with pytest.raises(ProbeError, match="was trained on other images"):
        run(finetune, models, tmp_path, f"--head={head}", "--train_split=train[:48]")


def test_several_seeds_are_one_record(models, sources, tmp_path, monkeypatch):
    """Fails if a seed is not trained, or the record is not the mean over the seeds."""
    seeds = []

    def correct_images(probe, model, seed):
        seeds.append(seed)
        return np.arange(30) < 10 * seed

    monkeypatch.setattr(FinetuneProbe, "_train", lambda *_: None)
    monkeypatch.setattr(FinetuneProbe, "_test", correct_images)
    protocol = dataclasses.replace(FINETUNE["default"], seeds=(1, 2))
    probe = FinetuneProbe(protocol=protocol, output=tmp_path, **sources)
    (result,) = probe.run(lts.load(models / "features"), ["fine-tuned"])
    assert seeds == [1, 2]
    assert result.record["accuracies"] == pytest.approx([1 / 3, 2 / 3])
    assert result.record["accuracy"] == pytest.approx(0.5)


@pytest.mark.slow
def test_seeds_and_a_baseline_in_the_report(models, tmp_path):
    """Fails if seeds train the same weights, or the report does not take results over seeds."""
    baseline = f"--baseline={models / 'random'}"
    results = run(finetune, models, tmp_path, baseline, "--seeds=3,1", "--head=pooled", "--learning_rate=0.01")
    assert results["protocol"]["seeds"] == [1, 3]
    accuracies = results["model"]["layers"]["fine-tuned"]["accuracies"]
    baseline_accuracies = results["baselines"][0]["layers"]["fine-tuned"]["accuracies"]
    assert len(accuracies) == len(baseline_accuracies) == 2
    difference = results["difference"]["fine-tuned"]
    assert difference["accuracy"] == pytest.approx(np.mean(accuracies) - np.mean(baseline_accuracies))
    assert len(list((tmp_path / "training").iterdir())) == 4
    kernels = [trained(tmp_path, seed)["network/fc_2/kernel"] for seed in (1, 3)]
    assert not np.array_equal(*kernels)
    assert "Mean over 2 seeds" in (tmp_path / "results.md").read_text()
    loaded = result_files.load(tmp_path / "results.json")
    table = tables.table([loaded])
    assert table[0] == ["", "fine-tuned"]
    assert [row[0].split(",")[0] for row in table[1:]] == ["random initialisation", "**ours", "difference (paired)"]
    assert "finetune on synthetic" in report.text([loaded], {})


def test_from_scratch(models, tmp_path):
    """Fails if the upper reference begins with the weights that it must not have, or fine-tuning without them."""
    arguments = ("--learning_rate=1e-12", "--head=linear")
    scratch = run(supervised, models, tmp_path / "scratch", *arguments)
    tuned = run(finetune, models, tmp_path / "tuned", *arguments)
    assert moved_layers(tmp_path / "scratch", models) == {f"conv_{layer}" for layer in range(1, 6)}
    exported = variables_by_path(lts.load(models / "features").keras_model().backbone)
    for path in ("conv_1/kernel", "conv_5/conv_1/kernel"):
        assert not np.allclose(trained(tmp_path / "scratch")[f"network/trunk/{path}"], exported[path], atol=0.01)
        np.testing.assert_allclose(trained(tmp_path / "tuned")[f"network/trunk/{path}"], exported[path], atol=1e-6)
    assert scratch["layers"] == ["from scratch"]
    assert tuned["protocol"] == scratch["protocol"] | {"pretrained": True, "name": "finetune"}
    assert scratch["model"]["description"]["weights"] == "from scratch"
    assert tables.model_name(scratch["model"]).startswith("supervised from scratch")
    assert "(from scratch) |" in (tmp_path / "scratch" / "results.md").read_text()


def test_a_stopped_run_resumes(models, tmp_path, monkeypatch):
    """Fails if anything is trained twice, or a resumed run is not bit-identical to an uninterrupted one."""
    arguments = (f"--baseline={models / 'random'}", "--head=pooled", "--epochs=3")
    uninterrupted = run(finetune, models, tmp_path / "once", *arguments)
    report_step = Loop._report
    calls = []

    def interrupt(loop, step, total):
        report_step(loop, step, total)
        calls.append(step)
        if len(calls) == 3:  # the model's three steps are two calls; this is the first one of the baseline
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(finetune, models, tmp_path / "twice", *arguments)
    assert not (tmp_path / "twice" / "results.json").exists()
    tested = []
    test_model = FinetuneProbe._test
    monkeypatch.setattr(FinetuneProbe, "_test", lambda *given: tested.append(given) or test_model(*given))
    resumed = run(finetune, models, tmp_path / "twice", *arguments, f"--export={tmp_path / 'exported'}")
    assert len(tested) == 1  # the baseline; the model is not tested again
    assert {**uninterrupted, "seconds": 0} == {**resumed, "seconds": 0}
    for workdir in (tmp_path / "once" / "training").iterdir():
        expected = checkpoints.read_newest(workdir)[0]
        values = checkpoints.read_newest(tmp_path / "twice" / "training" / workdir.name)[0]
        for name, value in expected.items():
            np.testing.assert_array_equal(values[name], value, err_msg=name)
    exported = lts.load(tmp_path / "exported")
    assert exported.description["fine_tuned_from"] == resumed["model"]["fingerprint"]
    kernel = exported.keras_model().backbone.convs[0].kernel
    np.testing.assert_array_equal(kernel, trained(tmp_path / "twice")["network/trunk/conv_1/kernel"])


def test_baselines_are_trained_in_the_same_way(models):
    """Fails if the schedule depends on how a model was pre-trained."""
    model = lts.load(models / "features")
    model.config = model.config.replace(learning_rate=0.5, batch_size=7, steps=9, global_clipnorm=1.0, ema_decay=0.9)
    probe = FinetuneProbe(protocol=FINETUNE["release"], train=None, test=None, output=None)
    config = probe.training_config(model, seed=5)
    stage = config.gan_training
    assert (stage.learning_rate, stage.batch_size, stage.epochs, stage.steps, stage.seed) == (1e-3, 128, 400, 0, 5)
    assert (stage.global_clipnorm, stage.ema_decay, config.loss.weight_decay) == (0.0, 0.0, 5e-5)
    assert (config.image, config.discriminator) == (model.config.image, model.config.discriminator)


class NoBackbone:
    """An export that cannot be fine-tuned."""

    def keras_model(self):
        """Raise as `LoadedModel.keras_model` does."""
        raise ExportError("an exported encoder has no backbone")


def _no_labels(source):
    return dataclasses.replace(source, labels=None)


def _one_image_of_a_class(source):
    labels = np.arange(len(source.labels)) % 9
    labels[0] = 9
    return dataclasses.replace(source, labels=labels)


def _unchanged(source):
    return source


@pytest.mark.parametrize(
    ("change", "batch_size", "error", "message"),
    [
        (_no_labels, 32, ProbeError, "training images must have labels"),
        (_one_image_of_a_class, 32, ProbeError, "every class needs at least 2 training images. Received: 1 of class"),
        (_unchanged, 41, ProbeError, "Received: 40 training images, batch_size=41. Lower --batch_size"),
        (_unchanged, 32, ExportError, "exported encoder"),
    ],
)
def test_errors_are_found_before_training(change, batch_size, error, message, sources, tmp_path):
    """Fails if wrong images or a wrong baseline are found after hours of training."""
    protocol = dataclasses.replace(FINETUNE["default"], batch_size=batch_size)
    probe = FinetuneProbe(
        protocol=protocol, train=change(sources["train"]), test=sources["test"], output=tmp_path / "output"
    )
    with pytest.raises(error, match=message) as raised:
        probe_run.run(probe, NoBackbone(), [])
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_an_exported_encoder_is_refused_before_training(models, tmp_path):
    """Fails if a baseline without a backbone is found after the model was trained."""
    run_dir.write_run_config(tmp_path / "run", training.RunRecord("autoencoder", CONFIG))
    checkpoints.Checkpoints(tmp_path / "run", {"encoder": build_model(CONFIG, "autoencoder").encoder}).save(0)
    training.export_run(tmp_path / "run", tmp_path / "encoder")
    with pytest.raises(ExportError, match="exported encoder"):
        run(finetune, models, tmp_path / "output", f"--baseline={tmp_path / 'encoder'}")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("program", "argument", "status", "message"),
    [
        (finetune, "--train_layers=-1", 2, "train_layers"),
        (finetune, "--head=fc_1", 2, "fc_1"),
        (finetune, "--seeds=1,x", 2, "seeds must be"),
        (finetune, "--learning_rate=0", 2, "learning_rate"),
        (supervised, "--train_layers=2", 2, "train_layers"),
        (finetune, "--epochs=1", 1, "nothing/here"),
    ],
)
def test_errors_of_flags(program, argument, status, message):
    """Fails if a wrong flag is accepted, or its error does not name it."""
    probe_binaries.check_error(program, ["--model=nothing/here", *SPLITS, argument], status, message)


@pytest.mark.parametrize("place", ["", "training"])
def test_an_export_over_the_runs_is_refused_before_training(tmp_path, place):
    """Fails if the run to export is found in the folder of the export after hours of training."""
    export = tmp_path / "out" / place
    with pytest.raises(OutputError, match="is inside the output folder"):
        call(finetune, "--model=m", "--dataset=synthetic", f"--output={tmp_path / 'out'}", f"--export={export}")
