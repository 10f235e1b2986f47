"""Files of results."""

import json
import pathlib

import pytest

from experiments.reporting import probe as probe_report
from experiments.reporting import results as result_files
from experiments.voc import report as voc_report

COMMITTED = pathlib.Path(result_files.PUBLISHED).parent
NAMES = ["$a_{$b", "_a", "猫|<b>", "a\nb\x1b[31m", "gr\udcf6n", "`x`"]


def committed(name):
    """Return a committed results file."""
    return json.loads((COMMITTED / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_models_and_data(tmp_path, name):
    """Fails if a name costs the results of a probe, or breaks its table."""
    results = committed("small_imagenette128")
    results["model"]["path"] = name
    results["dataset"]["name"] = f"folder:{name}"
    results[result_files.SEEN] = [name]
    probe_report.write(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    text = (tmp_path / "results.md").read_text()
    assert "<b>" not in text
    assert "\x1b" not in text
    assert "training images of" in text
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 1
    assert (tmp_path / "results.png").exists()


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_class(tmp_path, name):
    """Fails if the name of a class costs the results of a VOC task."""
    results = committed("small_voc_classification")
    first = results["classes"][0]
    results["classes"][0] = name
    for record in (*results["models"], results["baseline_mean"]):
        record["per_class"] = {name if key == first else key: value for key, value in record["per_class"].items()}
    voc_report.write(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md", "results.png"]
    columns = {
        line.replace("\\|", "").count("|")
        for line in (tmp_path / "results.md").read_text().splitlines()
        if line.startswith("|")
    }
    assert len(columns) == 1


def test_results_are_kept_when_the_picture_fails(tmp_path, capsys):
    """Fails if hours of work are lost because of a picture."""

    def plot(_):
        raise RuntimeError("broken")

    result_files.write(tmp_path, {"kind": "stand_in"}, lambda _: "text", plot)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]
    assert capsys.readouterr().err == f"warning: {tmp_path / 'results.png'} was not drawn (broken)\n"
