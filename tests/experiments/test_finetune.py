"""Fine-tuning and training from scratch: whole runs of the binaries' main on a tiny export and a few drawn images."""

import json
import signal

import numpy as np
import pytest

import lts
from experiments import finetune, report, supervised
from experiments.probing import finetuning, protocols
from experiments.probing.features import ProbeError
from experiments.reporting import results as result_files
from experiments.reporting import tables
from lts import data, training
from lts.export.saved_model import ExportError
from lts.networks.variables import variables_by_path
from lts.training import run_dir
from lts.training.loop import Loop
from lts.training.train import build_model
from tests.fixtures import probe_binaries
from tests.fixtures.binaries import call
from tests.training.test_transfer import CONFIG, made_up_export

SPLITS = ("--dataset=synthetic", "--train_split=train[:40]", "--test_split=test[:30]")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two exports of the same backbone, the second with random weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, config in (("features", CONFIG), ("random", CONFIG.replace(seed=2))):
        made_up_export(folder / name, config)
    path = folder / "random" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "random", "seed": 2}))
    return folder


def run(binary, models, output, *arguments):
    """The binary's main with these flags; its results."""
    call(binary, f"--model={models / 'features'}", f"--output={output}", *SPLITS, "--epochs=1", *arguments)
    return json.loads((output / "results.json").read_text())


def trained(output, seed=1):
    """The weights of the run of `features` by name."""
    model = json.loads((output / "results.json").read_text())["model"]
    return run_dir.read_newest(output / "training" / f"{model['fingerprint']}_{seed}")[0]


def moved(output, models) -> set[str]:
    """Layers of the backbone that are not bit-identical to the export's."""
    given = variables_by_path(lts.load(models / "features").keras_model().backbone)
    values = trained(output)
    return {p.split("/")[0] for p, v in given.items() if not np.array_equal(values[f"network/trunk/{p}"], v)}


@pytest.mark.parametrize(
    ("head", "train_layers", "layers"),
    [("fc", 5, {1, 2, 3, 4, 5}), ("linear", 2, {4, 5}), ("pooled", 0, set())],
)
def test_whole_runs(head, train_layers, layers, models, tmp_path, capsys):
    """Each head; exactly the layers that should have moved are not the export's."""
    results = run(finetune, models, tmp_path, f"--head={head}", f"--train_layers={train_layers}")
    assert moved(tmp_path, models) == {f"conv_{layer}" for layer in layers}
    record = results["model"]["layers"]["fine-tuned"]
    assert results["layers"] == ["fine-tuned"]
    assert record["interval"][0] <= record["accuracy"] <= record["interval"][1]
    assert results["protocol"]["head"] == head
    folder = next((tmp_path / "training").iterdir())
    assert folder.name == f"{results['model']['fingerprint']}_1"
    assert list((folder / "tensorboard").iterdir())
    classifier, test = training.load_classifier(folder), data.open_source("synthetic", "test[:30]", progress=False)
    views = next(iter(data.test_batches(test, CONFIG.image, batch_size=30)))
    right = np.argmax(classifier(views), 1) == test.labels
    assert record["accuracy"] == pytest.approx(right.mean())
    shown = capsys.readouterr().out
    assert f"{40 // 32} of 1 steps" in shown
    table = (tmp_path / "results.md").read_text()
    assert "fine-tuning on synthetic: 40 training, 30 test images, 10 classes" in table
    assert {5: "all layers", 2: "the last 2 convolutions", 0: "the head alone"}[train_layers] in table
    assert table in shown


def test_several_seeds_and_a_baseline(models, tmp_path):
    """Seeds that are one run, an unpaired difference, results that the report does not take."""
    baseline = f"--baseline={models / 'random'}"
    results = run(finetune, models, tmp_path, baseline, "--seeds=3,1", "--head=pooled", "--learning_rate=0.01")
    assert results["protocol"]["seeds"] == [1, 3]
    ours, others = (each["layers"]["fine-tuned"]["accuracies"] for each in (results["model"], results["baselines"][0]))
    assert len(ours) == len(others) == 2
    assert results["model"]["layers"]["fine-tuned"]["accuracy"] == pytest.approx(np.mean(ours))
    difference = results["difference"]["fine-tuned"]
    assert difference["accuracy"] == pytest.approx(np.mean(ours) - np.mean(others))
    assert len(list((tmp_path / "training").iterdir())) == 4
    kernels = [trained(tmp_path, seed)["network/fc_2/kernel"] for seed in (1, 3)]
    assert not np.array_equal(*kernels)
    assert "Mean over 2 seeds" in (tmp_path / "results.md").read_text()
    loaded = result_files.load(tmp_path / "results.json")
    assert loaded.kind == "probe"
    table = tables.table([loaded])
    assert table[0] == ["", "fine-tuned"]
    assert [row[0].split(",")[0] for row in table[1:]] == ["random initialisation", "**ours", "difference (paired)"]
    assert "finetune on synthetic" in report.text([loaded], {})


def test_from_scratch(models, tmp_path):
    """The upper reference that begins with the weights it should do without."""
    results = run(supervised, models, tmp_path / "scratch", "--learning_rate=1e-12", "--head=linear")
    begun = run(finetune, models, tmp_path / "tuned", "--learning_rate=1e-12", "--head=linear")
    assert moved(tmp_path / "scratch", models) == {f"conv_{layer}" for layer in range(1, 6)}
    given = variables_by_path(lts.load(models / "features").keras_model().backbone)
    for path in ("conv_1/kernel", "conv_5/conv_1/kernel"):
        assert not np.allclose(trained(tmp_path / "scratch")[f"network/trunk/{path}"], given[path], atol=0.01)
        np.testing.assert_allclose(trained(tmp_path / "tuned")[f"network/trunk/{path}"], given[path], atol=1e-6)
    assert results["layers"] == ["from scratch"]
    assert begun["protocol"] == results["protocol"] | {"pretrained": True, "name": "finetune"}
    assert results["model"]["description"]["weights"] == "from scratch"
    assert tables.model_name(results["model"]).startswith("supervised from scratch")
    assert "(from scratch) |" in (tmp_path / "scratch" / "results.md").read_text()


