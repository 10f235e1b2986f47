"""Scores, overlays and the contact sheet of images with unusual names."""

import csv
import html.parser
import json
import shutil
import urllib.parse

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lts import data
from lts.config import ImageConfig
from lts.export import saved_model
from lts.spotting import sheet, spot
from lts.utils import files
from tests.fixtures import rounding
from tests.fixtures.spotting import BrightModel, write_photos

TOLERANCE = 100 * rounding.EPSILON  # of a probability: ten layers, each of which rounds its last bit ten times
NAMES = ['a,b "c".png', "<b>&amp;.png", "cat/a.png", "cat/a.jpg", "dog/a.png", "#1 100%?.png", "a\nb.png", "日本.png"]


def brightness(name: str) -> int:
    """Return 0 to 245 by the name's position."""
    return 35 * NAMES.index(name) if name in NAMES else 128


@pytest.fixture(scope="module")
def spotted(tmp_path_factory):
    """Scores and output folder of grey images with unusual names."""
    root = tmp_path_factory.mktemp("unusual")
    photos = write_photos(root / "photos", NAMES, brightness)
    source = data.open_source(f"folder:{photos}", progress=False)
    return spot.spot_images(BrightModel(), source, root / "out"), root / "out"


def test_order(spotted):
    """Fails if the most suspicious image is not the first."""
    scores, _ = spotted
    assert [score.image for score in scores] == NAMES[::-1]
    np.testing.assert_allclose([score.probability for score in scores], np.arange(7, -1, -1) * 35 / 255, atol=0.01)
    for score in scores:
        assert 0 <= score.artifact_mean <= score.artifact_max <= 1


