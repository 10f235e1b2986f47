"""The protocols whose heads are trained over augmented images: complete runs, resume, the frozen backbone, errors."""

import json
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from experiments import linear_probe
from experiments.probing import run as probe_run
from experiments.probing import sgd_probe
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import SGD
from experiments.probing.sgd_probe import SgdProbe
from experiments.reporting import results as result_files
from lts import data
from lts.bin.common import UsageError
from lts.data.sources import ImageDataset
from lts.data.store import array_store
from lts.export import saved_model
from tests.fixtures import probe_binaries, probing, runs
from tests.fixtures.binaries import flags_of

CLASSES = ("blue", "green", "red")
REQUIRED = ("--model=x", "--dataset=x", "--output=x")
TINY = ("--epochs=4", "--training_batch_size=10", "--image_size=64", "--projector_images=0")


def source(split: str, per_class: int = 20, **changes) -> ImageDataset:
    """Return images whose colour is their class, as a real data set."""
    small = probing.source(split, per_class)
    images = small.images.repeat(4, axis=1).repeat(4, axis=2)  # 64 x 64
    values = {"labels": small.labels, "class_names": CLASSES, "name": "colours", "names": (), "broken": (), **changes}
    store = array_store(images)
    return ImageDataset(split=split, store=store, num_examples=len(images), fingerprint=small.fingerprint, **values)


def run(export, output, *arguments: str) -> dict:
    """Run the program on the colours; return its results."""
    return probe_binaries.run(linear_probe, output, f"--model={export}", "--dataset=colours", *TINY, *arguments)


@pytest.fixture
def colours(monkeypatch):
    """Data sets by role, in place of `lts.data.open_source`."""
    sources = {"train": source("train"), "test": source("test", 10)}
    monkeypatch.setattr(data, "open_source", lambda dataset, split, role, **_: sources[role])
    return sources


@pytest.mark.parametrize("name", ["rotnet", pytest.param("lci", marks=pytest.mark.slow), "stl10_release"])
def test_a_complete_run(name, tiny_export, colours, tmp_path):
    """Fails if a protocol does not train, test and report every layer, or learns nothing."""
    results = run(tiny_export, tmp_path, f"--protocol={name}", f"--baseline={tiny_export}")
    layers = ["conv_5"] if name == "stl10_release" else ["conv_1", "conv_2", "conv_3", "conv_4", "conv_5"]
    assert results["kind"] == "sgd_probe"
    assert results["layers"] == list(results["model"]["layers"]) == layers
    for layer in layers:
        record = results["model"]["layers"][layer]
        low, high = record["interval"]
        assert record["steps"] == 6 * 4
        assert low <= record["accuracy"] <= high
        assert results["difference"][layer]["accuracy"] == 0  # the baseline is the model
    assert name == "stl10_release" or results["model"]["layers"]["conv_1"]["accuracy"] > 0.6
    assert results["protocol"]["name"].startswith(f"{name} --epochs=4 --training_batch_size=10")
    assert result_files.load(tmp_path / "results.json").kind == "sgd_probe"
    assert "Top-1 test accuracy of linear heads on" in (tmp_path / "results.md").read_text()
    folder = tmp_path / "training" / results["model"]["fingerprint"]
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [folder.name]
    assert list((folder / "tensorboard").glob("events.*"))
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 24
    assert not (tmp_path / "partial.json").exists()


def test_a_finished_training_is_not_repeated(tiny_export, colours, tmp_path, capsys):
    """Fails if a second run trains again, gives other figures, or takes heads of another protocol."""
    first = run(tiny_export, tmp_path, "--protocol=lci", "--layers=conv_4")
    capsys.readouterr()
    second = run(tiny_export, tmp_path, "--protocol=lci", "--layers=conv_4", "--batch_size=7")
    assert "24 of 24 steps" in capsys.readouterr().out
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    with pytest.raises(ProbeError, match=r"learning_rate: 0.1 -> 0.5"):
        run(tiny_export, tmp_path, "--protocol=lci", "--layers=conv_4", "--learning_rate=0.5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rotnet", "stl10_release"])
