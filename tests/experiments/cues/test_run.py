"""All measurements on a model whose answers are known."""

import json
import types

import pytest
import tensorflow as tf

from experiments.cues import report
from experiments.cues import run as cue_run
from experiments.cues.protocol import ShortcutsProtocol
from experiments.probing.probe import ProbeError
from experiments.reporting import results as result_files
from experiments.reporting import tables
from lts import data
from tests.fixtures.spotting import BrightModel, PaintedCorruption

PROTOCOL = ShortcutsProtocol(max_images=40, occlusion_images=5, resamples=20, sigmas=(1.0,), qualities=(50, 90))


class Model(BrightModel):
    """A bright model with one layer, the image itself."""

    layers = ("conv_1",)
    calls = 0

    def __init__(self):
        super().__init__()
        self.geometry = {"conv_1": types.SimpleNamespace(receptive_field=1)}

    def __call__(self, images):
        return {"conv_1": tf.cast(images, tf.float32)}

    def spot(self, images):
        self.calls += 1
        return super().spot(images)


@pytest.fixture(scope="module")
def source():
    return data.open_source("synthetic", "test[:70]", progress=False)


def run(source, output, corruption, model=None):
    return cue_run.run(model or Model(), corruption, source, output, PROTOCOL)


def test_a_model_that_knows(source, tmp_path):
    """Fails if a figure is not that of white cells on black images, or a file or a row of the table is missing."""
    results, examples = run(source, tmp_path, PaintedCorruption())
    assert results["images"]["number"] == 40
    filters = [(record["kind"], record["value"]) for record in results["filters"]]
    assert filters == [("low-pass", 1), ("jpeg", 90), ("jpeg", 50), ("resampling", 2), ("resampling", 4)]
    records = [results["score"]["all"], results["score"]["tested"], results["layers"]["conv_1"], *results["filters"]]
    assert [(record["auroc"], record["interval"]) for record in records] == [(1, [1, 1])] * 8
    assert [record["dropped"] for record in results["cells"]] == [1, 2, 4, 8, 16]
    assert all(record["auroc"] == record["paired"]["share"] == 1 for record in results["cells"])
    # A square of one cell: white cells speak for "repaired", black ones against it.
    assert (results["occlusion"]["side"], results["occlusion"]["dropped_cells"]["auroc"]) == (4, 1)
    assert (examples.occlusion[1][examples.dropped] > 0).all()
    assert (examples.occlusion[1][~examples.dropped] < 0).all()
    assert not examples.occlusion[0].any()
    report.write(results, examples, tmp_path)
    names = ("occlusion.png", "partial.json", "positions.png", "results.html", "results.json", "results.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "results.png"]
    loaded = result_files.load(tmp_path / "results.json")
    assert loaded.values == json.loads(json.dumps(results))
    table = tables.table([loaded, loaded])
    assert len(table) == 1 + 2 + 1 + 5 + 5 + 1
    assert {cell for row in table[1:] for cell in row[1:]} == {"1.000 [1.000, 1.000]"}
    text = (tmp_path / "results.md").read_text()
    page = (tmp_path / "results.html").read_text()
    for words in ("linear probe of conv_1 alone (a cell sees 1 pixels)", "JPEG, quality 50", "4 of 16 cells dropped"):
        assert words in text
        assert words in page
    for words in (text, report.summary(results)):
        assert "is not the export of this run" in words


def test_identical_versions(source, tmp_path):
    """Fails if versions that do not differ are told apart, or a map without dropped cells costs the results."""
    results, _ = run(source, tmp_path, PaintedCorruption(keep_probability=1.0))
    for record in (*results["score"].values(), results["layers"]["conv_1"], *results["filters"]):
        assert (record["auroc"], record["interval"]) == (0.5, [0.5, 0.5])
    assert results["occlusion"]["dropped_cells"] is None
    assert "by the occlusion map | |" in report.markdown(results)


def test_a_stopped_run_resumes(source, tmp_path, monkeypatch):
    """Fails if a finished measurement is repeated, or the results differ from those of an uninterrupted run."""
    whole, _ = run(source, tmp_path / "once", PaintedCorruption())
    with monkeypatch.context() as patch:
        patch.setattr(cue_run.Shortcuts, "measure_occlusion", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "twice", PaintedCorruption())
    model = Model()
    resumed, _ = run(source, tmp_path / "twice", PaintedCorruption(), model)
    assert model.calls == 1 + 2 * 5 + 2  # the check of the grid, the maps, the examples
    first, second = (json.loads(json.dumps({**results, "seconds": 0})) for results in (whole, resumed))
    assert first == second


def test_too_few_images(source, tmp_path):
    """Fails if it is not one line before the work."""
    corruption = PaintedCorruption()
    corruption.group_size = 20
    with pytest.raises(ProbeError, match=r"need at least 80 images. Received: 40"):
        run(source, tmp_path, corruption)
