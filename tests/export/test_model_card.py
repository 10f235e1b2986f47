"""The model card: true to the configuration, to the run, and to the probe."""

import json

import pytest

from lts.config import preset
from lts.export import model_card


def described(**more):
    """A description as an export has it."""
    config = preset("release")
    return {"image_size": 96, "test_crop": 0.85, "weights": "trained", "config": config.to_dict(), **more}


def test_layers_of_the_release():
    """Receptive fields and strides of AlexNet, maps and parameters of REFERENCE.md."""
    text = model_card.card(described())
    assert "| conv_1 | 24 x 24 x 96 | 4 | 11 | 34,944 |" in text
    assert "| conv_2 | 12 x 12 x 256 | 8 | 51 | 307,456 |" in text
    assert "| conv_5 | 6 x 6 x 256 | 16 | 163 | 442,624 |" in text


def test_front_matter_and_citation():
    """What model hubs read: the first thing in the file, closed, with licence and library."""
    text = model_card.card(described(), name="mine")
    front = text.split("---\n")[1]
    assert text.startswith("---\n")
    assert {line.split(":")[0] for line in front.strip().splitlines()} == {
        *("license", "library_name", "pipeline_tag", "tags")
    }
    assert "Jenni, Simon and Favaro, Paolo" in text
    assert 'tf.saved_model.load("mine")' in text


def test_where_a_fine_tuned_backbone_comes_from():
    """A card that calls pre-trained weights trained on labels alone."""
    text = model_card.card(described(stage="supervised", fine_tuned_from="abcd", spot=False))
    assert "from an export with fingerprint abcd, fine-tuned on labels" in " ".join(text.split())
    assert "upper reference" not in text


def test_facts_of_the_run():
    """All that is known stands there, and nothing that is not."""
    facts = {"dataset": "tfds:stl10", "split": "unlabelled", "step": 12345, "seed": 3, "averaged": True}
    facts |= {"seconds": {"stage 1": 100, "stage 2": 2000}, "hardware": "1 x H200", "commit": "abc+"}
    text = model_card.card(described(**facts))
    rows = [
        "| images | tfds:stl10, split unlabelled |",
        "| steps | 12,345 |",
        "| seed | 3 |",
        "| hardware | 1 x H200 |",
    ]
    for row in (*rows, "| weights | trained (moving average) |", "| seconds | stage 1 100, stage 2 2,000 |"):
        assert row in text
    assert "None" not in text
    assert "None" not in model_card.card(described())


@pytest.mark.parametrize(("weights", "spot"), [("random", True), ("trained", False)])
def test_what_must_not_be_claimed(weights, spot):
    """Random weights are called so, and a backbone alone spots nothing."""
    text = model_card.card(described(weights=weights, spot=spot))
    assert ("never trained" in text) == (weights == "random")
    assert ("`spot`" in text) == spot


@pytest.mark.parametrize(
    ("protocol", "how"),
    [
        ({"classifier": "ridge", "dimensions": 9000}, "(ridge, about 9,000 values a layer)"),
        ({"name": "imagenet", "dimensions": 9000}, "(protocol imagenet)"),  # heads trained over augmented images
    ],
)
def test_probe(tmp_path, protocol, how):
    """Figures come into the card that lies beside the export, in percent, with interval and baselines."""
    results = {
        "protocol": {**protocol, "confidence": 0.95},
        "dataset": {"name": "folder:x", "train_images": 5000, "test_images": 1996, "train_split": "train"},
        "model": {"layers": {"conv_5": {"accuracy": 0.6473, "interval": [0.626, 0.668]}}},
        "baselines": [{}, {}],
        "baseline_mean": {"conv_5": {"accuracy": 0.55}},
    }
    results["dataset"]["test_split"] = "test"
    (tmp_path / "config.json").write_text(json.dumps(described()))
    model_card.add_probe(tmp_path, results)
    text = (tmp_path / "README.md").read_text()
    assert f"Accuracy of a linear classifier {how} on frozen features" in text
    assert "| this model | 64.7 [62.6, 66.8] |" in text
    assert "| mean of 2 baselines | 55.0 |" in text
    assert "Not measured" not in text
    assert "Not measured" in model_card.card(described())
