"""Linear heads on a frozen backbone, trained together by gradient descent.

The backbone is any SavedModel with the signatures of `lts.export.saved_model`. Its weights never change. All heads see
the same augmented images in one pass. They share nothing, so each head is the same as one that is trained alone.
"""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from experiments.probing.features import pooled_cells
from experiments.probing.probe import ProbeError
from experiments.probing.protocols import AdamProtocol, SgdProtocol
from lts import data, training
from lts.export.pooling import adaptive_pool
from lts.training.optimizers import build_optimizer

POOLS = {"average": tf.nn.avg_pool2d, "max": tf.nn.max_pool2d}
HE = 2.6  # 1.3 * 2: TensorFlow 1's variance scaling of a truncated normal


class Head(keras.layers.Layer):
    """Linear classifier on one layer.

    Shapes: a map `[8, 57, 57, 96]` is pooled to `[8, 10, 10, 96]` and gives logits `[8, 1000]`.

    Args:
      classes: number of logits.
      protocol: pooling, batch norm, initialiser and weight decay.
      name: of the layer that the head reads.

    Raises:
      ProbeError: the protocol has no pooling window for the layer.
    """

    def __init__(self, classes: int, protocol: SgdProtocol, name: str):
        super().__init__(name=name)
        self.classes = classes
        self.protocol = protocol
        windows = {layer: (kernel, padding) for layer, kernel, padding in protocol.windows}
        if windows and name not in windows:
            known = ", ".join(windows)
            raise ProbeError(f"protocol {protocol.name} pools only {known}. Received: layer {name!r}. Change --layers.")
        self.window = windows.get(name)
        # Without scale and shift, because the linear map follows.
        self.norm = None
        if protocol.norm_decay is not None:
            self.norm = keras.layers.BatchNormalization(
                momentum=protocol.norm_decay, epsilon=protocol.norm_epsilon, center=False, scale=False, name="norm"
            )

    def build(self, shape):
        """Create the variables for a shape [B, h, w, c]."""
        height, width, _ = shape[1:]
        if self.window is not None:
            kernel, padding = self.window
            # NB: such a window would give no cells, and the head would learn from nothing.
            if padding == "VALID" and min(height, width) < kernel:
                raise ProbeError(
                    f"protocol {self.protocol.name} averages {kernel} x {kernel} cells of {self.name}. "
                    f"Received: {height} x {width} cells. Give a larger --image_size."
                )
        # Pooling an empty map gives the shape for any kind of window.
        pooled = self.pool(tf.zeros([1, *shape[1:]])).shape
        self.dimensions = pooled[1] * pooled[2] * pooled[3]
        if self.norm is not None:
            self.norm.build(pooled)
        initializer = self._initializer()
        self.kernel = self.add_weight(shape=(self.dimensions, self.classes), initializer=initializer, name="kernel")
        self.bias = self.add_weight(shape=(self.classes,), initializer="zeros", name="bias")

    def _initializer(self) -> keras.initializers.Initializer:
        """Return the initialiser of the linear map."""
        if self.protocol.initialiser == "normal":
            return keras.initializers.RandomNormal(stddev=self.protocol.deviation)
        if self.protocol.initialiser == "truncated_normal":
            return keras.initializers.TruncatedNormal(stddev=self.protocol.deviation)
        return keras.initializers.TruncatedNormal(stddev=(HE / self.dimensions) ** 0.5)

    def pool(self, maps):
        """Return maps [B, h, w, c] with fewer cells."""
        protocol = self.protocol
        if self.window is not None:
            kernel, padding = self.window
            return POOLS[protocol.pool](maps, kernel, kernel, padding)
        if protocol.dimensions is None:
            return maps
        cells = pooled_cells(*maps.shape[1:], protocol.dimensions)
        return adaptive_pool(maps, cells, protocol.pool)

    def call(self, maps, training=False):
        """Return logits [B, classes] of maps [B, h, w, c]."""
        pooled = self.pool(maps)
        if self.norm is not None:
            pooled = self.norm(pooled, training=training)
        return tf.reshape(pooled, [-1, self.dimensions]) @ self.kernel + self.bias

    def l2(self):
        """Return sum(w ** 2) / 2 of the weights that decay."""
        loss = tf.nn.l2_loss(tf.convert_to_tensor(self.kernel))
        if self.protocol.decay_biases:
            loss += tf.nn.l2_loss(tf.convert_to_tensor(self.bias))
        return loss


class Heads(keras.layers.Layer):
    """A head for each layer.

    Args:
      layers: names of the layers.
      classes: number of logits.
      protocol: of all heads.
      name: of this Keras layer.
    """

    def __init__(self, layers: Sequence[str], classes: int, protocol: SgdProtocol, name: str = "network"):
        super().__init__(name=name)
        self.heads = [Head(classes, protocol, layer) for layer in layers]

    def build(self, shapes, moving_averages: Sequence[tf.Variable] = ()):
        """Create the variables for the shapes of maps by layer."""
        for head in self.heads:
            head.build(shapes[head.name])
            head.built = True
        # Copies of the backbone's moving averages, so that checkpoints contain them where they move.
        self.statistics = []
        for index, variable in enumerate(moving_averages):
            copy = self.add_weight(
                shape=variable.shape,
                initializer=lambda shape, dtype, value=variable: tf.convert_to_tensor(value),
                trainable=False,
                name=f"statistic_{index}",
            )
            self.statistics.append(copy)
        self.built = True

    def call(self, maps, training=False):
        """Return logits [B, classes] by layer of maps by layer."""
        return {head.name: head(maps[head.name], training=training) for head in self.heads}


