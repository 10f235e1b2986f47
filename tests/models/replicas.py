"""Run in a process of its own by test_replicas.py: one device against two and four logical ones; prints JSON.

    python -m tests.models.replicas MODEL REPLICAS [--FIELD=VALUE ...]

Logical devices have to be configured before TensorFlow starts, and a process makes one MirroredStrategy.
"""

import json
import sys

import numpy as np
import tensorflow as tf

REPLICAS = int(sys.argv[2])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * REPLICAS
)

from tests.models import helpers  # noqa: E402

BATCH, STEPS = 8, 20
MAKERS = {"autoencoder": helpers.autoencoder, "gan": helpers.gan}
OPTIONS = {"autoencoder": {"average_decay": 0.9}, "gan": {"average_decay": 0.9, "clip_norm": 0.1}}  # always clipped


def batch(step: int) -> tf.Tensor:
    """The global batch of a step."""
    return helpers.images(BATCH, seed=step)


def state(model) -> dict:
    """Path to value of all variables: weights, statistics, slots and averages of both optimizers."""
    optimizers = [model.optimizer, getattr(model, "g_optimizer", None)]
    variables = [*model.variables, *(v for optimizer in optimizers if optimizer for v in optimizer.variables)]
    return {f"{index} {v.path.partition(chr(47))[2]}": v.numpy() for index, v in enumerate(variables)}


def gradients(model, images) -> list:
    """Raw gradients of a replica's share of the loss: of both players, or of the autoencoder."""
    if hasattr(model, "draw"):
        keep, dropout = model.draw(0, tf.shape(images)[0])
        _, _, disc, repair = model.gradients(images, keep, dropout)
        return [*disc, *repair]
    with tf.GradientTape() as tape:
        share = model.compute_losses(images)["loss"] / tf.distribute.get_strategy().num_replicas_in_sync
    return tape.gradient(share, [v.value for v in model.trainable_variables])


def record(model, strategy) -> dict:
    """Gradients at the start, metrics and state after one step and after all, random numbers of step 0."""
    rows, results = BATCH // REPLICAS if strategy else BATCH, {}

    def own(images):
        if strategy is None:
            return images
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
        return images[first : first + rows]

    def everywhere(function):
        """`function` on all replicas; what they return, as a list for each value."""
        if strategy is None:
            return [[part] for part in function()]
        return [strategy.experimental_local_results(part) for part in strategy.run(function)]

    start = state(model)
    found = tf.function(lambda: everywhere(lambda: gradients(model, own(batch(0)))))()
    results["gradients"] = {str(index): sum(part.numpy() for part in parts) for index, parts in enumerate(found)}
    for variable, value in zip(model.variables, list(start.values()), strict=False):
        variable.assign(value)  # the forward pass has moved the statistics
    if hasattr(model, "draw"):
        keep, dropout = tf.function(lambda: everywhere(lambda: model.draw(0, rows)))()
        halves = [np.split(part.numpy(), 2) for part in dropout]  # each replica's: real, fake
        results["keep"] = np.concatenate([part.numpy() for part in keep])
        results["dropout"] = np.concatenate([half[kind] for kind in range(2) for half in halves])

    @tf.function
    def step(images):
        return dict(zip(model.METRICS, everywhere(lambda: list(model.train_step(own(images)).values())), strict=True))

    for count in range(STEPS):
        model.means.reset_state()
        logs = {name: [float(part) for part in parts] for name, parts in step(batch(count)).items()}
        assert all(len(set(parts)) == 1 for parts in logs.values()), "replicas report different metrics"
        if count in (0, STEPS - 1):
            results[f"metrics {count + 1}"] = {name: parts[0] for name, parts in logs.items()}
            results[f"state {count + 1}"] = state(model)
    return results


def gaps(one: dict, other: dict) -> dict:
    """Name to the largest difference, relative to the largest entry of one."""
    return {
        name: float(np.abs(np.subtract(other[name], value)).max() / max(np.abs(value).max(), 1e-7))
        for name, value in one.items()
    }


if __name__ == "__main__":
    make = MAKERS[sys.argv[1]]
    options = {**OPTIONS[sys.argv[1]], **dict(argument.lstrip("-").split("=") for argument in sys.argv[3:])}
    one = record(make(**options), None)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(REPLICAS)])
    with strategy.scope():
        model = make(**options)
    many = record(model, strategy)
    arrays = ("keep", "dropout")
    result = {name: bool(np.array_equal(one[name], many[name])) for name in arrays if name in one}
    print(json.dumps({**result, **{name: gaps(one[name], many[name]) for name in one if name not in arrays}}))
