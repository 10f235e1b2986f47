"""The authors' own training graph on TensorFlow 2, to time its steps.

The code (github sjenni/LearningToSpotArtifacts) was written for TensorFlow 1.12 and Python 2. This module gives it the
names that it imports. The packages `tf_slim` and `tf_keras` must be installed.
"""

import importlib
import sys
import types
from collections.abc import Callable

import numpy as np

SIZE = 96  # pixels per side
LEARNING_RATE = 3e-4
BETA_1 = 0.5
EPSILON = 1e-5
AVERAGE_DECAY = 0.9999


class _Whole(int):
    """Number of channels whose half is whole, as in Python 2."""

    __truediv__ = int.__floordiv__


class _Batch:
    """Stands for the queue of batches: the same images at every step."""

    def __init__(self, images):
        self._images = images

    def dequeue(self):
        return self._images


def _import_tensorflow_1(code: str):
    """Make `import tensorflow` give version 1 with the removed `contrib`; put the authors' modules on the path."""
    import tensorflow
    import tf_slim
    from tensorflow.python.framework import indexed_slices, ops
    from tensorflow.python.layers import normalization

    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()
    # Names that `tf_slim` 1.1 still expects.
    ops.IndexedSlices = indexed_slices.IndexedSlices
    normalization.normalization = importlib.import_module("tf_keras.src.legacy_tf_layers.normalization")
    tf_slim.variable_scope = tf
    contrib = types.ModuleType("tensorflow.contrib")
    contrib.slim = contrib.layers = tf_slim
    contrib.training = tf_slim.training
    tf.contrib = contrib
    sys.modules.update({"tensorflow": tf, "tensorflow.contrib": contrib, "tensorflow.contrib.slim": tf_slim})
    # They import each other without their package.
    sys.path[:0] = [code, f"{code}/models", f"{code}/train"]
    layers = importlib.import_module("layers")
    for name in ("conv_group", "conv_group_nobn"):
        setattr(layers, name, _with_whole_halves(getattr(layers, name)))
    return tf


def _with_whole_halves(conv_group: Callable) -> Callable:
    return lambda net, channels, **options: conv_group(net, _Whole(channels), **options)


def build_step(code: str, stage: str, batch_size: int) -> Callable[[], None]:
    """Return a call of one step of the authors' training on one tower.

    Args:
      code: folder with their code.
      stage: "autoencoder" or "gan".
      batch_size: images; at least 16, which their pictures need.
    """
    tf = _import_tensorflow_1(code)
    autoencoder = importlib.import_module("AutoEncoder").AutoEncoder(4, batch_size, [SIZE, SIZE, 3])
    if stage == "autoencoder":
        trainer_class = importlib.import_module("AETrainer").AETrainer
        model = autoencoder
    else:
        trainer_class = importlib.import_module("SDNetTrainer").SDNetTrainer
        model = importlib.import_module("SpotNet").SNet(autoencoder, batch_size, [SIZE, SIZE, 3], disc_pad="SAME")
    # Without its constructor, which opens a data set.
    trainer = trainer_class.__new__(trainer_class)
    trainer.model = model
    trainer.weights_summary = True
    images = tf.constant(np.random.default_rng(0).uniform(-1, 1, [batch_size, SIZE, SIZE, 3]).astype("float32"))
    step = tf.train.get_or_create_global_step()
    optimizer = tf.train.AdamOptimizer(LEARNING_RATE, beta1=BETA_1, epsilon=EPSILON)
    with tf.variable_scope(tf.get_variable_scope()), tf.name_scope("tower_0") as scope:
        loss, gradients, _ = trainer.build_model(_Batch(images), 0, optimizer, scope)
    update = optimizer.apply_gradients(trainer.average_gradients([gradients]), global_step=step)
    averages = tf.train.ExponentialMovingAverage(AVERAGE_DECAY, step).apply(tf.trainable_variables())
    with tf.control_dependencies([update, averages]):
        train = tf.identity(loss)
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    return lambda: session.run(train)
