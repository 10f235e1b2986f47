"""Evaluations of models whose figures are known: one that knows, one that has it backwards, one that guesses."""

import dataclasses
import html.parser
import json
import types

import numpy as np
import pytest
from PIL import Image

from lts import data
from lts.export import saved_model
from lts.spotting import Corruption, evaluate, evaluation, summary
from lts.spotting.metadata import describe_run, may_overlap
from lts.utils import files
from tests.fixtures.spotting import BrightModel, PaintedCorruption, write_run


@pytest.fixture(scope="module")
def source():
    return data.open_source("synthetic", "test[:70]", progress=False)


@pytest.fixture(scope="module")
def model(world):
    return saved_model.load(world.features)


@pytest.fixture(scope="module")
def corruption(world):
    return Corruption(world.gan)


@pytest.fixture(scope="module")
def evaluated(source, model, corruption, tmp_path_factory):
    """Results of the untrained export on its run, and the output folder."""
    output = tmp_path_factory.mktemp("evaluated") / "out"
    return run(source, output, model, corruption), output


def run(source, output, model=None, corruption=None, **options):
    options = {"resamples": 20, **options}
    return evaluate(model or BrightModel(), corruption or PaintedCorruption(), source, output, **options)


def test_a_model_that_knows(source, tmp_path):
    """Fails if a perfect model does not get perfect figures, or a share is not the painted one."""
    results = run(source, tmp_path / "out")
    task = results["pairs"][0]
    assert (task["untouched"], task["changed"], task["auroc"]) == ("reconstruction", "repaired", 1)
    assert task["interval"] == [1, 1]
    assert task["curve"]["false_positive_rate"][-1] == 1
    assert set(task["curve"]["false_positive_rate"][:-1]) == {0}
    cells = results["mask_map"]
    for figure in ("average_precision", "auroc", "iou"):
        assert (cells[figure]["value"], cells[figure]["interval"]) == (1, [1, 1])
    assert (cells["iou"]["threshold"], cells["best_iou"]["value"]) == (0.5, 1)
    dropped = 1 - PaintedCorruption().draw(1, 0, 70)[0]
    assert cells["base_rate"] == pytest.approx(dropped.mean())
    assert results["mask_map_of_both"]["base_rate"] == pytest.approx(dropped.mean() / 2)
    assert results["kinds"]["repaired"]["artifact_map"] == pytest.approx(dropped.mean())
    assert results["kinds"]["reconstruction"]["called_repaired"] == 0


@pytest.mark.slow
def test_a_model_that_has_it_backwards(source, tmp_path):
    """Fails if calling kept cells dropped scores above 0."""
    results = run(source, tmp_path / "out", BrightModel(sign=-1.0))
    assert results["pairs"][0]["auroc"] == 0
    cells = results["mask_map"]
    assert cells["auroc"]["value"] == 0
    assert cells["iou"]["value"] == 0
    assert cells["best_iou"] == {"threshold": 0.0, "value": pytest.approx(cells["base_rate"])}


def test_a_model_that_guesses(source, tmp_path):
    """Fails if the same score for everything is better or worse than the base rate."""
    results = run(source, tmp_path / "out", BrightModel(sign=0.0))
    assert results["pairs"][0]["auroc"] == 0.5
    cells = results["mask_map"]
    assert cells["average_precision"]["value"] == pytest.approx(cells["base_rate"])
    assert cells["iou"]["value"] == pytest.approx(cells["base_rate"])


def test_figures_depend_on_the_seed_alone(source, model, corruption, evaluated, tmp_path, monkeypatch):
    """Fails if figures change when repeated, masks with the batch size, or masks do not change with the seed."""
    assert run(source, tmp_path / "again", model, corruption) == evaluated[0]
    first = evaluation._collect(model, corruption, source, seed=1)
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 9)
    other = evaluation._collect(model, corruption, source, seed=1)
    np.testing.assert_array_equal(other.dropped, first.dropped)
    for kind, probability in first.probability.items():
        np.testing.assert_allclose(other.probability[kind], probability, atol=1e-4)
    assert (evaluation._collect(model, corruption, source, seed=2).dropped != first.dropped).any()


