"""TFLite and ONNX: each file, loaded by its own runtime, computes what the SavedModel computes."""

import numpy as np
import pytest
import tensorflow as tf

import lts
from lts import data
from lts.export import formats as export_formats
from lts.export import saved_model
from lts.utils.errors import FormatError
from tests.fixtures.exports import small_discriminator

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
FORMATS = ("saved_model", "tflite", "tflite_float16", "onnx")


@pytest.fixture(scope="module", params=["lrn", "batch_norm"])
def model(request, tmp_path_factory):
    """A loaded export with all formats beside it."""
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    discriminator, description = small_discriminator(request.param)
    path = tmp_path_factory.mktemp("export") / "features"
    saved_model.export(discriminator, path, description, FORMATS)
    return lts.load(path)


def pictures(height, width):
    """Images of the synthetic set cut or repeated to a size, uint8 [3, height, width, 3]."""
    source = data.open_source("synthetic", "test[:3]", progress=False)
    images = np.stack([source.read(index).numpy() for index in range(3)])
    return np.tile(images, (1, 2, 2, 1))[:, :height, :width]


def differences(out, expected) -> list[float]:
    """Largest difference of each output, relative to its largest value."""
    assert set(out) == set(expected)
    return [np.abs(out[name] - value).max() / np.abs(value).max() for name, value in expected.items()]


@pytest.mark.parametrize("shape", [(48, 48), (56, 72)])
@pytest.mark.parametrize("signature", ["serving_default", "spot"])
@pytest.mark.parametrize(("file", "tolerance"), [("model.tflite", 1e-4), ("model_float16.tflite", 5e-3)])
def test_tflite(model, shape, signature, file, tolerance):
    """Hypothesis: batch, height and width stay free, and weights are float32 or, where asked for, float16."""
    interpreter = tf.lite.Interpreter(model_path=str(model.path / file))
    images = pictures(*shape)
    out = interpreter.get_signature_runner(signature)(images=images)
    expected = model.module.signatures[signature](images=tf.constant(images))
    assert max(differences(out, expected)) < tolerance


@pytest.mark.parametrize("shape", [(48, 48), (56, 72)])
@pytest.mark.parametrize(("signature", "file"), export_formats.SIGNATURES.items())
def test_onnx(model, shape, signature, file):
    """As for TFLite; inputs and outputs have the SavedModel's names, and the opset is the one that README states."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is of the extra test")
    session = runtime.InferenceSession(str(model.path / file))
    images = pictures(*shape)
    out = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": images}), strict=True))
    expected = model.module.signatures[signature](images=tf.constant(images))
    assert max(differences(out, expected)) < 1e-4


def test_opset(model):
    onnx = pytest.importorskip("onnx")
    opsets = {entry.domain: entry.version for entry in onnx.load(model.path / "features.onnx").opset_import}
    assert opsets[""] == export_formats.ONNX_OPSET


def test_float16_is_smaller(model):
    """By two bytes a weight at most; the graph itself stays."""
    saved = (model.path / "model.tflite").stat().st_size - (model.path / "model_float16.tflite").stat().st_size
    weights = sum(int(tf.size(variable)) for variable in model.module.signatures["spot"].variables)
    assert weights < saved <= 2 * weights


def test_formats_without_heads(tmp_path):
    """An export without `spot` has no spot.onnx and one signature in TFLite."""
    discriminator, description = small_discriminator("lrn")
    saved_model.export(discriminator, tmp_path / "backbone", {**description, "spot": False}, ("tflite",))
    interpreter = tf.lite.Interpreter(model_path=str(tmp_path / "backbone" / "model.tflite"))
    assert list(interpreter.get_signature_list()) == ["serving_default"]


def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    discriminator, description = small_discriminator("lrn")
    with pytest.raises(FormatError, match="Received: 'coreml'"):
        saved_model.export(discriminator, tmp_path / "model", description, ("coreml",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"pip install 'lts\[onnx\]'"):
        saved_model.export(discriminator, tmp_path / "model", description, ("onnx",))
    assert not list(tmp_path.iterdir())