class HeadsModel(training.TrainableModel):
    """A frozen backbone under its heads.

    Args:
      backbone: a loaded SavedModel that nothing else uses: with `backbone_training` its moving averages change.
      layers: names of the layers to probe.
      classes: number of classes.
      protocol: of heads and optimizer.
      steps: of the whole run.
      image_size: pixels per side.
    """

    def __init__(
        self, backbone, layers: Sequence[str], classes: int, protocol: SgdProtocol, steps: int, image_size: int
    ):
        metrics = [f"cross_entropy_{layer}" for layer in layers] + [f"accuracy_{layer}" for layer in layers]
        super().__init__(("loss", "l2", *metrics, "gradient_norm"), name="linear_probe")
        self.backbone = backbone
        self.protocol = protocol
        self.layer_names = tuple(layers)
        self.network = Heads(layers, classes, protocol)
        maps = self._inference(tf.zeros([1, image_size, image_size, 3]))
        shapes = {layer: values.shape for layer, values in maps.items()}
        self.network.build(shapes, self.moving_averages)
        self.compile(build_optimizer(protocol, steps, learning_rate(protocol, steps)))
        self.optimizer.build(self.trainable_variables)
        self.built = True

    @functools.cached_property
    def moving_averages(self) -> list[tf.Variable]:
        """The backbone's moving averages; empty where they do not move."""
        if not self.protocol.backbone_training:
            return []
        return [variable for variable in self._train_signature.variables if not variable.trainable]

    @property
    def _train_signature(self):
        return self.backbone.module.signatures["train"]

    def _inference(self, images) -> dict:
        """Return maps by layer with the moving averages of batch norm."""
        return self.backbone.features(data.as_bytes(images), layer=self.layer_names)

    def maps(self, images) -> dict:
        """Return the maps that heads are trained on.

        Args:
          images: float32 [B, H, W, 3] in [-1, 1].

        Returns:
          Layer to float32 [B, h, w, c].
        """
        if not self.protocol.backbone_training:
            return self._inference(images)
        # The release's trap: batch norm uses the statistics of the batch, and its moving averages change.
        outputs = self._train_signature(images=(images + 1.0) * 127.5)
        for copy, variable in zip(self.network.statistics, self.moving_averages, strict=True):
            copy.assign(variable)
        return {layer: outputs[layer] for layer in self.layer_names}

    def restore_statistics(self) -> None:
        """Give the backbone the moving averages of a checkpoint."""
        for copy, variable in zip(self.network.statistics, self.moving_averages, strict=True):
            variable.assign(tf.convert_to_tensor(copy))

    def compute_losses(self, batch, training=True) -> dict:
        """Return the losses and accuracies of a batch by name.

        Args:
          batch: (maps by layer, int32 labels [B]).
          training: whether the heads' batch norm uses the statistics of the batch.

        Returns:
          Scalars by name: `cross_entropy` and `accuracy` of each layer, `l2` of all, and `loss`, the sum of all losses.
        """
        maps, labels = batch
        losses = {}
        accuracies = {}
        for layer, logits in self.network(maps, training=training).items():
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            correct = tf.argmax(logits, 1, output_type=labels.dtype) == labels
            losses[f"cross_entropy_{layer}"] = tf.reduce_mean(cross_entropy)
            accuracies[f"accuracy_{layer}"] = tf.reduce_mean(tf.cast(correct, tf.float32))
        # Heads share no weights: the sum of their losses trains each as if it were alone.
        losses["l2"] = self.protocol.weight_decay * tf.add_n([head.l2() for head in self.network.heads])
        return {"loss": tf.add_n(list(losses.values())), **losses, **accuracies}

    def gradients(self, batch, scaled=False):
        """Return `TrainableModel.gradients` of images and labels."""
        images, labels = batch
        # The maps are computed outside of the tape: no gradient flows through the backbone.
        return super().gradients((self.maps(images), labels), scaled)

    @tf.function
    def scores(self, views) -> dict:
        """Return class probabilities, averaged over views.

        Args:
          views: uint8 [B, views, H, W, 3].

        Returns:
          Layer to float32 [B, classes].
        """
        # All views go through the backbone as one batch.
        shape = tf.shape(views)
        images = tf.reshape(views, [-1, *views.shape[2:]])
        maps = self.backbone.features(images, layer=self.layer_names)
        scores = {}
        for layer, logits in self.network(maps).items():
            probabilities = tf.reshape(tf.nn.softmax(logits), [shape[0], shape[1], -1])
            scores[layer] = tf.reduce_mean(probabilities, 1)
        return scores

    def pictures(self, images) -> dict:
        """Return the rows of the picture strip."""
        return {"image": images}

    def filters(self):
        """Return the first kernels [k, k, 3, n] of the backbone."""
        # A SavedModel has no layers, but only the kernels of convolutions have rank 4.
        variables = self.backbone.module.signatures[self.layer_names[0]].variables
        return next(variable for variable in variables if variable.shape.rank == 4)

    def histograms(self, images) -> dict:
        """Return the heads' weights and logits by name."""
        tensors = {}
        for variable in self.trainable_variables:
            _, _, name = variable.path.partition("/")
            tensors[f"weights/{name}"] = tf.convert_to_tensor(variable)
        for layer, logits in self.network(self._inference(images)).items():
            tensors[f"logits/{layer}"] = logits
        return tensors


def learning_rate(protocol: SgdProtocol, steps: int):
    """Return the learning rate as `build_optimizer` takes it."""
    # `build_optimizer` adds the linear decay of Adam itself.
    if isinstance(protocol, AdamProtocol):
        return protocol.learning_rate
    rates = [rate * protocol.learning_rate for rate in protocol.rates]
    # Keras applies a rate up to and including its boundary.
    boundaries = [int(drop * steps) - 1 for drop in protocol.drops]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
