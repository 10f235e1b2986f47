"""8-bit features in a linear probe."""

import numpy as np
import pytest
import tensorflow as tf

import lts
from experiments.probing import linear
from experiments.probing.features import extract
from experiments.probing.protocols import Protocol
from lts import data
from lts.config import ImageConfig
from lts.export import saved_model
from tests.fixtures.exports import small_discriminator

DIMENSIONS = 600


@pytest.mark.slow
def test_accuracy_of_int8_features(tmp_path):
    """Fails if a linear probe on the 8-bit file is worse than one on the SavedModel, on the same images."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is of the extra test")
    discriminator, description = small_discriminator("batch_norm")
    train = data.open_source("synthetic", "train", role="features", progress=False)
    test = data.open_source("synthetic", "test[:500]", role="features", progress=False)
    image = ImageConfig(image_size=description["image_size"])
    train_batches = list(data.test_batches(train, image, batch_size=128))
    test_batches = list(data.test_batches(test, image, batch_size=128))
    calibration = np.concatenate(train_batches)[:128]
    path = tmp_path / "features"
    saved_model.export(discriminator, path, description, ["tflite_int8"], calibration=calibration)
    interpreter = litert.Interpreter(model_path=str(path / "model_int8.tflite"))
    run = interpreter.get_signature_runner("serving_default")

    def int8(images) -> dict[str, tf.Tensor]:
        return {name: tf.constant(values) for name, values in run(images=images.numpy()).items()}

    correct = {}
    for name, model in {"float32": lts.load(path), "int8": int8}.items():
        train_features = extract(model, train_batches, train.num_examples, ["conv_3"], DIMENSIONS)["conv_3"]
        test_features = extract(model, test_batches, test.num_examples, ["conv_3"], DIMENSIONS)["conv_3"]
        splits = [linear.hold_out(train.labels, Protocol())]
        result = linear.linear_probe(train_features, train.labels, test_features, test.labels, "ridge", splits)
        correct[name] = result.correct
    assert correct["float32"].mean() > 0.3  # ten classes
    assert abs(correct["int8"].mean() - correct["float32"].mean()) < 0.03