def test_csv_and_json(spotted):
    """Fails if the files differ from the scores, or do not name model, view and images."""
    scores, output = spotted
    with (output / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in ("probability", "artifact_mean", "artifact_max"):
            row[name] = float(row[name])
    results = json.loads((output / "scores.json").read_text(encoding="utf-8"))
    assert results["scores"] == rows == [vars(score) for score in scores]
    assert results["model"] == {"path": "bright", "fingerprint": "0123456789abcdef", "weights": "none"}
    assert results["view"] == {"image_size": 16, "test_crop": 0.5}
    assert results["images"]["number"] == len(NAMES)
    assert results["versions"]["tensorflow"] == tf.__version__


def test_false_alarms_are_next_to_the_headline(spotted):
    """Fails if a user takes most of the photographs for repaired ones, because the page is silent on false alarms."""
    page = (spotted[1] / "sheet.html").read_text(encoding="utf-8")
    before_cards = page[: page.index("<figure>")]
    assert "4 of 8 images are called repaired" in before_cards
    assert "False alarms were not measured" in before_cards
    assert "spot_artifacts --model=bright --evaluate=RUN" in before_cards
    measured = {"called_repaired": 0.14, "photographs": 512, "dataset": "folder:x", "split": "all"}
    text = sheet.false_alarms({"path": "bright", "false_alarms": measured})
    assert "called 14.0 % of 512 untouched photographs repaired (folder:x, split all)" in text


def test_overlays(spotted):
    """Fails if two images share an overlay, or it has other proportions or another image than its name says."""
    scores, output = spotted
    paths = {output / score.overlay for score in scores}
    assert len(paths) == len(NAMES)
    assert {path for path in (output / "overlays").rglob("*") if path.is_file()} == paths
    for score in scores:
        with Image.open(output / score.overlay) as both, Image.open(output.parent / "photos" / score.image) as image:
            half = (both.width - 4) // 2
            assert max(half, both.height) == spot.PICTURE_SIZE
            assert half / both.height == pytest.approx(image.width / image.height, rel=0.15)  # a crop is whole pixels
            grey = np.asarray(both.convert("L"), int)
        assert abs(grey[:, : half - 8].mean() - brightness(score.image)) < 3


class Page(html.parser.HTMLParser):
    """Images, text and tags of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.images = []
        self.text = ""
        self.tags = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, text):
        self.text += text


def test_sheet(spotted):
    """Fails if the page is not sorted, its links do not resolve, or a name is not escaped."""
    scores, output = spotted
    page = Page((output / "sheet.html").read_text(encoding="utf-8"))
    links = [urllib.parse.unquote(image["src"]) for image in page.images]
    assert links == [score.overlay for score in scores]
    assert all((output / link).is_file() for link in links)
    assert all(image["loading"] == "lazy" for image in page.images)
    assert "script" not in page.tags
    for name in NAMES:
        assert name in page.text
    places = [page.text.index(name) for name in reversed(NAMES)]
    assert places == sorted(places)
    assert "reconstructions" in page.text  # the limits of the probability


@pytest.fixture(scope="module")
def model(world):
    return saved_model.load(world.features)


@pytest.fixture(scope="module")
def source(world):
    return data.open_source(f"folder:{world.photos}", progress=False)


def test_scores_are_those_of_the_test_view(model, source, tmp_path, monkeypatch):
    """Fails if a score depends on the batch, or differs from the export's on the usual view of its image."""
    monkeypatch.setattr(spot, "BATCH_SIZE", 5)
    scores = {score.image: score for score in spot.spot_images(model, source, tmp_path / "out")}
    view = ImageConfig(image_size=model.image_size, test_crop=model.test_crop)
    expected = model.spot(next(iter(data.test_batches(source, view, batch_size=12))))
    largest = np.max(expected["artifact_map"], axis=(1, 2))
    assert set(scores) == set(source.names)
    for index, name in enumerate(source.names):
        assert scores[name].probability == pytest.approx(float(expected["probability"][index]), abs=TOLERANCE)
        assert scores[name].artifact_max == pytest.approx(float(largest[index]), abs=TOLERANCE)


def test_other_views(model, source, tmp_path):
    """Fails if a larger view or another crop is not used, or an invalid one leaves files."""
    scores = spot.spot_images(model, source, tmp_path / "out", image_size=24, test_crop=1.0)
    assert len(scores) == 12
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["view"] == {"image_size": 24, "test_crop": 1.0}
    for option, value in (("image_size", 15), ("test_crop", 0.0), ("test_crop", 1.5)):
        with pytest.raises(spot.SpottingError, match=option):
            spot.spot_images(model, source, tmp_path / "invalid", **{option: value})
    assert not (tmp_path / "invalid").exists()


def test_replaced_folders(spotted, tmp_path):
    """Fails if a foreign folder or file is deleted, or an earlier output is not replaced."""
    source = data.open_source(f"folder:{spotted[1].parent / 'photos'}", progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(files.OutputError, match="another --output"):
        spot.spot_images(BrightModel(), source, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    ours = tmp_path / "ours"
    spot.spot_images(BrightModel(), source, ours)
    (ours / "overlays" / "photo.jpg").write_text("precious")
    with pytest.raises(files.OutputError, match=r"holds overlays/photo\.jpg, which is no part of an earlier output"):
        spot.spot_images(BrightModel(), source, ours)
    (ours / "overlays" / "photo.jpg").unlink()
    # The overlays of the earlier images are listed in its scores.json.
    fewer = tmp_path / "photos"
    fewer.mkdir()
    first = next(path for path in (spotted[1].parent / "photos").rglob("*") if path.is_file())
    shutil.copy(first, fewer / "only.png")
    spot.spot_images(BrightModel(), data.open_source(f"folder:{fewer}", progress=False), ours)
    assert [path.name for path in (ours / "overlays").rglob("*.jpg")] == ["only.png.jpg"]


def test_images_inside_the_output_are_kept(spotted, tmp_path):
    """Fails if a program deletes the images that it reads."""
    source = data.open_source(f"folder:{spotted[1].parent / 'photos'}", progress=False)
    spot.spot_images(BrightModel(), source, tmp_path / "out")
    photos = tmp_path / "out" / "overlays"
    inside = data.open_source(f"folder:{photos}", progress=False)
    with pytest.raises(files.OutputError, match="is inside the output folder"):
        spot.spot_images(BrightModel(), inside, tmp_path / "out")


def test_a_failure_leaves_nothing(spotted, tmp_path):
    """Fails if an interrupted or failed run leaves a partial folder."""

    class Failing(BrightModel):
        def spot(self, images):
            raise KeyboardInterrupt

    class NotFinite(BrightModel):
        def spot(self, images):
            return {name: value * np.nan for name, value in super().spot(images).items()}

    source = data.open_source(f"folder:{spotted[1].parent / 'photos'}", progress=False)
    for model, error in ((Failing(), KeyboardInterrupt), (NotFinite(), spot.SpottingError)):
        with pytest.raises(error):
            spot.spot_images(model, source, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_long_names():
    """Fails if an overlay's name is too long for a file system, or two long names share one."""
    long = spot.overlay_path("cat/" + "ä" * 124 + ".png")
    assert len(long.rpartition("/")[2].encode()) <= 255
    assert long != spot.overlay_path("cat/" + "ä" * 123 + "b.png")
    assert spot.overlay_path("cat/a.png") == "overlays/cat/a.png.jpg"


def test_the_synthetic_set(tmp_path):
    """Fails if its images have no names."""
    source = data.open_source("synthetic", "test[:3]", progress=False)
    scores = spot.spot_images(BrightModel(), source, tmp_path / "out")
    assert sorted(score.image for score in scores) == [f"synthetic test[{index}]" for index in range(3)]
