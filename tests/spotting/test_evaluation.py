"""Models whose figures are known beforehand: one that knows, one that has it backwards, one that guesses."""

import html.parser
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lts import config as configs
from lts import data
from lts.export import saved_model
from lts.spotting import Corruption, evaluate, evaluation, summary
from lts.spotting.metadata import may_overlap
from lts.utils import files
from tests.fixtures.spotting import FIELDS, BrightModel, write_run


class PaintingDamager:
    """Reconstructs everything as grey; dropped cells are white, kept ones of repaired images black."""

    repairs, step, workdir = True, 7, "painting"

    def __init__(self, keep_probability=0.3):
        self.config = configs.preset("tiny").replace(**FIELDS, keep_probability=keep_probability)
        self.record = {"stage": "gan", "dataset": "synthetic", "split": "unlabelled", "config": self.config}

    def keep(self, seed, first, count):
        """Of any number of cells, at least one is dropped and one is kept."""
        masks = np.random.default_rng(seed).random((200, 4, 4, 1)) < self.config.damage.keep_probability
        if 0 < self.config.damage.keep_probability < 1:
            masks[:, 0, 0], masks[:, 1, 1] = True, False
        return masks[first : first + count].astype(np.float32)

    def __call__(self, views, keep):
        white = (255 * (1 - keep)).repeat(4, 1).repeat(4, 2) * np.ones([1, 1, 1, 3])
        kinds = {"reconstruction": np.zeros_like(white), "repaired": white, "damaged": white}
        return {name: tf.constant(images.astype(np.uint8)) for name, images in kinds.items()}


@pytest.fixture(scope="module")
def source():
    return data.open_source("synthetic", "test[:70]", progress=False)


def run(source, output, model=None, damager=None, **options):
    options = {"resamples": 20, **options}
    return evaluate(model or BrightModel(), damager or PaintingDamager(), source, output, **options)


def test_a_model_that_knows(source, tmp_path):
    results = run(source, tmp_path / "out")
    task = results["pairs"][0]
    assert (task["untouched"], task["changed"], task["auroc"]) == ("reconstruction", "repaired", 1)
    assert task["interval"] == [1, 1]
    assert task["curve"] == {
        "false_positive_rate": [0, *[0] * (len(task["curve"]["true_positive_rate"]) - 2), 1],
        "true_positive_rate": task["curve"]["true_positive_rate"],
    }
    cells = results["mask_map"]
    for figure in ("average_precision", "auroc", "iou"):
        assert (cells[figure]["value"], cells[figure]["interval"]) == (1, [1, 1])
    assert (cells["iou"]["threshold"], cells["best_iou"]["value"]) == (0.5, 1)
    dropped = 1 - PaintingDamager().keep(1, 0, 70)
    assert cells["base_rate"] == pytest.approx(dropped.mean())
    assert results["mask_map_of_both"]["base_rate"] == pytest.approx(dropped.mean() / 2)
    assert results["kinds"]["repaired"]["artifact_map"] == pytest.approx(dropped.mean())
    assert results["kinds"]["reconstruction"]["called_repaired"] == 0


def test_a_model_that_has_it_backwards(source, tmp_path):
    results = run(source, tmp_path / "out", BrightModel(sign=-1.0))
    assert results["pairs"][0]["auroc"] == 0
    cells = results["mask_map"]
    assert cells["auroc"]["value"] == 0
    assert cells["iou"]["value"] == 0
    assert cells["best_iou"] == {"threshold": 0.0, "value": pytest.approx(cells["base_rate"])}


def test_a_model_that_guesses(source, tmp_path):
    results = run(source, tmp_path / "out", BrightModel(sign=0.0))
    assert results["pairs"][0]["auroc"] == 0.5
    cells = results["mask_map"]
    assert cells["average_precision"]["value"] == pytest.approx(cells["base_rate"])
    assert cells["iou"]["value"] == pytest.approx(cells["base_rate"])


