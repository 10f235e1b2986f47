"""The quickstart from training to the page, and its resume."""

import json

import pytest

from experiments import quickstart
from lts.config import preset
from tests.fixtures import runs
from tests.fixtures.binaries import call


@pytest.mark.parametrize(("argument", "precision"), [([], "float32"), (["--precision=bfloat16"], "bfloat16")])
def test_precision_reaches_both_stages(tmp_path, monkeypatch, argument, precision):
    """Fails if --precision is lost on its way to a stage."""
    configs = []
    monkeypatch.setattr(quickstart, "run", lambda config, output: configs.append(config) or tmp_path)
    call(quickstart, *argument)
    assert configs == [preset("tiny").replace(precision=precision)]
    assert configs[0].autoencoder_training.precision == configs[0].gan_training.precision == precision


def test_a_wrong_precision_is_one_line(tmp_path):
    """Fails if a wrong flag begins a run or shows a traceback."""
    done = runs.run("experiments.quickstart", f"--output={tmp_path / 'run'}", "--precision=float16")
    assert done.returncode == 2
    (complaint,) = done.stderr.splitlines()
    assert complaint == "quickstart: flag --precision=float16: value should be one of <float32|bfloat16>"
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def _pictures_by_section(page: str) -> dict[str, int]:
    """Return the number of pictures by heading, of the sections that have some."""
    sections = [section.partition("</h2>") for section in page.split("<h2>")[1:]]
    return {heading: text.count("<img") for heading, _, text in sections if "<img" in text}


def test_complete_run_and_resume(tmp_path, monkeypatch, capsys):
    """Fails if a stage, a part of the page or the resume is missing, on a few images and steps."""
    from lts.training import export

    monkeypatch.setattr(export, "STATISTICS_STEPS", 2)
    config = preset("tiny", steps=2, batch_size=4, encoder_filters="4,4,8,8", fc_units=8)
    splits = {"pretrain": "unlabelled[:16]", "train": "train[:100]", "test": "test[:50]"}
    path = quickstart.run(config, tmp_path, splits)
    page = path.read_text(encoding="utf-8")
    results = json.loads((tmp_path / "probe" / "results.json").read_text())
    assert len(results["baselines"]) == 3
    assert "mean of 3 random" in page
    assert _pictures_by_section(page) == {
        "What the features are worth": 1,
        "Which classes are confused": 1,
        "Nearest neighbours": 2 * 10 * 7,  # both sides, a row for each class
        "The images": 1,
        "Damage and repair of test images": 6 * 6,
        "Artifact maps": 2,
        "First-layer filters": 1,
        "Training the autoencoder": 1,
        "Training repair and discriminator": 7,
    }
    assert f"--model={tmp_path / 'features'}" in page
    assert "random weights, seed 3" in page
    assert len((tmp_path / "probe" / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 50
    capsys.readouterr()
    path.unlink()
    assert quickstart.run(config, tmp_path, splits) == path
    assert capsys.readouterr().out.count("done before") == 7
    assert path.exists()


@pytest.mark.slow
def test_features_beat_random_initialisation(tmp_path):
    """Fails if README's quickstart learns no more than chance, with fixed seeds."""
    quickstart.run(preset("tiny"), tmp_path)
    results = json.loads((tmp_path / "probe" / "results.json").read_text())
    for layer in ("conv_3", "conv_4"):
        low, _ = results["difference"][layer]["interval"]
        assert low > 0, (layer, results["difference"][layer])
