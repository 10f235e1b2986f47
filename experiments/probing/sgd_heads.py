"""Linear heads on the layers of a frozen backbone, trained together by gradient descent over augmented images.

The backbone is a SavedModel, anyone's with the signatures of `lts.export.saved_model`: its weights never move. All
heads see the same images in the same pass; they share nothing, so each is what it would be if it were trained alone.
"""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from experiments.probing.features import ProbeError, pooled_cells
from experiments.probing.protocols import AdamProtocol, SgdProtocol
from lts import data, training
from lts.export.pooling import adaptive_pool
from lts.training.optimizers import build_optimizer

POOLS = {"average": tf.nn.avg_pool2d, "max": tf.nn.max_pool2d}
HE = 2.6  # 1.3 * 2: TensorFlow 1's variance scaling of a truncated normal


class Head(keras.layers.Layer):
    """One layer's: pooling, batch norm without scale and shift where the protocol has one, a linear map.

    A map [8, 57, 57, 96] is pooled to [8, 10, 10, 96] and becomes logits [8, 1000].

    Args:
      classes: number of logits.
      protocol: says how.
      name: of the layer it stands on.
    """

    def __init__(self, classes: int, protocol: SgdProtocol, name: str):
        super().__init__(name=name)
        self.classes, self.protocol = classes, protocol
        self.window = next(((kernel, padding) for layer, kernel, padding in protocol.windows if layer == name), None)
        if protocol.windows and self.window is None:
            known = ", ".join(layer for layer, _, _ in protocol.windows)
            raise ProbeError(f"protocol {protocol.name} has no pooling for layer {name!r}; it has some for {known}")
        self.norm = None
        if protocol.norm_decay is not None:
            self.norm = keras.layers.BatchNormalization(
                momentum=protocol.norm_decay, epsilon=protocol.norm_epsilon, center=False, scale=False, name="norm"
            )

    def build(self, shape):
        height, width, _ = shape[1:]
        if self.window is not None and self.window[1] == "VALID" and min(height, width) < self.window[0]:
            raise ProbeError(
                f"{self.name} has {height} x {width} cells, fewer than the {self.window[0]} x {self.window[0]} that "
                f"protocol {self.protocol.name} averages: give a larger --image_size"
            )
        pooled = self.pool(tf.zeros([1, *shape[1:]])).shape
        self.dimensions = pooled[1] * pooled[2] * pooled[3]
        if self.norm is not None:
            self.norm.build(pooled)
        initializer = self._initializer()
        self.kernel = self.add_weight(shape=(self.dimensions, self.classes), initializer=initializer, name="kernel")
        self.bias = self.add_weight(shape=(self.classes,), initializer="zeros", name="bias")

    def _initializer(self) -> keras.initializers.Initializer:
        """That of the linear map."""
        if self.protocol.initialiser == "normal":
            return keras.initializers.RandomNormal(stddev=self.protocol.deviation)
        fixed = self.protocol.initialiser == "truncated_normal"
        return keras.initializers.TruncatedNormal(
            stddev=self.protocol.deviation if fixed else (HE / self.dimensions) ** 0.5
        )

    def pool(self, maps):
        """The map [B, h, w, c] with fewer cells."""
        protocol = self.protocol
        if self.window is not None:
            kernel, padding = self.window
            return POOLS[protocol.pool](maps, kernel, kernel, padding)
        if protocol.dimensions is None:
            return maps
        return adaptive_pool(maps, pooled_cells(*maps.shape[1:], protocol.dimensions), protocol.pool)

    def call(self, maps, training=False):
        """Logits [B, classes] of maps [B, h, w, c]."""
        pooled = self.pool(maps)
        if self.norm is not None:
            pooled = self.norm(pooled, training=training)
        return tf.reshape(pooled, [-1, self.dimensions]) @ self.kernel + self.bias

    def decay(self):
        """sum(w ** 2) / 2 of what the protocol's weight decay falls on."""
        weights = [self.kernel, self.bias] if self.protocol.decay_biases else [self.kernel]
        return tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(weight)) for weight in weights])


class Heads(keras.layers.Layer):
    """A head for each layer, and copies of the backbone's moving averages where these move, for checkpoints.

    Args:
      layers: names.
      classes: number of logits.
      protocol: says how.
    """

    def __init__(self, layers: Sequence[str], classes: int, protocol: SgdProtocol, name: str = "network"):
        super().__init__(name=name)
        self.heads = [Head(classes, protocol, layer) for layer in layers]

    def build(self, shapes, statistics: Sequence[tf.Variable] = ()):
        for head in self.heads:
            head.build(shapes[head.name])
            head.built = True
        self.statistics = [
            self.add_weight(
                shape=variable.shape,
                initializer=lambda shape, dtype, value=variable: tf.convert_to_tensor(value),
                trainable=False,
                name=f"statistic_{index}",
            )
            for index, variable in enumerate(statistics)
        ]
        self.built = True

    def call(self, maps, training=False):
        """Layer to logits [B, classes] of a dict of maps."""
        return {head.name: head(maps[head.name], training=training) for head in self.heads}


