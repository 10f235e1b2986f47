"""The binary as a user runs it."""

import json
import signal

import pytest

from tests.fixtures.runs import run, start
from tests.fixtures.spotting import write_photos

MODULE = "lts.bin.spot_artifacts"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty images, one of them truncated."""
    folder = write_photos(tmp_path_factory.mktemp("photos") / "p", [f"cat/{i}.jpg" for i in range(30)])
    path = folder / "cat" / "17.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return folder


@pytest.mark.slow
def test_a_broken_file(world, photos, tmp_path):
    """Fails if a broken file is not named in one line, or the output is partial."""
    done = run(MODULE, f"--model={world.features}", f"--images={photos}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cat/17.jpg is broken" in done.stderr
    assert "--skip_broken_images" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_skipped(world, photos, tmp_path):
    """Fails if --skip_broken_images stops, or a skipped file is not listed."""
    flags = (f"--model={world.features}", f"--images={photos}", f"--output={tmp_path / 'out'}")
    done = run(MODULE, *flags, "--skip_broken_images")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1 broken images were skipped: cat/17.jpg" in done.stdout
    results = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert results["images"]["broken"] == ["cat/17.jpg"]
    assert len(results["scores"]) == len(list((tmp_path / "out" / "overlays" / "cat").iterdir())) == 29
    assert "cat/17.jpg" in (tmp_path / "out" / "sheet.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_evaluation(world, photos, tmp_path):
    """Fails if --evaluate does not print the figures, or ignores a flag."""
    done = run(
        *(MODULE, f"--model={world.features}", f"--evaluate={world.gan}", f"--dataset=folder:{photos}"),
        *("--skip_broken_images", "--resamples=10", "--keep_probability=0.5", f"--output={tmp_path / 'out'}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "reconstruction or repaired (the task)" in done.stdout
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert results["protocol"]["keep_probability"] == 0.5
    assert results["images"]["number"] == 29


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_a_signal(world, tmp_path, number, status, word):
    """Fails if a signal leaves a partial output or a traceback."""
    photos = write_photos(tmp_path / "p", [f"{i}.png" for i in range(1500)])
    flags = (f"--model={world.features}", f"--images={photos}", "--image_size=400")  # a minute of work
    process = start(MODULE, *flags, f"--output={tmp_path / 'o' / 'out'}")
    for line in process.stdout:
        if "1500 images" in line:  # opened; the scores begin
            process.send_signal(number)
            break
    err = process.communicate(timeout=300)[1]
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
        (("--images=.",), 2, "would be spotted the next time"),
        (("--images=a", "--test_crop=2"), 2, "test_crop"),
        pytest.param(("--images=a",), 1, "not an exported model", marks=pytest.mark.slow),
    ],
)
def test_invalid_flags(flags, status, words, tmp_path):
    """Fails if they are not one line with the right exit status."""
    output = "out" if "--images=." in flags else tmp_path / "out"
    done = run(MODULE, "--model=/no/such", f"--output={output}", *flags)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_empty_folder(world, tmp_path):
    """Fails if it is not one line."""
    (tmp_path / "empty").mkdir()
    done = run(MODULE, f"--model={world.features}", f"--images={tmp_path / 'empty'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert "holds no images" in done.stderr
    assert done.stderr.count("\n") == 1
