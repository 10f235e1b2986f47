"""The exported model in other formats, made from the SavedModel (ours).

model.tflite, model_float16.tflite   TFLite with the signatures `serving_default` and `spot`
features.onnx, spot.onnx             ONNX, a file for each of them

Like the SavedModel they take uint8 images [B, H, W, 3] and name their outputs; images that are too small are not
refused.
"""

import importlib.util
import pathlib
from collections.abc import Iterable

import tensorflow as tf

from lts.utils.errors import FormatError

FORMATS = ("saved_model", "tflite", "tflite_float16", "onnx")
ONNX_OPSET = 17
SIGNATURES = {"serving_default": "features.onnx", "spot": "spot.onnx"}


def check(formats: Iterable[str]) -> None:
    """Raises `FormatError` unless all of `formats` are known and their packages installed."""
    for name in formats:
        if name not in FORMATS:
            raise FormatError(f"formats must be of {', '.join(FORMATS)}. Received: {name!r}")
    missing = [name for name in ("onnx", "tf2onnx") if "onnx" in formats and importlib.util.find_spec(name) is None]
    if missing:
        raise FormatError(f"the format onnx needs the package {missing[0]}: pip install 'lts[onnx]'")


def convert(folder: pathlib.Path, formats: Iterable[str]) -> None:
    """Writes further formats into the folder of a SavedModel.

    Args:
      folder: of the SavedModel.
      formats: of `FORMATS`, see `check`; "saved_model" is there already.
    """
    if set(formats) <= {"saved_model"}:
        return
    module = tf.saved_model.load(str(folder))
    names = [name for name in SIGNATURES if name in module.signatures]
    for name, half in (("tflite", False), ("tflite_float16", True)):
        if name in formats:
            path = folder / ("model_float16.tflite" if half else "model.tflite")
            path.write_bytes(_tflite(folder, names, half))
    if "onnx" in formats:
        for name in names:
            (folder / SIGNATURES[name]).write_bytes(_onnx(module.signatures[name]))


def _tflite(folder: pathlib.Path, signatures: list[str], half: bool) -> bytes:
    """The signatures of a SavedModel as one TFLite file; `half` keeps weights in float16."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _onnx(signature) -> bytes:
    """One signature as an ONNX file."""
    import tf2onnx  # of the extra `onnx`

    takes = [tf.TensorSpec([None, None, None, 3], tf.uint8, "images")]
    function = tf.function(lambda images: signature(images=images), input_signature=takes)
    model, _ = tf2onnx.convert.from_function(function, input_signature=takes, opset=ONNX_OPSET)
    return model.SerializeToString()
