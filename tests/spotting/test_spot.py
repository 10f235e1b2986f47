"""Scores in their order, the same in CSV, JSON and on the sheet; names with odd characters; whole or absent."""

import csv
import html.parser
import json
import urllib.parse

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lts import data
from lts.config import Config, ImageConfig
from lts.export import saved_model
from lts.networks.discriminator import Discriminator
from lts.spotting import spot as spot
from lts.utils import files
from tests.fixtures.spotting import BrightModel, write_photos

ODD = ['a,b "c".png', "<b>&amp;.png", "cat/a.png", "cat/a.jpg", "dog/a.png", "#1 100%?.png", "a\nb.png", "日本.png"]


def brightness(name: str) -> int:
    """0 to 245 by the name's place."""
    return 35 * ODD.index(name) if name in ODD else 128


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(scores, output folder) of grey images with odd names under the model that finds brightness."""
    root = tmp_path_factory.mktemp("odd")
    photos = write_photos(root / "photos", ODD, brightness)
    source = data.open_source(f"folder:{photos}", progress=False)
    return spot.spot_images(BrightModel(), source, root / "out"), root / "out"


def test_the_most_suspicious_comes_first(done):
    scores, _ = done
    assert [score.image for score in scores] == ODD[::-1]
    np.testing.assert_allclose([score.probability for score in scores], np.arange(7, -1, -1) * 35 / 255, atol=0.01)
    for score in scores:
        assert 0 <= score.artifact_mean <= score.artifact_max <= 1


def test_csv_and_json_say_the_same(done):
    scores, output = done
    with (output / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    assert [vars(score) for score in scores] == found["scores"]
    numbers = ("probability", "artifact_mean", "artifact_max")
    assert [{**row, **{name: float(row[name]) for name in numbers}} for row in rows] == found["scores"]
    assert found["model"] == {"path": "bright", "fingerprint": "0123456789abcdef", "weights": "none"}
    assert found["view"] == {"image_size": 16, "test_crop": 0.5}
    assert found["images"]["number"] == len(ODD)
    assert found["versions"]["tensorflow"] == tf.__version__


def test_every_image_has_its_own_overlay_in_its_proportions(done):
    scores, output = done
    paths = {output / score.overlay for score in scores}
    assert len(paths) == len(ODD)
    assert {path for path in (output / "overlays").rglob("*") if path.is_file()} == paths
    for score in scores:
        with Image.open(output / score.overlay) as both, Image.open(output.parent / "photos" / score.image) as image:
            half = (both.width - 4) // 2
            assert max(half, both.height) == spot.PICTURE
            assert half / both.height == pytest.approx(image.width / image.height, rel=0.15)  # a crop is whole pixels
            grey = np.asarray(both.convert("L"), int)
        assert abs(grey[:, : half - 8].mean() - brightness(score.image)) < 3


class _Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.text, self.tags = [], "", set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, text):
        self.text += text


def test_the_sheet_is_sorted_escaped_and_finds_its_overlays(done):
    scores, output = done
    page = _Page((output / "sheet.html").read_text(encoding="utf-8"))
    found = [urllib.parse.unquote(image["src"]) for image in page.images]
    assert found == [score.overlay for score in scores]
    assert all((output / path).is_file() for path in found)
    assert all(image["loading"] == "lazy" for image in page.images)
    assert "script" not in page.tags
    for name in ODD:
        assert name in page.text
    places = [page.text.index(name) for name in reversed(ODD)]
    assert places == sorted(places)
    assert "reconstructions" in page.text  # what the number is not


def test_only_scores_are_kept_and_the_batch_does_not_matter(world, tmp_path, monkeypatch):
    """With the real export, in batches of 32 and of 5."""
    model, source = saved_model.load(world.features), data.open_source(f"folder:{world.photos}", progress=False)
    whole = spot.spot_images(model, source, tmp_path / "a")
    monkeypatch.setattr(spot, "BATCH_SIZE", 5)
    parts = spot.spot_images(model, source, tmp_path / "b")
    assert {score.image for score in whole} == set(source.names)
    for one, two in zip(whole, parts, strict=True):
        assert one.image == two.image
        assert one.probability == pytest.approx(two.probability, abs=1e-5)


def test_the_scores_are_those_of_the_models_test_view(world, tmp_path):
    """What an image gets is what the export says of the view that the other binaries show it."""
    model, source = saved_model.load(world.features), data.open_source(f"folder:{world.photos}", progress=False)
    found = {score.image: score for score in spot.spot_images(model, source, tmp_path / "out")}
    view = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    expected = model.spot(next(iter(data.test_batches(source, view, batch_size=12))))
    for index, name in enumerate(source.names):
        assert found[name].probability == pytest.approx(float(expected["probability"][index]), abs=1e-5)
        assert found[name].artifact_max == pytest.approx(
            float(tf.reduce_max(expected["artifact_map"][index])), abs=1e-5
        )


def test_larger_views_and_whole_images(world, tmp_path):
    source = data.open_source(f"folder:{world.photos}", progress=False)
    model = saved_model.load(world.features)
    scores = spot.spot_images(model, source, tmp_path / "out", image_size=24, test_crop=1.0)
    assert len(scores) == 12
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["view"] == {"image_size": 24, "test_crop": 1.0}
    for bad in ({"image_size": 15}, {"test_crop": 0.0}, {"test_crop": 1.5}):
        with pytest.raises(spot.SpottingError, match=next(iter(bad))):
            spot.spot_images(model, source, tmp_path / "bad", **bad)
    assert not (tmp_path / "bad").exists()


def test_what_is_not_ours_is_not_replaced(done, tmp_path):
    source = data.open_source(f"folder:{done[1].parent / 'photos'}", progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(files.OutputError, match="another --output"):
        spot.spot_images(BrightModel(), source, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    spot.spot_images(BrightModel(), source, tmp_path / "ours")
    (tmp_path / "ours" / "overlays" / "old.jpg").write_text("")
    spot.spot_images(BrightModel(), source, tmp_path / "ours")
    assert not (tmp_path / "ours" / "overlays" / "old.jpg").exists()


def test_what_fails_leaves_nothing(done, tmp_path, monkeypatch):
    class Failing(BrightModel):
        def spot(self, images):
            raise KeyboardInterrupt

    class NotFinite(BrightModel):
        def spot(self, images):
            return {name: value * np.nan for name, value in super().spot(images).items()}

    source = data.open_source(f"folder:{done[1].parent / 'photos'}", progress=False)
    for model, error in ((Failing(), KeyboardInterrupt), (NotFinite(), spot.SpottingError)):
        with pytest.raises(error):
            spot.spot_images(model, source, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_an_export_without_heads_is_one_line(world, tmp_path):
    """Features alone, as of a checkpoint that holds the backbone and nothing else."""
    config = Config.from_dict(json.loads((world.features / "config.json").read_text())["config"])
    discriminator = Discriminator(config.discriminator, config.mask_grid)
    discriminator.build((None, 16, 16, 3))
    description = {"image_size": 16, "test_crop": 0.85, "spot": False, "config": config.to_dict()}
    saved_model.export(discriminator, tmp_path / "backbone", description)
    source = data.open_source(f"folder:{world.photos}", progress=False)
    with pytest.raises(saved_model.ExportError, match="features alone"):
        spot.spot_images(saved_model.load(tmp_path / "backbone"), source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


def test_names_that_no_file_system_takes_longer():
    long = spot.overlay_path("cat/" + "ä" * 124 + ".png")
    assert len(long.rpartition("/")[2].encode()) <= 255
    assert long != spot.overlay_path("cat/" + "ä" * 123 + "b.png")
    assert spot.overlay_path("cat/a.png") == "overlays/cat/a.png.jpg"


def test_a_set_without_names_is_numbered(tmp_path):
    source = data.open_source("synthetic", "test[:3]", progress=False)
    scores = spot.spot_images(BrightModel(), source, tmp_path / "out")
    assert sorted(score.image for score in scores) == ["000000", "000001", "000002"]
