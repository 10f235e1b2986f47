"""Tables of rivals and ablations from results made by hand; what a network does not have stays blank."""

import copy
import json

import pytest

from experiments import report
from experiments.reporting import comparison as comparison_report
from experiments.reporting import comparison_tables, tables
from experiments.reporting import results as result_files
from experiments.reporting.results import ReportError

DATASET = {
    "name": "folder:photos",
    "classes": ["a", "b", "c", "d"],
    "train_split": "train[:80%]",
    "test_split": "train[80%:]",
    "train_images": 4000,
    "test_images": 1000,
    "train_fingerprint": "1",
    "test_fingerprint": "2",
}
PROTOCOL = {
    "name": "ridge",
    "classifier": "ridge",
    "pool": "average",
    "dimensions": 9000,
    "validation": 0.2,
    "confidence": 0.95,
}
SHARED = {
    "protocol": PROTOCOL,
    "dataset": DATASET,
    "pretraining": {"name": "folder:photos", "split": "unlabelled+train", "images": 9469, "test_images": 0},
    "layers": ["conv_1", "conv_2"],
}


def record(accuracy, reach=0.02):
    return {"accuracy": accuracy, "interval": [accuracy - reach, accuracy + reach]}


def model(*accuracies, **more):
    layers = {f"conv_{index}": record(value) for index, value in enumerate(accuracies, 1)}
    return {"path": "x/features", "fingerprint": "f", "description": {}, "seconds": {}, "layers": layers, **more}


def ablations():
    variants = {
        "keep_0.5": (["damage.keep_probability: 0.3 -> 0.5"], (0.05, -0.0004)),
        "mine": (["loss.mask_weight: 0.1 -> 0.0", "gan_training.learning_rate: 0.001 -> 0.0003"], (-0.031, 0.021)),
    }
    return {
        "kind": "ablate",
        **SHARED,
        "base": model(0.6, 0.7),
        "variants": {
            name: model(0.5, 0.5, changed=changed, difference=model(*differences)["layers"])
            for name, (changed, differences) in variants.items()
        },
    }


def comparison():
    rivals = {
        "autoencoder": ((0.5,), {"autoencoder": 590}, (-0.1,)),
        "rotation": ((0.62, 0.68), {"rotation": 612}, (0.02, 0.09)),
        "ours": ((0.61, 0.7), {"autoencoder": 160, "gan": 438}, (0.01, 0.11)),
    }
    return {
        "kind": "compare",
        **SHARED,
        "plan": {
            "budget_minutes": 10.0,
            "autoencoder_share": 0.27,
            "rates": {"autoencoder": {"batch_size": 16}, "gan": {"batch_size": 32}},
        },
        "random": [model(0.6, 0.59)] * 3,
        "random_mean": model(0.6, 0.59)["layers"],
        "rivals": {
            name: model(*own, title=name, seconds=seconds, difference=model(*differences)["layers"])
            for name, (own, seconds, differences) in rivals.items()
        },
        "ours_minus": {"autoencoder": model(0.11)["layers"], "rotation": model(-0.01, 0.02)["layers"]},
    }


def test_ablations_by_hand():
    assert comparison_tables.ablate_table(ablations()) == [
        ["", "changed", "conv_1", "conv_2"],
        ["base: accuracy", "", "60.0 [58.0, 62.0]", "70.0 [68.0, 72.0]"],
        ["keep_0.5", "keep_probability: 0.3 → 0.5", "+5.0 [3.0, 7.0]", "+0.0 [-2.0, 2.0]"],
        ["mine", "mask_weight: 0.1 → 0.0, learning_rate: 0.001 → 0.0003", "-3.1 [-5.1, -1.1]", "+2.1 [0.1, 4.1]"],
    ]


