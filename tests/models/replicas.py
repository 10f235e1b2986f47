"""Run in a process of its own by test_replicas.py: one device against two logical ones; prints JSON.

Logical devices have to be configured before TensorFlow starts.
"""

import json

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

from tests.models import helpers  # noqa: E402

BATCH = 8


def run_one(model) -> dict:
    """Losses and weights after two steps on the global batch on one device, and step 0's random numbers."""
    step = tf.function(model.train_step)
    draws = [part.numpy() for part in model.draw(0, BATCH)] if hasattr(model, "draw") else []
    logs = [step(helpers.images(BATCH)) for _ in range(2)][-1]
    return {"draws": draws, "logs": {name: float(value) for name, value in logs.items()}, "weights": snapshot(model)}


def run_two(model, strategy) -> dict:
    """The same under a strategy of two replicas, each with half of the batch."""
    results = strategy.experimental_local_results
    rows = BATCH // 2

    def replica_step():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
        return model.train_step(helpers.images(BATCH)[first : first + rows])

    draws = []
    if hasattr(model, "draw"):
        keep, dropout = tf.function(lambda: strategy.run(lambda: model.draw(0, rows)))()
        halves = [np.split(part.numpy(), 2) for part in results(dropout)]  # each replica's: real, fake
        draws = [
            np.concatenate([part.numpy() for part in results(keep)]),
            np.concatenate([half[kind] for kind in range(2) for half in halves]),
        ]
    step = tf.function(lambda: strategy.run(replica_step))
    logs = [step() for _ in range(2)][-1]
    means = {name: float(np.mean([float(part) for part in results(value)])) for name, value in logs.items()}
    return {"draws": draws, "logs": means, "weights": snapshot(model)}


def snapshot(model) -> dict:
    """Path to value of every variable."""
    return {variable.path: variable.numpy() for variable in model.variables}


def compare(make, strategy) -> dict:
    """Differences between one device and two: equal draws, losses absolute, weights relative to their largest."""
    one = run_one(make())
    with strategy.scope():
        model = make()
    two = run_two(model, strategy)
    return {
        "draws": [bool(np.array_equal(a, b)) for a, b in zip(one["draws"], two["draws"], strict=True)],
        "logs": {name: abs(two["logs"][name] - value) for name, value in one["logs"].items()},
        "weights": {
            path: float(np.abs(two["weights"][path] - value).max() / max(np.abs(value).max(), 1e-6))
            for path, value in one["weights"].items()
        },
    }


if __name__ == "__main__":
    two_devices = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # one for all: its collective keys must not repeat
    makers = {"autoencoder": helpers.autoencoder, "gan": lambda: helpers.gan(reconstruct="all")}
    print(json.dumps({name: compare(make, two_devices) for name, make in makers.items()}))
