"""Whole runs of the Fast R-CNN binary on a tiny devkit: learning, resume, errors."""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags
from PIL import Image

import lts
from experiments import voc_detection
from experiments.voc import protocols, transfer
from experiments.voc.data.images import open_images
from experiments.voc.detection.regions import scaled_view
from experiments.voc.detection.rescaling import moments
from experiments.voc.detection.selective_search import ProposalError
from experiments.voc.detection.task import DetectionTask
from experiments.voc.protocols import DetectionProtocol
from lts.data import DataError
from lts.training import checkpoints
from lts.training.loop import Loop
from lts.utils.errors import ConfigError
from tests.fixtures import tiny_devkit
from tests.fixtures.binaries import call
from tests.fixtures.exports import CONFIG, noisy_export

SMALL = ("--sides=32,48", "--test_side=48", "--longest=80", "--units=16,8", "--cells=3", "--regions=16")
QUICK = (*SMALL, "--steps=4", "--resamples=20", "--precision=float32")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two exports of the same backbone, the second with random weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, config in (("features", CONFIG), ("random", CONFIG.replace(seed=2))):
        noisy_export(folder / name, config)
    path = folder / "random" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "random", "seed": 2}))
    return folder


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """A tiny devkit and its proposals: every object moved a little, and chance boxes."""
    root = tmp_path_factory.mktemp("voc") / "kit"
    write_proposals(root, tiny_devkit.write(root))
    return root


def write_proposals(root, truth, chance: int = 30) -> None:
    boxes = {}
    for number, (name, objects) in enumerate(truth.items()):
        random = np.random.default_rng(number)
        with Image.open(root / "JPEGImages" / f"{name}.jpg") as image:
            limits = np.array(image.size[::-1] * 2)
        near = [np.add(one.box, random.uniform(-3, 3, 4)) for one in objects for _ in range(4)]
        corners = np.sort(random.uniform(0, 1, [chance, 2, 2]), 1).reshape(-1, 4) * limits + [0, 0, 1, 1]
        boxes[name] = np.clip([*near, *corners], 0, limits)
    np.savez(root / "proposals.npz", **boxes)


def arguments(models, root, output, *more):
    model, data = f"--model={models / 'features'}", f"--dataset=folder:{root}"
    return [model, data, f"--output={output}", f"--proposals={root / 'proposals.npz'}", *QUICK, *more]


def run(models, root, output, *more):
    """The binary's main with these flags; its results."""
    call(voc_detection, *arguments(models, root, output, *more))
    return json.loads((output / "results.json").read_text())