def test_a_stopped_run_goes_on(models, tmp_path, monkeypatch):
    """Ctrl-C in the training of the baseline: nothing is trained twice, and it ends with the same bits."""
    arguments = (f"--baseline={models / 'random'}", "--head=pooled", "--epochs=3", "--export=" + str(tmp_path / "made"))
    once = run(finetune, models, tmp_path / "once", *arguments)
    report, starts = Loop._report, []

    def stop(loop, step, total):
        report(loop, step, total)
        starts.append(step)
        if len(starts) == 3:  # the model's three steps are two calls; the first of the baseline's
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", stop)
        with pytest.raises(KeyboardInterrupt):
            run(finetune, models, tmp_path / "twice", *arguments)
    assert not (tmp_path / "twice" / "results.json").exists()
    monkeypatch.setattr(finetuning, "_test", _counted(finetuning._test, calls := []))
    twice = run(finetune, models, tmp_path / "twice", *arguments)
    assert len(calls) == 1  # the baseline; the model is not tested again
    assert {**once, "seconds": 0} == {**twice, "seconds": 0}
    for folder in (tmp_path / "once" / "training").iterdir():
        whole, halves = (
            run_dir.read_newest(tmp_path / name / "training" / folder.name)[0] for name in ("once", "twice")
        )
        for name, value in whole.items():
            np.testing.assert_array_equal(halves[name], value, err_msg=name)
    exported = lts.load(tmp_path / "made")
    assert exported.description["fine_tuned_from"] == once["model"]["fingerprint"]
    kernel = exported.keras_model().backbone.convs[0].kernel
    np.testing.assert_array_equal(kernel, trained(tmp_path / "twice")["network/trunk/conv_1/kernel"])


def _counted(function, calls: list):
    """The function, noting its calls."""

    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


def test_another_protocol_in_the_same_output_is_refused(models, tmp_path):
    run(finetune, models, tmp_path, "--head=pooled")
    with pytest.raises(training.TrainingError, match=r"head: pooled -> linear.*or another folder"):
        run(finetune, models, tmp_path, "--head=linear")
    with pytest.raises(ProbeError, match="was trained on other images"):
        run(finetune, models, tmp_path, "--head=pooled", "--train_split=train[:48]")


def test_baselines_are_trained_in_the_same_way(models):
    """A schedule, precision apart, that goes by how a model was pre-trained."""
    model = lts.load(models / "features")
    model.config = model.config.replace(learning_rate=0.5, batch_size=7, steps=9, global_clipnorm=1.0, ema_decay=0.9)
    config = finetuning.config_of(model, protocols.FINETUNE["release"], seed=5)
    stage = config.gan_training
    assert (stage.learning_rate, stage.batch_size, stage.epochs, stage.steps, stage.seed) == (1e-3, 128, 400, 0, 5)
    assert (stage.global_clipnorm, stage.ema_decay, config.loss.weight_decay) == (0.0, 0.0, 5e-5)
    assert (config.image, config.discriminator) == (model.config.image, model.config.discriminator)


def _one_image(source):
    source.labels[:] = np.arange(len(source.labels)) % 9
    source.labels[0] = 9


def _no_labels(source):
    object.__setattr__(source, "labels", None)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (_no_labels, (), "training images have no labels"),
        (_one_image, (), "has one training image, and needs 2 at least"),
        (lambda source: None, ("--batch_size=41",), "40 training images are less than one batch of 41: lower"),
    ],
)
def test_errors_of_the_data_are_one_line(change, arguments, message, models, tmp_path, monkeypatch):
    whole = data.open_source

    def opened(*given, **options):
        source = whole(*given, **options)
        if options["role"] == "train":
            change(source)
        return source

    monkeypatch.setattr(data, "open_source", opened)
    with pytest.raises(ProbeError, match=message) as error:
        run(finetune, models, tmp_path, *arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_baseline_without_a_backbone_is_refused_before_training(models, tmp_path):
    record = {"stage": "autoencoder", "config": CONFIG}
    run_dir.write_run_config(tmp_path / "run", record)
    run_dir.Checkpoints(tmp_path / "run", {"encoder": build_model(CONFIG, "autoencoder").encoder}).save(0)
    training.export_run(tmp_path / "run", tmp_path / "encoder")
    with pytest.raises(ExportError, match="exported encoder"):
        run(finetune, models, tmp_path / "output", f"--baseline={tmp_path / 'encoder'}")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("binary", "arguments", "status", "message"),
    [
        ("finetune", ["--train_layers=6"], 2, "train_layers"),
        ("finetune", ["--head=fc_1"], 2, "fc_1"),
        ("finetune", ["--seeds=1,x"], 2, "seeds must be"),
        ("finetune", ["--learning_rate=0"], 2, "learning_rate"),
        ("supervised", ["--train_layers=2"], 2, "train_layers"),
        ("finetune", [], 1, "nothing/here is not an exported model"),
    ],
)
def test_errors_of_the_command_are_one_line(binary, arguments, status, message):
    probe_binaries.check_complaint(binary, "nothing/here", arguments, status, message)
