"""Tables, captions and plots of `compare` and `ablate`."""

import copy
import json

import numpy as np
import pytest

from experiments import report
from experiments.reporting import comparison as comparison_report
from experiments.reporting import results as result_files
from experiments.reporting import tables
from experiments.reporting.results import ReportError
from lts.utils.markdown import table as markdown_table
from tests.fixtures.binaries import invoke

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
    """Return an accuracy with its interval."""
    return {"accuracy": accuracy, "interval": [accuracy - reach, accuracy + reach]}


def model(*accuracies, **more):
    """Return a model with accuracies of its first layers."""
    layers = {f"conv_{index}": record(value) for index, value in enumerate(accuracies, 1)}
    return {"path": "x/features", "fingerprint": "f", "description": {}, "seconds": {}, "layers": layers, **more}


def ablations():
    """Return results of `experiments.ablate` with two variants."""
    keep = ["damage.keep_probability: 0.3 -> 0.5"]
    mine = ["loss.mask_weight: 0.1 -> 0.0", "gan_training.learning_rate: 0.001 -> 0.0003"]
    return {
        "kind": "ablate",
        **SHARED,
        "base": model(0.6, 0.7),
        "variants": {
            "keep_0.5": model(0.5, 0.5, changed=keep, difference=model(0.05, -0.0004)["layers"]),
            "mine": model(0.5, 0.5, changed=mine, difference=model(-0.031, 0.021)["layers"]),
        },
    }


def method(name, accuracies, seconds, differences):
    """Return one method of `experiments.compare`."""
    return model(*accuracies, title=name, seconds=seconds, difference=model(*differences)["layers"])


def comparison():
    """Return results of `experiments.compare` with three methods."""
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
        "methods": {
            "autoencoder": method("autoencoder", (0.5,), {"autoencoder": 590}, (-0.1,)),
            "rotation": method("rotation", (0.62, 0.68), {"rotation": 612}, (0.02, 0.09)),
            "ours": method("ours", (0.61, 0.7), {"autoencoder": 160, "gan": 438}, (0.01, 0.11)),
        },
        "ours_minus": {"autoencoder": model(0.11)["layers"], "rotation": model(-0.01, 0.02)["layers"]},
    }


def test_ablation_table():
    """Fails if a variant shows a wrong change, difference or sign."""
    assert comparison_report.ablate_table(ablations()) == [
        ["", "changed", "conv_1", "conv_2"],
        ["base: accuracy", "", "60.0 [58.0, 62.0]", "70.0 [68.0, 72.0]"],
        ["keep_0.5", "keep_probability: 0.3 → 0.5", "+5.0 [3.0, 7.0]", "+0.0 [-2.0, 2.0]"],
        ["mine", "mask_weight: 0.1 → 0.0, learning_rate: 0.001 → 0.0003", "-3.1 [-5.1, -1.1]", "+2.1 [0.1, 4.1]"],
    ]