def test_a_whole_run(models, devkit, tmp_path, capsys):
    results = run(models, devkit, tmp_path, f"--baseline={models / 'random'}")
    assert results["task"] == "voc_detection"
    assert results["measure"] == "mAP"
    assert results["classes"] == ["bird", "cat", "dog"]
    assert [model["baseline"] for model in results["models"]] == [False, True]
    record = results["models"][0]["seeds"][0]
    assert record["value"] == record["average_precision"]["11-point"]["mean"]
    assert set(record["average_precision"]) == {"11-point", "area"}
    assert record["interval"][0] <= record["value"] <= record["interval"][1]
    assert record["proposals"]["recall"] == 1  # each object has one moved by at most three pixels, of four
    assert 30 < record["proposals"]["mean_number"] < 40
    shown = capsys.readouterr().out
    assert "100.0 % of objects covered" in shown
    assert "detection on folder:" in (tmp_path / "results.md").read_text()
    for name in ("model", "baseline_1"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            assert picture.width > 2 * 360
    folders = list((tmp_path / "training").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "pictures" / "latest.png").exists()
        assert list((folder / "tensorboard").glob("events*"))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == 4
        assert {"loss", "classification", "boxes", "l2", "objects"} <= lines[-1].keys()
        assert 0 < lines[-1]["objects"] <= 2  # at most a quarter of eight regions


def test_selective_search(models, devkit, tmp_path, capsys):
    """Proposals of train and test are found before training, and kept."""
    if importlib.util.find_spec("cv2") is None:
        pytest.skip("no OpenCV (extra detection)")
    given = [one for one in arguments(models, devkit, tmp_path, "--steps=2") if not one.startswith("--proposals")]
    call(voc_detection, *given)
    shown = capsys.readouterr().out
    assert (
        shown.index("selective search: 12 images") < shown.rindex("proposals per image, ") < shown.index("training in")
    )
    assert len(list((tmp_path / "proposals").glob("*.npz"))) == 16
    assert json.loads((tmp_path / "results.json").read_text())["models"][0]["seeds"][0]["proposals"]["recall"] > 0.5


def opened(root, train: str = "train", test: str = "test"):
    """Both sets of a devkit, and their proposals."""
    pair = [open_images(f"folder:{root}", split, "detection", progress=False) for split in (train, test)]
    with np.load(root / "proposals.npz") as boxes:
        return *pair, *(tuple(np.float32(boxes[name]) for name in each.set.ids) for each in pair)


def task_on(root, splits=("train", "test"), **changes) -> DetectionTask:
    settings = {"sides": (32, 48), "test_side": 48, "longest": 80, "units": (16, 8), "cells": 3, "regions": 16}
    settings |= {"steps": 4, "precision": "float32", **changes}
    train, test, *proposals = opened(root, *splits)
    return DetectionTask(train, test, DetectionProtocol(**settings), *proposals)


def test_a_stopped_run_goes_on(models, devkit, tmp_path, monkeypatch):
    """Ctrl-C in the training: the resumed run is bit-identical, with the same figures."""
    once = run(models, devkit, tmp_path / "once", "--steps=6")
    report, calls = Loop._report, []

    def stop(loop, step, total):
        report(loop, step, total)
        calls.append(step)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_report", stop)
        with pytest.raises(KeyboardInterrupt):
            run(models, devkit, tmp_path / "twice", "--steps=6")
    assert calls[-1] < 6
    assert not (tmp_path / "twice" / "results.json").exists()
    twice = run(models, devkit, tmp_path / "twice", "--steps=6")
    same_weights(tmp_path / "once", tmp_path / "twice")
    for results in (once, twice):
        results["seconds"] = results["models"][0]["seeds"][0]["seconds"] = 0
    assert once == twice


def same_weights(first, second) -> None:
    (whole,), (halves,) = ([*(folder / "training").iterdir()] for folder in (first, second))
    values, again = checkpoints.read_newest(whole)[0], checkpoints.read_newest(halves)[0]
    assert values.keys() == again.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


@pytest.mark.slow
def test_sigterm(models, devkit, tmp_path):
    """The process leaves with 143 and a checkpoint; the next one ends as one that was never stopped."""

    def start(output):
        command = [sys.executable, "-m", "experiments.voc_detection"]
        given = arguments(models, devkit, output, "--steps=400")
        return subprocess.Popen([*command, *given], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    stopped = start(tmp_path / "twice")
    while stopped.poll() is None and not list((tmp_path / "twice").glob("training/*/metrics.jsonl")):
        time.sleep(0.1)
    stopped.terminate()
    assert stopped.wait() == 143
    assert stopped.stderr.read().splitlines()[-1] == "voc_detection: terminated"
    assert not (tmp_path / "twice" / "results.json").exists()
    assert start(tmp_path / "twice").wait() == 0
    assert start(tmp_path / "once").wait() == 0
    same_weights(tmp_path / "once", tmp_path / "twice")


def test_what_learns(models, devkit, tmp_path):
    """Every layer but the frozen ones moves; the statistics of batch norm do not."""
    task, loaded = task_on(devkit, frozen=2), lts.load(models / "features")
    before = {v.path: v.numpy() for v in task.model(loaded, 1, "float32").network.variables}
    after = {v.path: v.numpy() for v in transfer.fit(task, loaded, 1, tmp_path).network.variables}
    moved = {path for path, value in before.items() if not np.array_equal(after[path], value)}
    known = ("conv_", "fc_", "scores", "moves")
    layers = {next(part for part in path.split("/") if part.startswith(known)) for path in moved}
    assert layers == {"conv_3", "conv_4", "conv_5", "fc_6", "fc_7", "scores", "moves"}
    assert not any("moving" in path for path in moved)


def test_rescaled_before_training(models, devkit):
    """Hypothesis: the model that is trained begins with features of variance 1; without the option it does not."""
    loaded, task = lts.load(models / "features"), task_on(devkit, rescale=True)
    layer, size = loaded.geometry["conv_5"], (task.protocol.test_side, task.protocol.longest)
    views = [scaled_view(task.train.read(number), *size, layer)[0] for number in range(8)]
    for rescaled, made in ((True, task), (False, task_on(devkit))):
        backbone = made.model(loaded, 1, "float32").network.backbone
        norm = backbone.convs[0].batch_norm
        variance = moments(backbone, backbone.convs[0], views)[1] / (np.square(norm.gamma.numpy()) if norm else 1)
        assert np.allclose(variance, 1, atol=0.01) == rescaled, variance


def test_boxes_are_in_pixels_of_the_image(models, devkit):
    """A head that moves nothing finds the proposals themselves, whatever scale the network saw."""
    task, loaded = task_on(devkit, threshold=0.0, suppression=1.0), lts.load(models / "features")
    model = task.model(loaded, 1, "float32")
    model.network.head.moves.kernel.assign(np.zeros(model.network.head.moves.kernel.shape))
    found = task._detect(model, [0, 1], "test")
    for detections, proposals in zip(found, task.test_proposals, strict=False):
        distance = np.abs(detections.boxes[:, None] - proposals[None]).max(-1).min(1)
        assert len(detections.boxes)
        np.testing.assert_allclose(distance, 0, atol=0.6)  # sides of views are whole pixels
        assert detections.labels.max() <= 2


@pytest.mark.slow
def test_two_images_are_learnt(models, devkit, tmp_path):
    """Hypothesis: labels, boxes and scales of training and testing agree, so two images can be known by heart."""
    changes = {"steps": 400, "learning_rate": 3e-3, "dropout_keep": 1.0, "units": (64, 64), "weight_decay": 0.0}
    changes |= {"sides": (48,), "regions": 32, "rescale": True}  # the made-up backbone's features are huge
    task = task_on(devkit, ("train[:2]", "train[:2]"), **changes)
    evaluation = task.evaluate(transfer.fit(task, lts.load(models / "features"), 1, tmp_path), "test")
    assert evaluation.value == 1
    assert evaluation.figures["average_precision"]["area"]["mean"] == 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--regions=15", "regions must be a multiple of batch_size=2"),
        ("--sides=0", "sides must be 1 or more numbers, each at least 1"),
        ("--negative_iou=2", r"negative_iou must be in \[0, 1\]"),
        ("--units=", "units must be a comma-separated list"),
    ],
)
def test_invalid_protocols(flag, message, models, devkit, tmp_path):
    """Fails if a value outside of a field's bounds is accepted, or is no wrong usage."""
    with pytest.raises((ConfigError, flags.IllegalFlagValueError), match=message):
        run(models, devkit, tmp_path, flag)