def test_images_that_need_each_other(source, tmp_path):
    """Fails if an image without its partner is counted, or a single image is not one line."""
    corruption = PaintedCorruption()
    corruption.group_size = 4
    results = run(source, tmp_path / "out", corruption=corruption)
    assert results["images"]["number"] == 68  # of 70
    corruption.group_size = 71
    with pytest.raises(evaluation.EvaluationError, match=r"needs 71 images. Received: 70 images"):
        run(source, tmp_path / "out", corruption=corruption)


class PageText(html.parser.HTMLParser):
    """Text of an HTML page without its tags."""

    def __init__(self, text):
        super().__init__()
        self.text = ""
        self.feed(text)

    def handle_data(self, text):
        self.text += text


def test_output(evaluated):
    """Fails if a file is missing, or the documents differ from the figures."""
    results, output = evaluated
    assert sorted(path.name for path in output.iterdir()) == [
        *("curves.png", "evaluation.html", "evaluation.json", "evaluation.md", "examples.png")
    ]
    assert json.loads((output / "evaluation.json").read_text()) == results
    assert {pair["changed"] for pair in results["pairs"]} == {"repaired", "damaged", "photograph"}
    markdown = (output / "evaluation.md").read_text()
    assert summary(results) in markdown
    page = PageText((output / "evaluation.html").read_text()).text
    for words in (f"{results['pairs'][0]['auroc']:.3f}", "average precision", "0.5", "70 images of synthetic"):
        assert words in markdown
        assert words in page
    for name in ("curves.png", "examples.png"):
        with Image.open(output / name) as picture:
            assert picture.width > 500


def test_what_does_not_fit_together(source, model, tmp_path):
    """Fails if another image size or grid, masks of one kind, or a foreign folder is not one line."""
    larger = Corruption(write_run(tmp_path / "larger", "gan", image_size="32"))
    with pytest.raises(evaluation.EvaluationError, match=r"16 pixels.* at 32"):
        run(source, tmp_path / "out", model, larger)
    with pytest.raises(evaluation.EvaluationError, match=r"\[2, 2\] cells .* \[4, 4\]"):
        run(source, tmp_path / "out", BrightModel(cells=2))
    for probability, words in ((1.0, "all cells are kept"), (0.0, "all cells are dropped")):
        with pytest.raises(evaluation.EvaluationError, match=words):
            run(source, tmp_path / "out", corruption=PaintedCorruption(probability))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(files.OutputError):
        run(source, tmp_path / "out")


def test_warnings(source, evaluated):
    """Fails if figures on training images, or of another run's export, carry no warning."""
    results, _ = evaluated
    assert "held out" not in summary(results)
    assert "not the export" not in summary(results)
    corruption = PaintedCorruption()
    corruption.record = dataclasses.replace(corruption.record, split="unlabelled+test")
    results = {**results, "run": describe_run(corruption, BrightModel(), source)}
    assert "may not be held out" in summary(results)
    assert "not the export of this run" in summary(results)


@pytest.mark.parametrize(
    ("split", "other", "overlap"),
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
def test_splits_that_may_overlap(split, other, overlap):
    """Fails if training images pass for held-out ones, or the other way round."""
    assert may_overlap("tfds:x", split, "tfds:x", other) == overlap
    assert may_overlap("folder:a/../x", split, "folder:x", other) == overlap
    assert not may_overlap("folder:x", split, "folder:y", other)


@pytest.mark.parametrize(
    ("discriminator", "changes", "exported"),
    [
        ({}, {}, True),
        ({}, {"step": 99}, False),
        ({"recalibrate_batch_norm": True}, {}, True),
        ({"fc_units": 9}, {}, False),
    ],
)
def test_whether_the_model_is_the_runs_export(source, model, corruption, discriminator, changes, exported):
    """Fails if another run's export passes for this run's, or an export option makes this run's a stranger."""
    config = model.description["config"]
    config = {**config, "discriminator": {**config["discriminator"], **discriminator}}
    other = types.SimpleNamespace(description={**model.description, "config": config, **changes})
    description = describe_run(corruption, other, source)
    assert description["exported_from_it"] == exported
    assert not description["may_hold_the_images"]
