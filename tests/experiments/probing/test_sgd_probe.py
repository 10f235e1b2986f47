"""The protocols whose heads are trained over augmented images: whole runs, resume, the frozen backbone, errors."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from experiments import linear_probe
from experiments.probing import run as probe_run
from experiments.probing import sgd_probe
from experiments.probing.features import ProbeError
from experiments.probing.protocols import SGD, Protocol
from experiments.reporting import probe as probe_report
from experiments.reporting import results as result_files
from lts import data
from lts.bin.common import UsageError
from lts.data.sources import ImageDataset
from lts.data.store import array_store
from lts.export import saved_model
from tests.fixtures import probe_binaries, probing, runs
from tests.fixtures.binaries import call, flags_of

CLASSES = ("blue", "green", "red")
TINY = ("--epochs=4", "--training_batch_size=10", "--image_size=64", "--projector_images=0")


def source(split: str, per_class: int = 20, **changes) -> ImageDataset:
    """Images whose colour is their class, as a real source."""
    drawn = probing.source(split, per_class)
    images, labels = drawn.images.repeat(4, axis=1).repeat(4, axis=2), drawn.labels  # 64 x 64
    given = {"labels": labels, "class_names": CLASSES, "name": "colours", "names": (), "broken": (), **changes}
    store = array_store(images)
    return ImageDataset(split=split, store=store, num_examples=len(images), fingerprint=drawn.fingerprint, **given)


def run(export, output, *arguments: str) -> dict:
    """The binary's main with these flags; its results."""
    call(linear_probe, f"--model={export}", "--dataset=colours", f"--output={output}", *TINY, *arguments)
    return json.loads((output / "results.json").read_text())


REQUIRED = ("--model=x", "--dataset=x", "--output=x")


@pytest.fixture
def colours(monkeypatch):
    """Sources by role, in place of `lts.data.open_source`."""
    sources = {"train": source("train"), "test": source("test", 10)}
    monkeypatch.setattr(data, "open_source", lambda dataset, split, role, **_: sources[role])
    return sources


@pytest.mark.parametrize("name", list(SGD))
def test_a_protocol_runs_whole(name, tiny_export, colours, tmp_path):
    results = run(tiny_export, tmp_path, f"--protocol={name}", f"--baseline={tiny_export}")
    layers = ["conv_5"] if name == "stl10_release" else ["conv_1", "conv_2", "conv_3", "conv_4", "conv_5"]
    assert results["layers"] == list(results["model"]["layers"]) == layers
    for layer in layers:
        record, difference = results["model"]["layers"][layer], results["difference"][layer]
        assert record["steps"] == 6 * 4
        low, high = record["interval"]
        assert low <= record["accuracy"] <= high
        assert difference["accuracy"] == 0  # the baseline is the model
    assert name == "stl10_release" or results["model"]["layers"]["conv_1"]["accuracy"] > 0.6
    assert results["protocol"]["name"].startswith(f"{name} --epochs=4 --training_batch_size=10")
    assert result_files.load(tmp_path / "results.json").kind == "sgd_probe"
    assert "Top-1 test accuracy of linear heads on" in (tmp_path / "results.md").read_text()
    folder = tmp_path / "training" / results["model"]["fingerprint"]
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [folder.name]
    assert list((folder / "tensorboard").glob("events.*"))
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 24
    assert not (tmp_path / "partial.json").exists()


def test_the_same_twice_and_a_finished_training_is_not_done_again(tiny_export, colours, tmp_path, capsys):
    first = run(tiny_export, tmp_path, "--protocol=lci", "--layers=conv_4")
    capsys.readouterr()
    second = run(tiny_export, tmp_path, "--protocol=lci", "--layers=conv_4", "--batch_size=7")
    assert "finished before, 24 of 24 steps" in capsys.readouterr().out
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    with pytest.raises(ProbeError, match=r"another configuration \(.*learning_rate: 0.1 -> 0.5.*another folder"):
        run(tiny_export, tmp_path, "--protocol=lci", "--layers=conv_4", "--learning_rate=0.5")


def _probe(export, layers, name, tmp_path, **changes):
    """A probe whose heads are trained on the colours, as the binary would with these flags changed."""
    changed = [f"--{field}={value}" for field, value in changes.items()]
    with flags_of(linear_probe, *REQUIRED, f"--protocol={name}", *TINY, *changed):
        protocol = linear_probe.choose()
    model = saved_model.load(export)
    train = source("train")
    return sgd_probe.fit(model, layers, train, protocol, tmp_path / "training")


