"""Safetensors, TFLite and ONNX files against the SavedModel, each in its own runtime."""

import numpy as np
import pytest
import tensorflow as tf

import lts
from lts import data
from lts.export import formats as export_formats
from lts.export import saved_model
from lts.export.choices import FORMATS
from lts.utils.errors import FormatError
from tests.fixtures import rounding
from tests.fixtures.exports import small_discriminator

SHAPES = [(56, 72), pytest.param((48, 48), marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=["lrn", pytest.param("batch_norm", marks=pytest.mark.slow)])
def model(request, tmp_path_factory):
    """A loaded export with files of all formats."""
    pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    discriminator, description = small_discriminator(request.param)
    path = tmp_path_factory.mktemp("export") / "features"
    formats = [name for name in FORMATS if name != "tflite_int8"]
    saved_model.export(discriminator, path, description, formats)
    return lts.load(path)


def synthetic_images(height, width):
    """Return images of the synthetic set, repeated and cut to a size: uint8 [3, height, width, 3]."""
    source = data.open_source("synthetic", "test[:3]", progress=False)
    images = np.stack([source.read(index).numpy() for index in range(3)])
    return np.tile(images, (1, 2, 2, 1))[:, :height, :width]


def allowed(model, images) -> float:
    """Return the allowed difference of two runtimes, by the backbone in Keras on nudged images."""
    return rounding.allowed_for(model.keras_model(), images.astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("signature", ["serving_default", "spot"])
@pytest.mark.parametrize("file", ["model.tflite", "model_float16.tflite"])
def test_tflite(model, shape, signature, file):
    """Fails if batch, height or width are fixed in the file, or its outputs differ from the SavedModel's."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is of the extra test")
    interpreter = litert.Interpreter(model_path=str(model.path / file))
    images = synthetic_images(*shape)
    outputs = interpreter.get_signature_runner(signature)(images=images)
    expected = model.module.signatures[signature](images=tf.constant(images))
    half_precision = 10 * 2**-11 if "float16" in file else 0  # rounding of the weights of ten layers
    assert rounding.largest_difference(expected, outputs) <= max(allowed(model, images), half_precision)


@pytest.mark.parametrize("backbone_norm", ["batch_norm", pytest.param("lrn", marks=pytest.mark.slow)])
def test_int8(backbone_norm, tmp_path):
    """Fails if the scaling of the images or a layer loses its values, a size is fixed, or nothing is an integer."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is of the extra test")
    discriminator, description = small_discriminator(backbone_norm)
    path = tmp_path / "features"
    with pytest.raises(FormatError, match="the format tflite_int8 needs images"):
        saved_model.export(discriminator, path, description, ["tflite_int8"])
    images = synthetic_images(56, 72)
    saved_model.export(discriminator, path, description, ["tflite_int8"], calibration=images)
    interpreter = litert.Interpreter(model_path=str(path / "model_int8.tflite"))
    for signature in export_formats.SIGNATURES:
        outputs = interpreter.get_signature_runner(signature)(images=images)
        expected = tf.saved_model.load(str(path)).signatures[signature](images=tf.constant(images))
        assert rounding.largest_difference(expected, outputs) < 0.1
    assert any(detail["dtype"] == np.int8 for detail in interpreter.get_tensor_details())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("signature", "file"), export_formats.SIGNATURES.items())
def test_onnx(model, shape, signature, file):
    """Fails if a size is fixed, outputs differ from the SavedModel's, or inputs and outputs have other names."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is of the extra test")
    session = runtime.InferenceSession(str(model.path / file))
    images = synthetic_images(*shape)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"images": images}), strict=True))
    expected = model.module.signatures[signature](images=tf.constant(images))
    assert rounding.largest_difference(expected, outputs) <= allowed(model, images)


def test_opset(model):
    """Fails if the file has another opset than the documents state."""
    onnx = pytest.importorskip("onnx")
    opsets = {entry.domain: entry.version for entry in onnx.load(model.path / "features.onnx").opset_import}
    assert opsets[""] == export_formats.ONNX_OPSET


def test_safetensors(model):
    """Fails if names, shapes or values differ from backbone.npz, or the file does not name the export."""
    safetensors = pytest.importorskip("safetensors", reason="the extra safetensors is not installed")
    with (
        safetensors.safe_open(model.path / "backbone.safetensors", "np") as stored,
        np.load(model.path / saved_model.WEIGHTS) as expected,
    ):
        assert stored.metadata()["fingerprint"] == model.fingerprint
        assert sorted(stored.keys()) == sorted(expected.files)
        for name in expected.files:
            np.testing.assert_array_equal(stored.get_tensor(name), expected[name])


def test_float16_is_smaller(model):
    """Fails if weights are not stored in float16: two bytes per weight are saved at most."""
    saved = (model.path / "model.tflite").stat().st_size - (model.path / "model_float16.tflite").stat().st_size
    weights = sum(int(tf.size(variable)) for variable in model.module.signatures["spot"].variables)
    assert weights < saved <= 2 * weights


def test_impossible_formats(tmp_path, monkeypatch):
    """Fails if an unknown format or a missing package is noticed after something was written."""
    discriminator, description = small_discriminator("lrn")
    with pytest.raises(FormatError, match="Received: formats='coreml'"):
        saved_model.export(discriminator, tmp_path / "model", description, ("coreml",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("onnx", "safetensors"):
        with pytest.raises(FormatError, match=rf"pip install 'lts\[{name}\]'"):
            saved_model.export(discriminator, tmp_path / "model", description, (name,))
    assert not list(tmp_path.iterdir())