def test_comparison_table():
    """Fails if a method shows another one's figures, or a layer that it does not have."""
    assert comparison_report.compare_table(comparison()) == [
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


def test_budgets(tmp_path):
    """Fails if a line has another method's layers or order of budgets, or runs of other images share a picture."""
    longer = copy.deepcopy(comparison())
    longer["plan"]["budget_minutes"] = 40.0
    longer["methods"]["ours"]["layers"]["conv_1"] = record(0.75)
    axes = comparison_report.plot_budgets([longer, comparison()]).axes[0]
    *curves, random = [line for line in axes.lines if len(line.get_ydata()) == 2 and line.get_linestyle() != "None"]
    accuracies = [curve.get_ydata().astype(float) for curve in curves]
    np.testing.assert_allclose(accuracies, [[50, 50], [68, 68], [70, 75]])
    np.testing.assert_allclose(curves[1].get_xdata().astype(float), [10, 40])
    assert list(random.get_ydata()) == [60, 60]
    paths = [tmp_path / "10.json", tmp_path / "40.json"]
    for path, run in zip(paths, (comparison(), longer), strict=True):
        path.write_text(json.dumps(run))
    done = invoke("experiments.report", *map(str, paths), f"--budgets={tmp_path / 'budgets.png'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "budgets.png").read_bytes().startswith(b"\x89PNG")
    longer["dataset"] = {**DATASET, "test_fingerprint": "3"}
    for runs in ([], [comparison(), longer]):
        with pytest.raises(ReportError, match=f"same images and probe. Received: {len(runs)} runs"):
            comparison_report.plot_budgets(runs)


def test_ablation_caption():
    """Fails if the caption hides that the figures are of validation images and one seed."""
    caption = comparison_report.caption(ablations())
    assert "validation images (train[80%:]), never on test images" in caption
    assert "trained on train[:80%]. Pre-training used unlabelled+train (9,469 images, without labels)." in caption
    assert "One pre-training seed each" in caption
    assert "1,000 validation images" in comparison_report.title(ablations())


def test_comparison_caption():
    """Fails if the caption hides the budget, the batch sizes, or test images seen in pre-training."""
    results = comparison()
    caption = comparison_report.caption(results)
    assert "fit into 10 minutes" in caption
    assert "Images per step: autoencoder 16, gan 32." in caption
    assert "27 % of the time on the autoencoder" in caption
    assert "One pre-training seed each" in caption
    results["pretraining"] = {**results["pretraining"], "split": "all", "test_images": 1996}
    assert "without labels; 1,996 of them are also tested" in comparison_report.caption(results)
    title = "Baselines (ridge on folder:photos: 4,000 training, 1,000 test images, 4 classes)"
    assert comparison_report.title(results) == title


def test_comparison_plot():
    """Fails if a method's line or the random mean is missing."""
    figure = comparison_report.plot(comparison())
    (axes,) = figure.axes
    assert len(axes.containers) == 4
    lines = {bar.get_label(): bar.lines[0].get_ydata().tolist() for bar in axes.containers}
    assert lines["autoencoder"] == [50.0]
    assert lines["mean of 3 random initialisations"] == [60.0, 59.0]


def test_ablation_plot():
    """Fails if a panel lacks a variant or shows its figure in another row."""
    figure = comparison_report.plot(ablations())
    assert [len(axes.containers) for axes in figure.axes] == [2, 2]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["keep_0.5", "mine"]
    assert [bar.lines[0].get_xdata().tolist() for bar in figure.axes[0].containers] == [[5.0], [-3.1]]


def load(tmp_path, name, results):
    """Return results that were written to a file and read again."""
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(results))
    return result_files.load(path)


def test_pages_hold_comparisons(tmp_path):
    """Fails if the page's tables are not those of the files."""
    files = [load(tmp_path, "a", ablations()), load(tmp_path, "c", comparison())]
    page = "x\n<!-- table: compare c -->\n<!-- end -->\n<!-- table: ablate a -->\n<!-- end -->\ny"
    filled, shown = report.fill(page, files, {})
    assert shown == {"a", "c"}
    assert markdown_table(comparison_report.ablate_table(ablations())) in filled
    assert markdown_table(comparison_report.compare_table(comparison())) in filled
    assert report.fill(filled, files, {}) == (filled, shown)
    text = report.text(files, {})
    assert "Baselines (ridge on folder:photos" in text
    assert "Ablations (ridge on folder:photos" in text


def test_a_table_holds_one_file(tmp_path):
    """Fails if two runs of `ablate` with different bases share a table."""
    files = [load(tmp_path, name, ablations()) for name in ("a", "b")]
    with pytest.raises(ReportError, match="one table cannot hold"):
        report.fill("<!-- table: ablate a b -->\n<!-- end -->", files, {})
    assert len(tables.groups(files)) == 2


@pytest.mark.parametrize(
    ("results", "place"),
    [
        (ablations(), ("layers",)),
        (ablations(), ("variants", "mine", "changed")),
        (comparison(), ("dataset", "classes")),
        (comparison(), ("methods", "ours", "seconds")),
    ],
)
def test_missing_fields_are_refused(results, place, tmp_path):
    """Fails if a results file is read although a field is missing."""
    load(tmp_path, "complete", results)
    cut = copy.deepcopy(results)
    inner = cut
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    with pytest.raises(ReportError, match=rf"cut\.json of kind {results['kind']} lacks {place[0]}"):
        load(tmp_path, "cut", cut)
