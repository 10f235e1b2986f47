"""Every HTML page that the program writes, opened in a browser."""

import pytest

from experiments import neighbours, quickstart, shortcuts
from lts.bin import spot_artifacts
from lts.config import preset
from tests.fixtures import browser
from tests.fixtures.binaries import call
from tests.fixtures.spotting import write_photos

WIDTHS = (400, 1400)  # pixels: a telephone held upright, a desktop
SMALLEST_TEXT = 12  # pixels
SMALLEST_DRAWN = 0.85  # of the full size of a figure, in which most text has 13 pixels
IMAGES = 12
LONG_NAME = "a_photograph_with_a_very_long_name_without_any_space_in_it_" * 3 + ".png"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Folder with the pages of a run of a few steps."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        from lts.training import export

        patch.setattr(export, "STATISTICS_STEPS", 2)
        config = preset("tiny", steps=2, batch_size=4, encoder_filters="4,4,8,8", fc_units=8)
        splits = {"pretrain": "unlabelled[:16]", "train": "train[:100]", "test": "test[:50]"}
        quickstart.run(config, folder / "quickstart", splits)
        model = f"--model={folder / 'quickstart' / 'features'}"
        run = f"--evaluate={folder / 'quickstart' / 'gan'}"
        names = [LONG_NAME, *(f"{number}.png" for number in range(IMAGES))]
        photos = write_photos(folder / "photos", names)
        images = "--dataset=synthetic"
        call(neighbours, model, f"--dataset=folder:{photos}", f"--output={folder / 'neighbours'}", "--shown=3")
        call(spot_artifacts, model, f"--images={photos}", f"--output={folder / 'spotted'}")
        call(spot_artifacts, model, run, images, "--split=test[:12]", f"--output={folder / 'evaluation'}")
        quick = (
            "--max_images=12",
            "--occlusion_images=4",
            "--resamples=10",
            "--sigmas=1",
            "--qualities=50",
            "--factors=2",
        )
        call(shortcuts, model, run, images, "--split=test", f"--output={folder / 'shortcuts'}", *quick)
    return folder


def test_pages_are_readable_on_narrow_and_wide_screens(pages, tmp_path):
    """Fails if a picture is missing, the console complains, a page scrolls sideways, or text is too small to read."""
    paths = sorted(pages.rglob("*.html"))
    assert [path.name for path in paths] == [
        "evaluation.html",
        "neighbours.html",
        "report.html",
        "results.html",
        "sheet.html",
    ]
    with browser.running(tmp_path) as page:
        for path in paths:
            for width in WIDTHS:
                measured = page.open(path, width)
                place = (path.name, width, measured)
                assert measured["complaints"] == [], place
                assert measured["images"] > 0, place
                assert measured["broken"] == measured["unnamed"] == [], place
                assert measured["width"] <= width, place
                assert measured["smallest_text"] >= SMALLEST_TEXT, place
                assert min(measured["drawn"], default=1) >= SMALLEST_DRAWN, place
                assert measured["tiny"] == [], place