@pytest.mark.parametrize("name", ["rotnet", "stl10_release"])
def test_after_training_the_backbone_is_what_it_was_but_for_the_trap(name, tiny_export, tmp_path):
    probe = _probe(tiny_export, ["conv_5"], name, tmp_path)
    fresh = saved_model.load(tiny_export)  # its variables live as long as it does
    before = {v.name: v.numpy() for v in fresh.module.signatures["train"].variables}
    for variable in probe.backbone.module.signatures["train"].variables:
        moves = name == "stl10_release" and not variable.trainable
        assert np.array_equal(variable.numpy(), before[variable.name]) != moves, variable.name


def test_stopped_between_steps_it_goes_on_bit_by_bit(tiny_export, tmp_path):
    """In one process: the statistics of the trap, the optimizer and the order of images come back."""
    whole = _probe(tiny_export, ["conv_5"], "stl10_release", tmp_path / "whole", epochs=12)

    class Stops(sgd_probe.SgdProbe):
        def maps(self, images):
            tf.py_function(lambda step: signal.raise_signal(signal.SIGTERM) if step == 9 else None, [self.step], [])
            return super().maps(images)

        @property
        def step(self):
            return self.optimizer.iterations.value

    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    ours = sgd_probe.SgdProbe
    try:
        sgd_probe.SgdProbe = Stops
        _probe(tiny_export, ["conv_5"], "stl10_release", tmp_path / "parts", epochs=12)
    finally:
        sgd_probe.SgdProbe = ours
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]
    stopped = [path.name for path in (tmp_path / "parts" / "training" / "checkpoints").glob("step_*")]
    assert len(stopped) == 1
    assert 9 < int(stopped[0][5:]) < 72  # a call of the loop ends at step 50 at the latest
    resumed = _probe(tiny_export, ["conv_5"], "stl10_release", tmp_path / "parts", epochs=12)
    for mine, theirs in zip(resumed.network.variables, whole.network.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=mine.path)
    views = tf.cast(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64, 3)), tf.uint8)
    np.testing.assert_array_equal(resumed.scores(views)["conv_5"], whole.scores(views)["conv_5"])


@pytest.mark.slow
def test_terminated_and_started_again_the_binary_ends_with_the_same_results(tiny_export, tmp_path):
    given = ["--protocol=rotnet", "--layers=conv_4,conv_5", *TINY[1:], "--epochs=30"]  # 300 steps
    once = probe_binaries.process("linear_probe", tiny_export, f"--output={tmp_path / 'once'}", *given)
    assert once.returncode == 0, once.stderr
    twice = [f"--model={tiny_export}", *probe_binaries.SPLITS, f"--output={tmp_path / 'twice'}", *given]
    process = runs.start("experiments.linear_probe", *twice)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "twice").glob("training/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "linear_probe: terminated"
    assert "of 300 steps" in out
    assert not (tmp_path / "twice" / "results.json").exists()
    again = runs.run("experiments.linear_probe", *twice)
    assert again.returncode == 0, again.stderr
    found = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("once", "twice")]
    assert {**found[0], "seconds": 0} == {**found[1], "seconds": 0}
    folders = [next((tmp_path / name / "training").iterdir()) for name in ("once", "twice")]
    newest = [runs.newest(folder) for folder in folders]
    assert newest[0].keys() == newest[1].keys()
    assert all(np.array_equal(newest[0][name], newest[1][name]) for name in newest[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "classes", "shape"), [("imagenet2012", 1000, (40, 50)), ("places365_small", 365, (256, 256))]
)
def test_the_large_sets_go_the_same_way_on_stand_ins(dataset, classes, shape, tiny_export, tmp_path, monkeypatch):
    """One image a class, as many classes as declared; slices, because whole splits are held to their sizes."""
    asked = []

    def opened(name, split, role, **_):
        asked.append((name, split))
        images = np.random.default_rng(0).integers(0, 256, (classes, 1, 1, 3), np.uint8)
        images = np.broadcast_to(images, (classes, *shape, 3))
        return ImageDataset(
            name=name,
            split=split,
            store=array_store(images),
            num_examples=classes,
            labels=np.arange(classes),
            class_names=tuple(map(str, range(classes))),
            names=(),
            broken=(),
            fingerprint=split,
        )

    monkeypatch.setattr(data, "open_source", opened)
    splits = [f"--train_split=train[:{classes}]", f"--test_split=validation[:{classes}]"]
    given = ["--protocol=rotnet", f"--dataset=tfds:{dataset}", "--layers=conv_5", "--epochs=1", *splits]
    results = run(tiny_export, tmp_path, *given)
    assert asked == [(f"tfds:{dataset}", f"train[:{classes}]"), (f"tfds:{dataset}", f"validation[:{classes}]")]
    assert len(results["dataset"]["classes"]) == classes
    assert results["model"]["layers"]["conv_5"]["steps"] == classes // 10
    assert "top-1" in probe_report.caption(results).lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol=logistic", "--epochs=3"], "--epochs does not apply to --protocol=logistic"),
        (["--protocol=rotnet", "--classifier=ridge"], "--classifier does not apply to --protocol=rotnet"),
        (["--protocol=lci", "--dimensions=500"], "--dimensions does not apply to --protocol=lci"),
        (["--protocol=stl10_release", "--pool=max"], "--pool does not apply to --protocol=stl10_release"),
    ],
)
def test_a_flag_that_a_protocol_has_no_use_for_is_refused(arguments, message):
    with flags_of(linear_probe, *REQUIRED, *arguments), pytest.raises(UsageError, match=message):
        linear_probe.choose()


