"""The model card against the configuration, the run and the probe."""

import json
import pathlib

import pytest

from lts.config import preset
from lts.export import model_card
from lts.export.choices import LicenseError

RESULTS = pathlib.Path(__file__).parents[2] / "experiments" / "results"


def describe(**entries):
    """Return the description of an export of preset `release`."""
    config = preset("release")
    return {"image_size": 96, "test_crop": 0.85, "weights": "trained", "config": config.to_dict(), **entries}


def test_layers_of_the_release():
    """Fails if the table differs from AlexNet's receptive fields and strides, or REFERENCE.md's parameters."""
    text = model_card.card(describe())
    assert "| conv_1 | 24 x 24 x 96 | 4 | 11 | 34,944 |" in text
    assert "| conv_2 | 12 x 12 x 256 | 8 | 51 | 307,456 |" in text
    assert "| conv_5 | 6 x 6 x 256 | 16 | 163 | 442,624 |" in text


def test_front_matter_citation_and_example():
    """Fails if model hubs cannot read the front matter, or the example names another folder or layer."""
    text = model_card.card(describe(license="cc-by-4.0"), name="mine")
    front_matter = text.split("---\n")[1]
    keys = [line.split(":")[0] for line in front_matter.strip().splitlines()]
    assert text.startswith("---\n")
    assert keys == ["license", "library_name", "pipeline_tag", "tags"]
    assert "alexnet, artifact-detection]" in front_matter
    assert "alexnet" not in model_card.card(describe(network="encoder")).split("---\n")[1]
    assert "Jenni, Simon and Favaro, Paolo" in text
    assert 'tf.saved_model.load("mine")' in text
    assert 'signatures["conv_3"](images=images)["conv_3"]  # float32 [8, 6, 6, 384]' in text


def test_license_is_stated_by_the_user(tmp_path):
    """Fails if a licence is assumed, lost when figures are added, or can break the front matter."""
    text = model_card.card(describe())
    assert "license:" not in text.split("---\n")[1]
    assert "The licence of this model was not stated." in text
    description = describe(license="cc-by-nc-4.0")
    (tmp_path / "config.json").write_text(json.dumps(description))
    results = json.loads((RESULTS / "small_imagenette128.json").read_text())
    for _ in range(2):  # writes the card, then changes it
        model_card.add_probe(tmp_path, results)
        text = (tmp_path / "README.md").read_text()
        assert "license: cc-by-nc-4.0\n" in text.split("---\n")[1]
        assert "not stated" not in text
    with pytest.raises(LicenseError, match=r"such as cc-by-4\.0"):
        model_card.card(describe(license="mit\ntags: []"))


def test_advice_on_the_layer():
    """Fails if the advice contradicts the committed results."""
    layers = json.loads((RESULTS / "small_imagenette128.json").read_text())["model"]["layers"]
    distance = 100 * (round(layers["conv_3"]["accuracy"], 3) - round(layers["conv_5"]["accuracy"], 3))
    assert f"`conv_5` is {distance:.1f} points lower" in " ".join(model_card.card(describe()).split())
    for other in ({"weights": "random"}, {"stage": "supervised"}):
        assert "Take `conv_3`" not in model_card.card(describe(**other))


def test_origin_of_a_fine_tuned_backbone():
    """Fails if the card claims that pre-trained weights were trained on labels alone."""
    text = model_card.card(describe(stage="supervised", fine_tuned_from="abcd", spot=False))
    assert "from an export with fingerprint abcd, fine-tuned on labels" in " ".join(text.split())
    assert "upper reference" not in text


def test_training():
    """Fails if a known setting of the run is missing, or an unknown one is listed."""
    settings = {"dataset": "tfds:stl10", "split": "unlabelled", "step": 12345, "seed": 3, "averaged": True}
    settings |= {"seconds": {"stage 1": 100, "stage 2": 2000}, "hardware": "1 x H200", "commit": "abc+"}
    text = model_card.card(describe(**settings))
    for row in (
        "| images | tfds:stl10, split unlabelled |",
        "| steps | 12,345 |",
        "| seed | 3 |",
        "| hardware | 1 x H200 |",
        "| weights | trained (moving average) |",
        "| seconds | stage 1 100, stage 2 2,000 |",
    ):
        assert row in text
    assert "None" not in text
    assert "None" not in model_card.card(describe())


@pytest.mark.parametrize(("weights", "spot"), [("random", True), ("trained", False)])
def test_claims(weights, spot):
    """Fails if random weights are not called random, or an export of features alone offers `spot`."""
    text = model_card.card(describe(weights=weights, spot=spot))
    assert ("never trained" in text) == (weights == "random")
    assert ("`spot`" in text) == spot


@pytest.mark.parametrize(
    ("protocol", "classifier"),
    [
        ({"classifier": "ridge", "dimensions": 9000}, "(ridge, about 9,000 values a layer)"),
        ({"name": "rotnet", "dimensions": 9000}, "(protocol rotnet)"),
    ],
)
def test_probe(tmp_path, protocol, classifier):
    """Fails if figures are not written into the export's card in percent, with interval and baselines."""
    results = {
        "protocol": {**protocol, "confidence": 0.95},
        "dataset": {"name": "folder:x", "train_images": 5000, "train_split": "train"},
        "model": {"layers": {"conv_5": {"accuracy": 0.6473, "interval": [0.626, 0.668]}}},
        "baselines": [{}, {}],
        "baseline_mean": {"conv_5": {"accuracy": 0.55}},
    }
    results["dataset"] |= {"test_images": 1996, "test_split": "test"}
    (tmp_path / "config.json").write_text(json.dumps(describe()))
    model_card.add_probe(tmp_path, results)
    text = (tmp_path / "README.md").read_text()
    assert f"Accuracy of a linear classifier {classifier} on frozen features" in text
    assert "| this model | 64.7 [62.6, 66.8] |" in text
    assert "| mean of 2 baselines | 55.0 |" in text
    assert "Not measured" not in text
    assert "Not measured" in model_card.card(describe())
    # Only this section of a card that the user has changed is written.
    notes = b"notes, \xff\n\n" + model_card.card(describe(), name=tmp_path.name).encode()
    (tmp_path / "README.md").write_bytes(notes)
    model_card.add_probe(tmp_path, results)
    assert (tmp_path / "README.md").read_bytes() == b"notes, \xff\n\n" + text.encode()
    (tmp_path / "README.md").write_text("notes\n")
    model_card.add_probe(tmp_path, results)
    assert (tmp_path / "README.md").read_text().startswith("notes\n\n## Figures\n\nAccuracy of")


def test_text_of_users(tmp_path):
    """Fails if a name of a folder or data set changes the card, ends the example, or cannot be written."""
    hostile = 'a"|<b>`\n# c\udcf6'
    text = model_card.card(describe(dataset=f"folder:{hostile}", split="all"), name=hostile)
    text.encode()
    row = next(line for line in text.splitlines() if line.startswith("| images |"))
    assert row == r'| images | folder:a"\|&lt;b&gt;\`\\n# c\\xf6, split all |'
    loaded = next(line for line in text.splitlines() if "saved_model.load" in line)
    assert eval(loaded.partition("load")[2]) == hostile


def test_markup_of_the_card():
    """Fails if the card's own markup is escaped."""
    text = model_card.card(describe(weights="random", spot=True))
    assert "| weights | **random: never trained** |" in text
    assert "| `conv_1` to `conv_5` |" in text
    assert "\\" not in text
