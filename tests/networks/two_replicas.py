"""Run by test_layers in a process of its own: batch norm on two logical devices; prints JSON."""

import json

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

from lts.networks.layers import BatchNorm  # noqa: E402


def outputs(statistics: str, strategy: tf.distribute.Strategy, images: np.ndarray) -> dict:
    """Both replicas' outputs, each on its half, and the moving averages after the step."""
    with strategy.scope():
        layer = BatchNorm(statistics=statistics)
        layer.build((None, None, None, images.shape[-1]))

    def half():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * (len(images) // 2)
        return layer(tf.constant(images)[first : first + len(images) // 2], training=True)

    parts = strategy.experimental_local_results(tf.function(lambda: strategy.run(half))())
    moving = {"mean": layer.moving_mean.numpy().tolist(), "variance": layer.moving_variance.numpy().tolist()}
    return {"outputs": np.concatenate([part.numpy() for part in parts]).tolist(), **moving}


if __name__ == "__main__":
    values = np.random.RandomState(0).normal(3, 2, (6, 4, 4, 5)).astype(np.float32)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps({name: outputs(name, both, values) for name in ("global", "per_replica")}))
