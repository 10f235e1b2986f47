"""The binary as a user runs it: one broken file among many, Ctrl-C, wrong usage, both ways to their end."""

import json
import signal

import pytest

from tests.fixtures.runs import run, start
from tests.fixtures.spotting import write_photos

MODULE = "lts.bin.spot_artifacts"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty images, one of them cut off."""
    folder = write_photos(tmp_path_factory.mktemp("photos") / "p", [f"cat/{i}.jpg" for i in range(30)])
    path = folder / "cat" / "17.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return folder


def test_one_broken_file_stops_with_its_name(world, photos, tmp_path):
    done = run(MODULE, f"--model={world.features}", f"--images={photos}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cat/17.jpg is broken" in done.stderr
    assert "--skip_broken_images" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_is_left_out_and_listed(world, photos, tmp_path):
    flags = (f"--model={world.features}", f"--images={photos}", f"--output={tmp_path / 'out'}")
    done = run(MODULE, *flags, "--skip_broken_images")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1 broken images were skipped: cat/17.jpg" in done.stdout
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert found["images"]["broken"] == ["cat/17.jpg"]
    assert len(found["scores"]) == len(list((tmp_path / "out" / "overlays" / "cat").iterdir())) == 29
    assert "cat/17.jpg" in (tmp_path / "out" / "sheet.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_evaluation_to_its_end(world, photos, tmp_path):
    done = run(
        *(MODULE, f"--model={world.features}", f"--evaluate={world.gan}", f"--dataset=folder:{photos}"),
        *("--skip_broken_images", "--resamples=10", "--keep_probability=0.5", f"--output={tmp_path / 'out'}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "reconstruction or repaired (the task)" in done.stdout
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["protocol"]["keep_probability"] == 0.5
    assert found["images"]["number"] == 29


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_leaves_nothing(world, tmp_path, number, status, word):
    photos = write_photos(tmp_path / "p", [f"{i}.png" for i in range(1500)])
    flags = (f"--model={world.features}", f"--images={photos}", "--image_size=400")  # a minute of work
    process = start(MODULE, *flags, f"--output={tmp_path / 'o' / 'out'}")
    for line in process.stdout:
        if "1500 images" in line:  # opened; the scores begin
            process.send_signal(number)
            break
    err = process.communicate(timeout=120)[1]
    assert process.returncode == status, err
    assert err == f"spot_artifacts: {word}\n"
    assert not (tmp_path / "o").exists() or list((tmp_path / "o").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        ((), 2, "either --images=FOLDER or --evaluate"),
        (("--images=a", "--evaluate=b"), 2, "either --images=FOLDER or --evaluate"),
        (("--evaluate=b",), 2, "--dataset"),
        (("--images=a", "--seed=3"), 2, "--seed does not go with --images"),
        (("--images=a", "--dataset=synthetic"), 2, "--dataset does not go"),
        (("--evaluate=b", "--dataset=synthetic", "--test_crop=1"), 2, "--test_crop does not go with --evaluate"),
        (("--images=.",), 2, "lies in --images"),
        (("--images=a", "--test_crop=2"), 2, "test_crop"),
        (("--images=a",), 1, "not an exported model"),
    ],
)
def test_bad_input_is_one_line(flags, status, words, tmp_path):
    output = "out" if "--images=." in flags else tmp_path / "out"
    done = run(MODULE, "--model=/no/such", f"--output={output}", *flags)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_one_line(world, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run(MODULE, f"--model={world.features}", f"--images={tmp_path / 'empty'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert "holds no images" in done.stderr
    assert done.stderr.count("\n") == 1
