"""Further formats of an export: safetensors, TFLite and ONNX.

This project. `backbone.safetensors` holds the weights of the feature layers by name, as `backbone.npz` does. The others
are converted from the SavedModel:

    model.tflite, model_float16.tflite, model_int8.tflite
                                         TFLite (LiteRT) with the signatures `serving_default` and `spot`
    features.onnx, spot.onnx             ONNX, one file per signature

Inputs and outputs have the SavedModel's names. Images that are too small are not rejected. On 64 photographs the files
of preset `small` differ from the SavedModel by at most 1.7e-6 of an output's largest value, float16 weights by 1.7e-3.
With 8-bit integers the features of 1,996 photographs change by 1.4 (conv_1) to 3.4 % (conv_5) of their norm.
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from lts.export.choices import CALIBRATED
from lts.utils.patterns import plain_path

ONNX_OPSET = 17
CALIBRATION_BATCH = 32  # images
IN_PLACE = ["ADD", "DIV", "MUL", "SUB"]  # operations that stay in float32 in `tflite_int8`
SIGNATURES = {"serving_default": "features.onnx", "spot": "spot.onnx"}


def write_safetensors(folder: pathlib.Path, weights: Mapping[str, np.ndarray], fingerprint: str) -> None:
    """Write weights as safetensors.

    Args:
      folder: of the export.
      weights: arrays by name.
      fingerprint: of the export, for the metadata of the file.
    """
    import safetensors.numpy  # comes with the extra `safetensors`

    metadata = {"format": "tf", "producer": "lts", "fingerprint": fingerprint}
    safetensors.numpy.save_file(dict(weights), folder / "backbone.safetensors", metadata)


def convert(folder: pathlib.Path, formats: Iterable[str], calibration: np.ndarray | None = None) -> None:
    """Write further formats next to a SavedModel.

    Args:
      folder: of the SavedModel.
      formats: of `lts.export.choices.FORMATS`.
      calibration: uint8 [images, height, width, 3], for `tflite_int8`.
    """
    if set(formats) <= {"saved_model", "safetensors"}:
        return
    with plain_path(folder) as plain:
        _convert(plain, formats, calibration)


def _convert(folder: pathlib.Path, formats: Iterable[str], calibration: np.ndarray | None) -> None:
    """Write the formats next to a SavedModel whose path is no pattern."""
    module = tf.saved_model.load(str(folder))
    signatures = [name for name in SIGNATURES if name in module.signatures]  # `spot` may be missing
    if "tflite" in formats:
        (folder / "model.tflite").write_bytes(_tflite(folder, signatures))
    if "tflite_float16" in formats:
        (folder / "model_float16.tflite").write_bytes(_tflite(folder, signatures, float16=True))
    if calibration is not None and CALIBRATED in formats:
        (folder / "model_int8.tflite").write_bytes(_tflite_int8(folder, signatures, calibration))
    if "onnx" in formats:
        for name in signatures:
            (folder / SIGNATURES[name]).write_bytes(_onnx(module.signatures[name]))


def _tflite(folder: pathlib.Path, signatures: list[str], float16: bool = False) -> bytes:
    """Return the signatures as a TFLite file."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
    # Weights in float16 halve the file; activations stay float32.
    if float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _tflite_int8(folder: pathlib.Path, signatures: list[str], calibration: np.ndarray) -> bytes:
    """Return the signatures as a TFLite file whose convolutions compute with integers of 8 bits."""

    def examples() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for name in signatures:
            for first in range(0, len(calibration), CALIBRATION_BATCH):
                yield name, {"images": calibration[first : first + CALIBRATION_BATCH]}

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    # NB: in TensorFlow 2.21 an operation on single elements works in place, and the calibration measures its input
    # again afterwards. Images in [-1, 1] that become [0, 255] get the range of both, and 8 bits keep nothing of them.
    # Such operations therefore stay in float32. The converter has no option for this; its debugger has.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=IN_PLACE)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=examples, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()


def _onnx(signature) -> bytes:
    """Return one signature as an ONNX file."""
    import tf2onnx  # comes with the extra `onnx`

    inputs = [tf.TensorSpec([None, None, None, 3], tf.uint8, "images")]  # any batch, height and width
    function = tf.function(lambda images: signature(images=images), input_signature=inputs)
    model, _ = tf2onnx.convert.from_function(function, input_signature=inputs, opset=ONNX_OPSET)
    return model.SerializeToString()