def test_training_changes_nothing_of_the_backbone_but_for_the_trap(name, tiny_export, colours, tmp_path):
    """Fails if a weight of the backbone moves, or the release's moving averages do not."""
    with flags_of(linear_probe, *REQUIRED, f"--protocol={name}", *TINY):
        protocol = linear_probe.choose_protocol()
    probe = SgdProbe(protocol=protocol, train=colours["train"], test=colours["test"], output=tmp_path)
    trained = probe.fit(saved_model.load(tiny_export), ["conv_5"])
    fresh = saved_model.load(tiny_export)  # its variables live as long as it does
    before = {variable.name: variable.numpy() for variable in fresh.module.signatures["train"].variables}
    for variable in trained.backbone.module.signatures["train"].variables:
        moves = name == "stl10_release" and not variable.trainable
        assert np.array_equal(variable.numpy(), before[variable.name]) != moves, variable.name


class StoppedModel(sgd_probe.HeadsModel):
    """Heads whose training is interrupted in its tenth step."""

    def maps(self, images):
        """Interrupt the process, as Ctrl-C does."""
        iterations = self.optimizer.iterations.value
        tf.py_function(lambda step: signal.raise_signal(signal.SIGINT) if step == 9 else None, [iterations], [])
        return super().maps(images)


def test_stopped_while_signals_are_ignored_it_tests_nothing_and_resumes(tiny_export, colours, tmp_path, monkeypatch):
    """Fails if half-trained heads are tested, or a resumed run is not bit-identical to an uninterrupted one.

    A shell's background job ignores SIGINT: a signal that is raised again does not end the process. The protocol
    restores the trap's moving averages, the optimizer and the order of the images.
    """
    arguments = ("--protocol=stl10_release", "--epochs=12")
    uninterrupted = run(tiny_export, tmp_path / "once", *arguments)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sgd_probe, "HeadsModel", StoppedModel)
            with pytest.raises(KeyboardInterrupt):
                run(tiny_export, tmp_path / "twice", *arguments)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sorted(path.name for path in (tmp_path / "twice").iterdir()) == ["lock", "training"]
    (checkpoint,) = (tmp_path / "twice").glob("training/*/checkpoints/step_*")
    assert 9 < int(checkpoint.name.removeprefix("step_")) < 72  # a call of the loop ends at step 50 at the latest
    resumed = run(tiny_export, tmp_path / "twice", *arguments)
    assert {**uninterrupted, "seconds": 0} == {**resumed, "seconds": 0}
    _assert_same_training(tmp_path)


def _assert_same_training(folder) -> None:
    """Compare the last checkpoints of `once` and `twice` bit by bit."""
    checkpoints = []
    for name in ("once", "twice"):
        (workdir,) = (folder / name / "training").iterdir()
        checkpoints.append(runs.newest(workdir))
    assert checkpoints[0].keys() == checkpoints[1].keys()
    for name, value in checkpoints[0].items():
        np.testing.assert_array_equal(checkpoints[1][name], value, err_msg=name)