class SgdProbe(training.TrainableModel):
    """A frozen backbone under its heads, as `lts.training.run` trains a model.

    Args:
      backbone: a loaded SavedModel of its own: with `backbone_training` its moving averages move.
      layers: names of the layers to probe.
      classes: to tell apart.
      protocol: says how.
      steps: of the whole run.
      image_size: pixels a side.
    """

    def __init__(
        self, backbone, layers: Sequence[str], classes: int, protocol: SgdProtocol, steps: int, image_size: int
    ):
        names = [f"{what}_{layer}" for what in ("cross_entropy", "accuracy") for layer in layers]
        super().__init__(("loss", "l2", *names, "gradient_norm"), name="linear_probe")
        self.backbone, self.protocol, self.layer_names = backbone, protocol, tuple(layers)
        self.network = Heads(layers, classes, protocol)
        maps = self._inference(tf.zeros([1, image_size, image_size, 3]))
        self.network.build({layer: values.shape for layer, values in maps.items()}, self.moving)
        self.compile(build_optimizer(protocol, steps, learning_rate(protocol, steps)))
        self.optimizer.build(self.trainable_variables)
        self.built = True

    @functools.cached_property
    def moving(self) -> list[tf.Variable]:
        """The backbone's moving averages; none where they do not move."""
        if not self.protocol.backbone_training:
            return []
        return [variable for variable in self._train_signature.variables if not variable.trainable]

    @property
    def _train_signature(self):
        return self.backbone.module.signatures["train"]

    def _inference(self, images) -> dict:
        """The maps of images [B, H, W, 3] in [-1, 1], batch norm by the moving averages."""
        return self.backbone.features(data.as_bytes(images), layer=self.layer_names)

    def maps(self, images) -> dict:
        """As training sees them: layer to [B, h, w, c] of images in [-1, 1]; moving averages move."""
        if not self.protocol.backbone_training:
            return self._inference(images)
        found = self._train_signature(images=(images + 1.0) * 127.5)
        for copy, variable in zip(self.network.statistics, self.moving, strict=True):
            copy.assign(variable)
        return {layer: found[layer] for layer in self.layer_names}

    def restore_statistics(self) -> None:
        """Gives the backbone the moving averages of a checkpoint."""
        for copy, variable in zip(self.network.statistics, self.moving, strict=True):
            variable.assign(tf.convert_to_tensor(copy))

    def compute_losses(self, batch, training=True) -> dict:
        """Scalars: of each layer `cross_entropy` and `accuracy`, `l2` of all, and `loss`, all terms' sum.

        Args:
          batch: (maps by layer, int32 labels [B]).
          training: whether the heads' batch norm takes the batch's statistics.
        """
        maps, labels = batch
        terms, accuracies = {}, {}
        for layer, logits in self.network(maps, training=training).items():
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            right = tf.argmax(logits, 1, output_type=labels.dtype) == labels
            terms[f"cross_entropy_{layer}"] = tf.reduce_mean(cross_entropy)
            accuracies[f"accuracy_{layer}"] = tf.reduce_mean(tf.cast(right, tf.float32))
        terms["l2"] = self.protocol.weight_decay * tf.add_n([head.decay() for head in self.network.heads])
        return {"loss": tf.add_n(list(terms.values())), **terms, **accuracies}

    def gradients(self, batch):
        """As `TrainableModel` has it, of (images [B, H, W, 3] in [-1, 1], int32 labels [B]); none through the backbone."""
        images, labels = batch
        return super().gradients((self.maps(images), labels))

    @tf.function
    def scores(self, views) -> dict:
        """Layer to class probabilities [B, classes], the mean over the views uint8 [B, views, H, W, 3] of an image."""
        shape = tf.shape(views)
        maps = self.backbone.features(tf.reshape(views, [-1, *views.shape[2:]]), layer=self.layer_names)
        probabilities = {layer: tf.nn.softmax(logits) for layer, logits in self.network(maps).items()}
        return {
            layer: tf.reduce_mean(tf.reshape(values, [shape[0], shape[1], -1]), 1)
            for layer, values in probabilities.items()
        }

    def pictures(self, images) -> dict:
        """Rows of the picture strip: what the backbone sees."""
        return {"image": images}

    def filters(self):
        """The first kernels [k, k, 3, n] of the backbone."""
        variables = self.backbone.module.signatures[self.layer_names[0]].variables
        return next(variable for variable in variables if variable.shape.rank == 4)

    def histograms(self, images) -> dict:
        """Name to tensor: the heads' weights, and their logits on images in [-1, 1]."""
        weights = {f"weights/{v.path.partition('/')[2]}": tf.convert_to_tensor(v) for v in self.trainable_variables}
        logits = self.network(self._inference(images))
        return {**weights, **{f"logits/{layer}": values for layer, values in logits.items()}}


def learning_rate(protocol: SgdProtocol, steps: int):
    """Return the rate as `build_optimizer` takes it: a schedule, or the first rate of a linear decay."""
    if isinstance(protocol, AdamProtocol):
        return protocol.learning_rate
    rates = [rate * protocol.learning_rate for rate in protocol.rates]
    last_steps = [int(drop * steps) - 1 for drop in protocol.drops]  # at which the rate before still counts
    return keras.optimizers.schedules.PiecewiseConstantDecay(last_steps, rates)
