"""Flags of the probes, before TensorFlow is imported."""

import pytest

from experiments import few_shot, finetune, knn_probe, linear_probe, voc_classification
from lts.bin import common
from lts.export.choices import ExportError, LayerError
from tests.fixtures.binaries import call


@pytest.fixture(autouse=True)
def _no_tensorflow(monkeypatch):
    def fail():
        raise AssertionError("TensorFlow is imported")

    monkeypatch.setattr(common, "import_tensorflow", fail)


@pytest.mark.parametrize("program", [linear_probe, knn_probe, few_shot])
def test_unknown_layers(program, tiny_export, tmp_path):
    """Fails if a wrong layer is answered after seconds of starting TensorFlow, or after the images are read."""
    flags = (f"--model={tiny_export}", "--dataset=synthetic", f"--output={tmp_path / 'out'}", "--layers=conv_1,conv_9")
    with pytest.raises(LayerError, match=r"Received: layers=conv_9. Choose from conv_1, .*conv_5\.") as error:
        call(program, *flags)
    assert error.value.exit_status == 2
    assert not (tmp_path / "out").exists()


def test_an_export_that_is_given_twice(tiny_export, tmp_path, capsys):
    """Fails if a model is compared with itself, or a baseline counts twice, without a word."""
    flags = (f"--model={tiny_export}", "--dataset=synthetic", f"--output={tmp_path}", "--layers=conv_9")
    for baseline, warnings in ((f"{tiny_export}/../{tiny_export.name}", 1), ("", 0)):
        with pytest.raises(LayerError):
            call(knn_probe, *flags, *([f"--baseline={baseline}"] if baseline else []))
        assert capsys.readouterr().err.count("the same export is given twice") == warnings


@pytest.mark.parametrize("program", [linear_probe, finetune, voc_classification])
def test_models_that_are_none(program, tmp_path, tiny_export):
    """Fails if a wrong baseline is answered after TensorFlow was started."""
    flags = (f"--model={tiny_export}", f"--baseline={tmp_path}", "--dataset=synthetic", f"--output={tmp_path / 'out'}")
    with pytest.raises(ExportError, match="is not an exported model"):
        call(program, *flags)
