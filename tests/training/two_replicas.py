"""Run by test_distribution in a process of its own: two logical CPU devices must be made before TensorFlow starts."""

import json
import pathlib
import sys

import tensorflow as tf

from lts import data, training
from lts.config import preset


def main(folder: pathlib.Path) -> None:
    """Two steps of both stages on one device and on two; prints the metrics of all runs as JSON."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    source = data.open_source("embedded", "unlabelled[:16]", progress=False)
    config = preset(
        "tiny",
        steps=2,
        batch_size=4,
        encoder_widths="4,4,8,8",
        trunk_widths="4,8,8,8,8",
        fc_width=8,
        reconstruct="all",
        average_decay=0.9,
    )
    results, options = {}, training.Options(log_steps=1)
    for name, strategy in (("one", None), ("two", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))):
        for stage in ("autoencoder", "gan"):
            workdir = folder / name / stage
            autoencoder = {"autoencoder": folder / "one" / "autoencoder"} if stage == "gan" else {}
            training.train(config, stage, source, workdir, options=options, strategy=strategy, **autoencoder)
            results[f"{name} {stage}"] = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    print(json.dumps(results))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
