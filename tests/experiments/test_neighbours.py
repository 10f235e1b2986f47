"""The program `neighbours` on photographs without labels."""

import json
import re
import shutil

import numpy as np
import pytest

from experiments import neighbours
from lts.training import export
from lts.utils.errors import UserError
from tests.fixtures.binaries import call
from tests.fixtures.spotting import write_photos


def test_a_page_of_photographs_without_labels(tiny_export, tmp_path, monkeypatch, capsys):
    """Fails if labels are needed, a copy of a photograph is not found, or an output of something else is replaced."""
    monkeypatch.setattr(export, "STATISTICS_STEPS", 2)
    photos = write_photos(tmp_path / "photos", [f"{number}.png" for number in range(9)])
    shutil.copy(photos / "3.png", photos / "copy <of> 3.png")
    arguments = [f"--model={tiny_export}", f"--dataset=folder:{photos}", "--shown=2", "--clusters=2"]
    with pytest.raises(UserError, match="would be read as images"):
        call(neighbours, *arguments, f"--output={photos / 'out'}")
    call(neighbours, *arguments, f"--output={tmp_path / 'out'}")
    results = json.loads((tmp_path / "out" / "neighbours.json").read_text())
    assert list(results["layers"]) == [f"conv_{number}" for number in range(1, 6)]
    assert results["baseline"]["path"] == "random weights"
    names = {path.name for path in photos.iterdir()}
    for layer in results["layers"].values():
        assert len(layer["neighbours"]) == 2
        for record in layer["neighbours"]:
            for side in ("model", "baseline"):
                found = [image["image"] for image in record[side]]
                assert len({*found, record["of"]["image"]}) == 7
                assert set(found) < names
                assert np.all(np.diff([image["similarity"] for image in record[side]]) <= 0)
    pair = results["near_duplicates"]["pairs"][0]
    assert {image["image"] for image in pair["images"]} == {"3.png", "copy <of> 3.png"}
    page = (tmp_path / "out" / "neighbours.html").read_text()
    assert "copy &lt;of&gt; 3.png" in page
    assert len(re.findall('class="query"', page)) == 5 * 2 * 2
    assert len((tmp_path / "out" / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 10
    # The baseline may be an export; an earlier output is replaced.
    call(neighbours, *arguments, f"--baseline={tiny_export}", f"--output={tmp_path / 'out'}", "--projector_images=0")
    assert "replaced the earlier output" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "neighbours.json").read_text())
    assert {layer["common"] for layer in results["layers"].values()} == {1.0}
    assert not (tmp_path / "out" / "tensorboard").exists()
    assert "tensorboard --logdir" in page
    assert "tensorboard --logdir" not in (tmp_path / "out" / "neighbours.html").read_text()
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt"):
        call(neighbours, *arguments, f"--output={tmp_path / 'out'}")


def test_an_encoder_needs_a_baseline(tiny_export, tmp_path):
    """Fails if random weights of another architecture than that of the export are shown."""
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_export, encoder)
    description = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(description | {"network": "encoder"}))
    with pytest.raises(UserError, match="Give --baseline") as raised:
        call(neighbours, f"--model={encoder}", "--dataset=synthetic", f"--output={tmp_path / 'out'}")
    assert raised.value.exit_status == 2
