"""Run by test_distribution in a process of its own: two logical CPU devices must be made before TensorFlow starts."""

import json
import pathlib
import sys

import keras
import tensorflow as tf

from lts import data, training
from lts.config import preset
from lts.training.train import build_model

CONFIG = preset(
    "tiny",
    steps=2,
    batch_size=4,
    encoder_widths="4,4,8,8",
    trunk_widths="4,8,8,8,8",
    fc_width=8,
    average_decay=0.9,
)


def fit(stage: str, source: data.Source, strategy: tf.distribute.Strategy | None) -> dict:
    """History of Keras' own `fit`: two epochs of two steps."""
    keras.utils.set_random_seed(1)
    batches = data.training_batches(source, CONFIG.image, batch_size=4, seed=1, steps=2)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = build_model(CONFIG, stage, 4)
    return model.fit(batches, epochs=2, verbose=0).history


def main(folder: pathlib.Path) -> None:
    """Two steps of both stages on one device and on two, by `train` and by `fit`; prints all metrics as JSON."""
    source = data.open_source("embedded", "unlabelled[:16]", progress=False)
    results, options = {}, training.Options(log_steps=1)
    for name, strategy in (("one", None), ("two", training.build_strategy("2"))):
        for stage in ("autoencoder", "gan"):
            workdir = folder / name / stage
            autoencoder = {"autoencoder": folder / "one" / "autoencoder"} if stage == "gan" else {}
            here = strategy or tf.distribute.get_strategy()
            training.train(CONFIG, stage, source, workdir, options=options, strategy=here, **autoencoder)
            results[f"{name} {stage}"] = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
            results[f"{name} fit {stage}"] = fit(stage, source, strategy)
    print(json.dumps(results))


if __name__ == "__main__":
    training.build_strategy("2")  # before TensorFlow starts
    main(pathlib.Path(sys.argv[1]))
