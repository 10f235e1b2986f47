"""Files of results."""

import json
import os
import pathlib

import pytest

from experiments import report
from experiments.reporting import probe as probe_report
from experiments.reporting import results as result_files
from experiments.voc import report as voc_report
from lts.utils import outputs
from lts.utils.files import OutputError

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


@pytest.mark.parametrize("name", result_files.WRITTEN)
def test_notes_of_the_user_are_kept(tmp_path, name):
    """Fails if a file of the user with a name of ours is replaced."""
    (tmp_path / name).write_text("notes")
    with pytest.raises(OutputError, match=f"{name} would be replaced"):
        result_files.check_output(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(committed("small_imagenette128")))
    result_files.check_output(tmp_path)  # an earlier run wrote both


def test_a_stopped_run_may_replace_what_it_wrote(tmp_path):
    """Fails if pictures of the user are replaced, or the same command cannot resume after pictures were written."""
    names = (*result_files.WRITTEN, "pictures")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(OutputError, match="pictures would be replaced"):
        result_files.check_output(tmp_path, names=names)
    with outputs.locked(tmp_path):
        pass  # the lock stays, because the folder holds pictures
    result_files.check_output(tmp_path, names=names)


def test_results_among_the_images_are_refused(tmp_path):
    """Fails if results.png becomes an image of a class at the next start."""
    with pytest.raises(OutputError, match="would be read as images"):
        result_files.check_output(tmp_path / "cat" / "probe", f"folder:{tmp_path}")
    result_files.check_output(tmp_path / "probe", "synthetic")


@pytest.mark.parametrize("name", ["results.json", "page.md"])
def test_pipes_are_not_opened(tmp_path, name):
    """Fails if a named pipe in the place of a file stops the report forever."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="not a regular file"):
        (result_files.load if name == "results.json" else report._read_page)(tmp_path / name)


def test_a_page_that_is_no_text(tmp_path):
    """Fails if a page in another encoding gives a traceback."""
    (tmp_path / "page.md").write_bytes(b"\xff\xfe")
    with pytest.raises(result_files.ReportError, match=r"page\.md is not text in UTF-8"):
        report._read_page(tmp_path / "page.md")


def test_results_are_kept_when_the_picture_fails(tmp_path, capsys):
    """Fails if hours of work are lost because of a picture."""

    def plot(_):
        raise RuntimeError("broken")

    result_files.write(tmp_path, {"kind": "stand_in"}, lambda _: "text", plot)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]
    assert capsys.readouterr().err == f"warning: {tmp_path / 'results.png'} was not drawn (broken)\n"