@pytest.mark.slow
def test_terminated_and_started_again_the_program_ends_with_the_same_results(tiny_export, tmp_path):
    """Fails if SIGTERM loses what was trained, or does not end the process with its status."""
    arguments = ["--protocol=rotnet", "--layers=conv_4,conv_5", *TINY[1:], "--epochs=30"]  # 300 steps
    arguments += [f"--model={tiny_export}", *probe_binaries.SPLITS]
    once = runs.run("experiments.linear_probe", *arguments, f"--output={tmp_path / 'once'}", timeout=600)
    assert once.returncode == 0, once.stderr
    arguments.append(f"--output={tmp_path / 'twice'}")
    process = runs.start("experiments.linear_probe", *arguments)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "twice").glob("training/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "linear_probe: terminated"
    assert "of 300 steps" in out
    assert not (tmp_path / "twice" / "results.json").exists()
    again = runs.run("experiments.linear_probe", *arguments, timeout=600)
    assert again.returncode == 0, again.stderr
    uninterrupted = json.loads((tmp_path / "once" / "results.json").read_text())
    resumed = json.loads((tmp_path / "twice" / "results.json").read_text())
    assert {**uninterrupted, "seconds": 0} == {**resumed, "seconds": 0}
    _assert_same_training(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "classes", "shape"), [("imagenet2012", 1000, (40, 50)), ("places365_small", 365, (256, 256))]
)
def test_large_sets_run_on_stand_ins(dataset, classes, shape, tiny_export, tmp_path, monkeypatch):
    """Fails if ImageNet or Places is opened with other splits than declared, or their many classes do not fit.

    One image per class. The splits are slices, because complete splits must have the declared size.
    """
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
    arguments = ["--protocol=rotnet", f"--dataset=tfds:{dataset}", "--layers=conv_5", "--epochs=1", *splits]
    results = run(tiny_export, tmp_path, *arguments)
    assert asked == [(f"tfds:{dataset}", f"train[:{classes}]"), (f"tfds:{dataset}", f"validation[:{classes}]")]
    assert len(results["dataset"]["classes"]) == classes
    assert results["model"]["layers"]["conv_5"]["steps"] == classes // 10
    assert "top-1" in (tmp_path / "results.md").read_text().lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol=logistic", "--epochs=3"], "--epochs does not apply to --protocol=logistic"),
        (["--protocol=rotnet", "--classifier=ridge"], "--classifier does not apply to --protocol=rotnet"),
        (["--protocol=lci", "--dimensions=500"], "--dimensions does not apply to --protocol=lci"),
        (["--protocol=stl10_release", "--pool=max"], "--pool does not apply to --protocol=stl10_release"),
    ],
)
def test_a_flag_that_does_not_apply_to_a_protocol_is_refused(arguments, message):
    """Fails if a flag without effect is accepted."""
    with flags_of(linear_probe, *REQUIRED, *arguments), pytest.raises(UsageError, match=message):
        linear_probe.choose_protocol()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--protocol=rotnet", "--seed=7", "--epochs=40", "--batch_size=5"], "rotnet"),
        (["--protocol=rotnet", "--image_size=64"], "rotnet --image_size=64"),
        (["--protocol=ridge", "--dimensions=50"], "ridge"),
    ],
)
def test_a_protocol_keeps_its_name_unless_its_numbers_change(arguments, name):
    """Fails if changed numbers are published under the name of a protocol."""
    with flags_of(linear_probe, *REQUIRED, *arguments):
        assert linear_probe.choose_protocol().name == name


def _no_labels(sources):
    sources["train"] = source("train", labels=None, class_names=())


def _class_without_images(sources):
    names = (*CLASSES, "violet")
    sources["train"] = source("train", class_names=names)
    sources["test"] = source("test", 10, class_names=names)


def _few_images(sources):
    sources["train"] = source("train", 3)


@pytest.mark.parametrize(
    ("change", "layers", "message"),
    [
        (_no_labels, ["conv_1"], "training images must have labels. Received: colours"),
        (_class_without_images, ["conv_1"], "at least 1 training image. Received: 0 of class 'violet'"),
        (_few_images, ["conv_1"], "Received: 9 training images, training_batch_size=192"),
        (_few_images, ["conv_9"], "are conv_1, conv_2. Received: 'conv_9'"),
    ],
)
def test_errors_are_one_line(change, layers, message, colours, tmp_path):
    """Fails if wrong inputs are found after training began."""
    change(colours)
    probe = SgdProbe(protocol=SGD["rotnet"], train=colours["train"], test=colours["test"], output=tmp_path)
    with pytest.raises(ProbeError, match=message) as error:
        probe_run.run(probe, probing.Model("runs/features"), [], layers)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
