"""The whole chain in a few steps on a few images, and that it goes on where it stopped."""

import json
import subprocess
import sys

import pytest
from absl import flags

from experiments import quickstart
from lts.config import preset


def _config(**overrides):
    return preset("tiny", steps=2, batch_size=4, encoder_filters="4,4,8,8", fc_units=8, **overrides)


@pytest.mark.parametrize(("argument", "precision"), [([], "float32"), (["--precision=bfloat16"], "bfloat16")])
def test_precision_reaches_both_stages(tmp_path, monkeypatch, argument, precision):
    configs = []
    monkeypatch.setattr(quickstart, "run", lambda config, output: configs.append(config) or tmp_path)
    values = flags.FlagValues()
    quickstart.define_flags(values)
    values(["quickstart", *argument])
    quickstart.main(values)
    assert configs == [preset("tiny").replace(precision=precision)]
    assert configs[0].autoencoder_training.precision == configs[0].gan_training.precision == precision


def test_a_wrong_precision_is_wrong_usage(tmp_path):
    command = [sys.executable, "-m", "experiments.quickstart", f"--output={tmp_path / 'run'}", "--precision=float16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (complaint,) = done.stderr.splitlines()
    assert complaint == "quickstart: precision must be float32 | bfloat16. Received: precision='float16'"
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_the_whole_chain(tmp_path, monkeypatch, capsys):
    from lts.training import export

    monkeypatch.setattr(export, "STATISTICS_STEPS", 2)
    splits = {"pretrain": "unlabelled[:16]", "train": "train[:100]", "test": "test[:50]"}
    path = quickstart.run(_config(), tmp_path, splits)
    page = path.read_text(encoding="utf-8")
    results = json.loads((tmp_path / "probe" / "results.json").read_text())
    assert len(results["baselines"]) == 3
    assert "mean of 3 random" in page
    assert page.count("<img") == 8
    assert "random weights, seed 3" in page
    assert len((tmp_path / "probe" / "tensorboard" / "metadata.tsv").read_text().splitlines()) == 50
    capsys.readouterr()
    path.unlink()
    assert quickstart.run(_config(), tmp_path, splits) == path
    assert capsys.readouterr().out.count("done before") == 7
    assert path.exists()


@pytest.mark.slow
def test_features_beat_random_initialisation(tmp_path):
    """The quickstart as README runs it: what the features learn must be more than chance shows, with fixed seeds."""
    quickstart.run(preset("tiny"), tmp_path)
    results = json.loads((tmp_path / "probe" / "results.json").read_text())
    for layer in ("conv_3", "conv_4"):
        low, _ = results["difference"][layer]["interval"]
        assert low > 0, (layer, results["difference"][layer])
