"""Head and losses of Fast R-CNN (Girshick 2015)."""

from collections.abc import Callable

import keras
import tensorflow as tf

from experiments.voc.detection.boxes import clip_to, decode, roi_pool
from lts.networks.config_mixin import ConfigMixin

# Proposals that are pooled at once in the test. The interpolation weights of all 2,000 would take 1.5 GB.
CHUNK = 256


@keras.saving.register_keras_serializable("experiments")
class DetectionHead(ConfigMixin, keras.Model):
    """RoI pooling, fully connected layers, scores and boxes.

    The last two layers are initialised as in Girshick (2015), with standard deviations 0.01 and 0.001, the others with
    He's variance (ours; the paper takes them from ImageNet).

    Shapes (AlexNet's sizes): 128 regions give [128, 6, 6, 256], twice [128, 4096], scores [128, C + 1] and moves
    [128, C, 4].

    Args:
      classes: number of classes C without the background.
      units: units of each fully connected layer.
      cells: cells per side of a pooled region.
      stride: pixels between two cells of the map.
      first: centre of the first cell in pixels, see `boxes.roi_pool`.
      name: Keras name.
      **kwargs: as for `keras.Model`.
    """

    def __init__(
        self, classes: int, units: tuple[int, ...], cells: int, stride: int, first: float, name="head", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.classes = classes
        self.units = tuple(units)
        self.cells = cells
        self.stride = stride
        self.first = first
        self.hidden = []
        for number, width in enumerate(self.units, 6):
            layer = keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name=f"fc_{number}")
            self.hidden.append(layer)
        self.scores = keras.layers.Dense(classes + 1, kernel_initializer=_normal(0.01), name="scores")
        self.moves = keras.layers.Dense(4 * classes, kernel_initializer=_normal(0.001), name="moves")

    def build(self, input_shape):
        width = self.cells**2 * input_shape[-1]
        for layer in self.hidden:
            layer.build((None, width))
            width = layer.units
        self.scores.build((None, width))
        self.moves.build((None, width))

    def call(self, features, boxes, drop: Callable | None = None):
        """Return scores and moves of regions.

        Args:
          features: [B, h, w, c].
          boxes: float32 [B, R, 4] in pixels of the images.
          drop: dropout of (units [B * R, units], index of the layer); None: no dropout.

        Returns:
          Logits float32 [B * R, C + 1], background first; moves float32 [B * R, C, 4], normalised as by
          `boxes.encode`.
        """
        batch, count = tf.unstack(tf.shape(boxes)[:2])
        images = tf.repeat(tf.range(batch), count)
        x = roi_pool(features, tf.reshape(boxes, [-1, 4]), images, self.stride, self.cells, self.first)
        x = tf.reshape(x, [-1, self.cells**2 * features.shape[-1]])
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            x = x if drop is None else drop(x, index)
        return self.scores(x), tf.reshape(self.moves(x), [-1, self.classes, 4])


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def classification_loss(logits: tf.Tensor, classes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the mean softmax cross entropy over all rows.

    Padding counts as rows of loss 0, so that replicas with different padding agree with one device.

    Args:
      logits: float32 [n, C + 1], background first.
      classes: int [n], 0 is background.
      weights: float32 [n].
    """
    return tf.reduce_mean(weights * tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits))


def smooth_l1(x: tf.Tensor) -> tf.Tensor:
    """Return x ** 2 / 2 where |x| < 1, else |x| - 1/2 (Girshick 2015, equation 3)."""
    size = tf.abs(x)
    return tf.where(size < 1, tf.square(x) / 2, size - 0.5)


def box_loss(moves: tf.Tensor, targets: tf.Tensor, classes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the mean smooth L1 of the true class's box over all rows.

    The loss of a box is the sum over its four numbers. Background rows are 0.

    Args:
      moves: float32 [n, C, 4].
      targets: float32 [n, 4], normalised.
      classes: int [n], 0 is background.
      weights: float32 [n].
    """
    # Background has class -1 here, whose one-hot vector is zero.
    true_class = tf.one_hot(classes - 1, moves.shape[1])
    losses = smooth_l1(moves - targets[:, None])
    return tf.reduce_mean(weights * tf.einsum("nc,ncd->n", true_class, losses))


def score_proposals(
    head: DetectionHead, features: tf.Tensor, proposals: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return probabilities and boxes of all proposals, before suppression.

    Args:
      head: head of the detector.
      features: [1, h, w, c].
      proposals: float32 [n, 4] in pixels of the view.
      height: height of the image in the view; boxes are clipped to it.
      width: width of the image in the view.

    Returns:
      float32 [n, C + 1], background first, and [n, C, 4] in the same pixels.
    """
    count = tf.shape(proposals)[0]
    chunks = tf.reshape(tf.pad(proposals, [[0, -count % CHUNK], [0, 0]]), [-1, CHUNK, 4])

    def of_chunk(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, moves = head(features, boxes[None])
        return tf.nn.softmax(logits), decode(moves, boxes[:, None])

    result = (tf.TensorSpec([CHUNK, head.classes + 1]), tf.TensorSpec([CHUNK, head.classes, 4]))
    scores, boxes = tf.map_fn(of_chunk, chunks, fn_output_signature=result)
    scores = tf.reshape(scores, [-1, head.classes + 1])
    boxes = tf.reshape(boxes, [-1, head.classes, 4])
    return scores[:count], clip_to(boxes[:count], height, width)