def test_a_protocol_keeps_its_name_unless_its_numbers_are_changed():
    def name(*arguments):
        with flags_of(linear_probe, *REQUIRED, *arguments):
            return linear_probe.choose().name

    assert name("--protocol=rotnet", "--seed=7", "--epochs=40", "--batch_size=5") == "rotnet"
    assert name("--protocol=rotnet", "--image_size=64") == "rotnet --image_size=64"
    assert name("--protocol=ridge", "--dimensions=50") == "ridge"


def _no_labels(sources):
    return {"train": source("train", labels=None, class_names=()), "test": sources["test"]}


def _class_without_images(sources):
    names = (*CLASSES, "violet")
    return {"train": source("train", class_names=names), "test": source("test", 10, class_names=names)}


def _few(sources):
    return {**sources, "train": source("train", 3)}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (dict, ["--layers=conv_9"], r"has no layer 'conv_9'; it has conv_1, conv_2"),
        (_no_labels, [], "the training images have no labels: colours"),
        (_class_without_images, [], "class 'violet' has no training images"),
        (_few, [], "9 training images are less than one batch of 10: lower --training_batch_size"),
    ],
)
def test_errors_are_one_line(change, arguments, message, tiny_export, colours, tmp_path):
    colours.update(change(colours))
    with pytest.raises(ProbeError, match=message) as error:
        run(tiny_export, tmp_path, "--protocol=rotnet", *arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_refused_flag_is_one_line_of_the_binary():
    command = [sys.executable, "-m", "experiments.linear_probe", "--model=x", "--dataset=synthetic", "--output=nowhere"]
    done = subprocess.run([*command, "--epochs=3"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (2, "linear_probe: --epochs does not apply to --protocol=logistic\n")


def test_what_a_stopped_run_has_yielded_is_not_done_again(colours, tmp_path):
    """The seam: a probe of a model is asked for the missing layers alone, with the inputs by name."""
    asked, record = [], {"accuracy": 1.0, "interval": (1.0, 1.0), "correct": "1"}

    def probe_model(model, layers, *, train, test, protocol, output, batch_size):
        asked.append(layers)
        yield {layers[0]: {"record": record, "seconds": 1.0}}
        if len(asked) == 1:
            raise KeyboardInterrupt
        yield {layers[-1]: {"record": record, "seconds": 1.0}} if len(layers) > 1 else {}

    model = probing.Model("runs/features")
    given = (model, [], colours["train"], colours["test"], (), Protocol(), tmp_path, 10)
    with pytest.raises(KeyboardInterrupt):
        probe_run.run(*given, probe_model=probe_model)
    results = probe_run.run(*given, probe_model=probe_model)
    assert asked == [["conv_1", "conv_2"], ["conv_2"]]
    assert results["seconds"] == 2.0
    assert list(results["model"]["layers"]) == ["conv_1", "conv_2"]