def test_inputs_that_cannot_be(models, devkit, tmp_path, monkeypatch):
    """Each is one line, before any training."""
    boxes = dict(np.load(devkit / "proposals.npz"))
    del boxes["test_2"]
    np.savez(tmp_path / "few.npz", **boxes)
    with pytest.raises(ProposalError, match="no proposals for image 'test_2'"):
        run(models, devkit, tmp_path / "out", f"--proposals={tmp_path / 'few.npz'}")
    monkeypatch.setitem(sys.modules, "cv2", None)
    given = arguments(models, devkit, tmp_path / "out")
    with pytest.raises(ProposalError, match="the extra `detection`"):
        call(voc_detection, *[flag for flag in given if not flag.startswith("--proposals")])
    assert not (tmp_path / "out").exists()


def test_other_proposals_are_another_run(models, devkit):
    """The record that a run's folder is claimed with names them."""
    train, test, *proposals = opened(devkit)
    task = task_on(devkit)
    details = transfer.make_task(task, lts.load(models / "features"), 1).record.details
    assert details["proposals"] == task.run_settings["proposals"] == task_on(devkit).run_settings["proposals"]
    fewer = tuple(boxes[:-1] if index == 2 else boxes for index, boxes in enumerate(proposals[0]))
    other = DetectionTask(train, test, task.protocol, fewer, proposals[1])
    assert other.run_settings["proposals"] != details["proposals"]


def test_images_that_are_broken_or_empty(models, tmp_path):
    """A broken image is reported in one line, with the flag that skips it; one without objects is background."""
    root = tmp_path / "kit"
    write_proposals(root, tiny_devkit.write(root))
    (root / "JPEGImages" / "train_3.jpg").write_bytes(b"nothing")
    for name, height, width in (("train_0", 64, 80), ("test_1", 80, 64)):
        (root / "Annotations" / f"{name}.xml").write_text(tiny_devkit.annotation([], height, width))
    with pytest.raises(DataError, match=r"train_3\.jpg.*--skip_broken_images") as caught:
        run(models, root, tmp_path / "out")
    assert "\n" not in str(caught.value)
    results = run(models, root, tmp_path / "out", "--skip_broken_images")
    assert results["dataset"]["train_images"] == 11
    assert results["dataset"]["test_images"] == 4
    assert list(results["dataset"]["train_skipped"]) == ["train_3"]


def test_the_published_schedule():
    """Fast R-CNN's: 40,000 steps of two images, 128 regions, the rate down by ten after 30,000."""
    paper = protocols.DETECTION["voc2007"]
    assert (paper.steps, paper.rate_steps, paper.rate_factor) == (40_000, 30_000, 0.1)
    assert (paper.batch_size, paper.regions, paper.positive_share) == (2, 128, 0.25)
    assert (paper.learning_rate, paper.momentum, paper.weight_decay) == (1e-3, 0.9, 5e-4)
    assert paper.name == "voc2007"
    assert paper.replace(rescale=True).name == "custom"
    assert "test_side" not in paper.of_training()