def test_the_same_figures_twice_whatever_the_batch(world, source, tmp_path, monkeypatch):
    model, damager = saved_model.load(world.features), Corruption(world.gan)
    first = run(source, tmp_path / "1", model, damager)
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 64)
    assert run(source, tmp_path / "2", model, damager) == first
    assert run(source, tmp_path / "3", model, damager, seed=2) != first
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 9)
    other = run(source, tmp_path / "4", model, damager)
    for one, two in zip(first["pairs"], other["pairs"], strict=True):
        assert one["auroc"] == pytest.approx(two["auroc"], abs=2e-3)
    assert first["run"]["exported_from_it"]
    assert not first["run"]["may_hold_the_images"]
    assert {pair["changed"] for pair in first["pairs"]} == {"repaired", "damaged", "photograph"}


class _Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.text = ""
        self.feed(text)

    def handle_data(self, text):
        self.text += text


def test_what_it_leaves(world, source, tmp_path):
    results = run(source, tmp_path / "out", saved_model.load(world.features), Corruption(world.gan))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("evaluation.json", "evaluation.md", "evaluation.html", "curves.png", "examples.png")
    }
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == results
    markdown = (tmp_path / "out" / "evaluation.md").read_text()
    assert summary(results) in markdown
    page = _Page((tmp_path / "out" / "evaluation.html").read_text()).text
    for words in (f"{results['pairs'][0]['auroc']:.3f}", "average precision", "0.5", "70 images of synthetic"):
        assert words in markdown
        assert words in page
    for name in ("curves.png", "examples.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 500


def test_what_does_not_go_together_is_one_line(world, source, tmp_path):
    model = saved_model.load(world.features)
    larger = Corruption(write_run(tmp_path / "larger", "gan", image_size="32"))
    with pytest.raises(evaluation.EvaluationError, match=r"16 pixels.* at 32"):
        run(source, tmp_path / "out", model, larger)
    with pytest.raises(evaluation.EvaluationError, match=r"\[2, 2\] cells .* \[4, 4\]"):
        run(source, tmp_path / "out", BrightModel(cells=2))
    for probability, words in ((1.0, "all cells are kept"), (0.0, "all cells are dropped")):
        with pytest.raises(evaluation.EvaluationError, match=words):
            run(source, tmp_path / "out", damager=PaintingDamager(probability))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(files.OutputError):
        run(source, tmp_path / "out")


def test_images_of_the_training_are_told(world, source, tmp_path):
    damager = PaintingDamager()
    damager.record = {**damager.record, "split": "unlabelled+test"}
    results = run(source, tmp_path / "out", damager=damager)
    assert results["run"]["may_hold_the_images"]
    assert "Not surely held out" in summary(results)
    assert "not the export of this run" in summary(results)


@pytest.mark.parametrize(
    ("split", "other", "meet"),
    [
        ("train", "test", False),
        ("unlabelled+train", "test", False),
        ("unlabelled+train", "train", True),
        ("all", "test", True),
        ("train", "train[:10]", True),
        ("train[:80%]", "train[80%:]", False),
        ("train[:80%]", "train[:80%]", True),
    ],
)
def test_which_splits_may_share_images(split, other, meet):
    assert may_overlap("tfds:x", split, "tfds:x", other) == meet
    assert may_overlap("folder:a/../x", split, "folder:x", other) == meet
    assert not may_overlap("folder:x", split, "folder:y", other)


@pytest.mark.parametrize(
    ("section", "changed", "exported"),
    [
        ({}, {"step": 99}, False),
        ({"recalibrate_batch_norm": True}, {}, True),
        ({"fc_units": 9}, {}, False),
    ],
)
def test_whose_export_it_is(world, source, tmp_path, section, changed, exported):
    """The baseline: another run's model on this run's repairs is measured, and said to be that."""
    model = saved_model.load(world.features)
    config = model.description["config"]
    config = {**config, "discriminator": {**config["discriminator"], **section}}
    stranger = types.SimpleNamespace(
        **{name: getattr(model, name) for name in ("path", "fingerprint", "image_size", "test_crop", "spot")},
        description={**model.description, "config": config, **changed},
    )
    assert run(source, tmp_path / "out", stranger, Corruption(world.gan))["run"]["exported_from_it"] == exported