def test_rivals_by_hand():
    assert comparison_tables.compare_table(comparison()) == [
        ["", "minutes", "conv_1", "conv_2"],
        ["mean of 3 random initialisations", "0", "60.0 [58.0, 62.0]", "59.0 [57.0, 61.0]"],
        ["autoencoder", "9.8", "50.0 [48.0, 52.0]", ""],
        ["difference to random (paired)", "", "-10.0 [-12.0, -8.0]", ""],
        ["rotation", "10.2", "62.0 [60.0, 64.0]", "68.0 [66.0, 70.0]"],
        ["difference to random (paired)", "", "+2.0 [0.0, 4.0]", "+9.0 [7.0, 11.0]"],
        ["**ours**", "**10.0**", "**61.0 [59.0, 63.0]**", "**70.0 [68.0, 72.0]**"],
        ["difference to random (paired)", "", "+1.0 [-1.0, 3.0]", "+11.0 [9.0, 13.0]"],
        ["ours minus autoencoder (paired)", "", "+11.0 [9.0, 13.0]", ""],
        ["ours minus rotation (paired)", "", "-1.0 [-3.0, 1.0]", "+2.0 [0.0, 4.0]"],
    ]


def test_captions_say_what_the_figures_are_of():
    said = comparison_tables.caption(ablations())
    assert "validation images (train[80%:]), never on test images" in said
    assert "trained on train[:80%]; images of pre-training unlabelled+train (9,469, without labels)" in said
    assert "One pre-training seed each" in said
    results = comparison()
    assert "10 minutes" in comparison_tables.caption(results)
    assert "Images a step: autoencoder 16, gan 32." in comparison_tables.caption(results)
    assert "27 % of the time for stage 1" in comparison_tables.caption(results)
    assert "One pre-training seed each" in comparison_tables.caption(results)
    results["pretraining"] = {**results["pretraining"], "split": "all", "test_images": 1996}
    assert "without labels, 1,996 of those that are tested among them" in comparison_tables.caption(results)
    assert comparison_tables.title(results) == (
        "Rivals (ridge on folder:photos: 4,000 training, 1,000 test images, 4 classes)"
    )
    assert "1,000 validation images" in comparison_tables.title(ablations())


@pytest.mark.parametrize("results", [ablations(), comparison()], ids=["ablate", "compare"])
def test_plots_show_every_figure_with_its_interval(results, tmp_path):
    figure = comparison_report.plot(results)
    bars = sum(len(axes.containers) for axes in figure.axes)
    assert bars == {"ablate": 2 * 2, "compare": 4}[results["kind"]]
    if results["kind"] == "compare":
        lines = {bar.get_label(): bar.lines[0].get_ydata().tolist() for bar in figure.axes[0].containers}
        assert lines["autoencoder"] == [50.0]
        assert lines["mean of 3 random initialisations"] == [60.0, 59.0]
    else:
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["keep_0.5", "mine"]
        assert [bar.lines[0].get_xdata().tolist() for bar in figure.axes[0].containers] == [[5.0], [-3.1]]


def load(tmp_path, name, results):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(results))
    return result_files.load(path)


def test_readme_tables_are_those_of_the_results(tmp_path):
    files = [load(tmp_path, name, make()) for name, make in (("a", ablations), ("c", comparison))]
    assert [each.kind for each in files] == ["ablate", "compare"]
    page = "x\n<!-- table: compare c -->\n<!-- end -->\n<!-- table: ablate a -->\n<!-- end -->\ny"
    filled = report.fill(page, files, {})
    for results, make in zip(files, (comparison_tables.ablate_table, comparison_tables.compare_table), strict=True):
        assert tables.markdown(make(results.values)) in filled
    assert report.fill(filled, files, {}) == filled
    text = report.text(files, {})
    assert "Rivals (ridge on folder:photos" in text
    assert "Ablations (ridge on folder:photos" in text


def test_a_table_holds_one_file(tmp_path):
    files = [load(tmp_path, name, ablations()) for name in ("a", "b")]
    with pytest.raises(ReportError, match="one table cannot hold"):
        report.fill("<!-- table: ablate -->\n<!-- end -->", files, {})
    assert len(tables.groups(files)) == 2


@pytest.mark.parametrize("make", [ablations, comparison])
def test_results_with_something_missing_are_no_results(make, tmp_path):
    whole = make()
    load(tmp_path, "whole", whole)
    for place in (("layers",), ("dataset", "classes"), ("variants", "mine", "changed"), ("rivals", "ours", "seconds")):
        cut = inner = copy.deepcopy(whole)
        for key in place[:-1]:
            inner = inner.get(key, {})
        if inner.pop(place[-1], None) is not None:
            with pytest.raises(ReportError, match=r"cut\.json holds neither"):
                load(tmp_path, "cut", cut)
