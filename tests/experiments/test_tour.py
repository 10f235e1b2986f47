"""The notebook."""

import json
import pathlib

import matplotlib
import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "experiments" / "tour.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_has_no_outputs():
    """Fails if outputs or numbers of executions are committed, or a cell is too long to read."""
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert len(cell["source"]) <= 20


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Fails if a cell does not run after those before it."""
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, source in enumerate(CODE):
        assert ("STEPS = 400" in source) == ("preset(" in source)
        shorter = source.replace("STEPS = 400", "STEPS = 40")
        exec(compile(shorter, f"cell {number} of tour.ipynb", "exec"), names)
    assert set(names["accuracies"]) == {"trained", "random"}
    assert min(names["accuracies"].values()) > 0.2  # ten classes
    assert (tmp_path / "runs" / "tour" / "features" / "saved_model.pb").exists()
